//! KeyDiff: tokens whose keys point away from the rest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::{host_rows, squared_norms};
use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Minus the cosine of a key and the mean direction of all keys in sight.
///
/// Paper: arXiv:2504.15364 (KeyDiff), section 4. Differs: once, over all keys of the prompt, as kvpress does it, where
/// the paper cuts block by block.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyDiff {}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "keydiff",
    paper: "arXiv:2504.15364 (KeyDiff), section 4",
    about: "keys that point away from the mean direction of all keys",
    differs: "once, over the whole prompt, where the paper cuts block by block",
    build: |p| Ok(Box::new(parse::<KeyDiff>(p)?)),
};

impl Scorer for KeyDiff {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            keys: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let mut scores = Vec::with_capacity(observation.kv_heads * observation.tokens);
        for keys in observation.keys()? {
            let (_, width) = keys.dims2()?;
            let keys = host_rows(keys)?;
            scores.extend(unlike_the_mean(&keys, width, observation.first_in_sight));
        }
        LayerScores::of_heads(scores, observation.kv_heads, observation.device)
    }
}

/// Minus the cosine of every key and the mean direction of those from `first` on.
fn unlike_the_mean(keys: &[f32], width: usize, first: usize) -> Vec<f64> {
    let inverse = |square: f64| {
        if square > 0.0 {
            1.0 / square.sqrt()
        } else {
            0.0
        }
    };
    let lengths: Vec<f64> = squared_norms(keys, width)
        .into_iter()
        .map(inverse)
        .collect();
    let rows = || keys.chunks(width.max(1)).zip(&lengths);
    let mut anchor = vec![0.0; width];
    for (key, length) in rows().skip(first) {
        for (sum, x) in anchor.iter_mut().zip(key) {
            *sum += f64::from(*x) * length;
        }
    }
    // Its length alone is left of the mean: a cosine does not ask for the count.
    let of_anchor = inverse(anchor.iter().map(|x| x * x).sum());
    let cosine = |(key, length): (&[f32], &f64)| {
        let products = key.iter().zip(&anchor).map(|(x, a)| f64::from(*x) * a);
        products.sum::<f64>() * length * of_anchor
    };
    rows().map(|row| -cosine(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn the_odd_key_scores_highest() {
        let keys = [Tensor::new(
            &[[2f32, 0.0], [1.0, 0.0], [0.0, 5.0], [0.0, 0.0]],
            &Device::Cpu,
        )
        .unwrap()];
        let observation = LayerObservation {
            keys: Some(&keys),
            ..LayerObservation::of(4, 1, 1, &Device::Cpu)
        };
        let score = |observation: &LayerObservation<'_>| {
            KeyDiff {}
                .score(observation)
                .unwrap()
                .to_rows()
                .unwrap()
                .remove(0)
        };
        // Directions add up to (2, 1); a key of no length has none.
        let root = 5f64.sqrt();
        for (got, want) in
            score(&observation)
                .iter()
                .zip([-2.0 / root, -2.0 / root, -1.0 / root, 0.0])
        {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        // Behind a window that has passed the first two, the third is all there is.
        let passed = LayerObservation {
            first_in_sight: 2,
            ..observation
        };
        assert_eq!(score(&passed)[2], -1.0);
        assert_eq!(score(&passed)[0], 0.0);
    }
}
