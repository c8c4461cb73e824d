//! Knorm: tokens whose keys are short.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Minus the L2 norm of the key: short keys attract attention.
///
/// Paper: arXiv:2406.11430 (L2 norm-based KV compression), section 3. Differs: no layer is left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KNorm {}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "knorm",
    paper: "arXiv:2406.11430, section 3",
    about: "keys of small norm first",
    build: |p| Ok(Box::new(parse::<KNorm>(p)?)),
};

impl Scorer for KNorm {
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
        let norm = |key: &[f32]| -> f64 {
            let squares = key.iter().map(|&x| f64::from(x) * f64::from(x));
            -squares.sum::<f64>().sqrt()
        };
        let heads = observation.keys()?.iter();
        Ok(heads
            .map(|keys| keys.chunks(observation.head_dim).map(norm).collect())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_keys_score_highest() {
        let keys = [vec![3.0, 4.0, 0.0, 1.0]];
        let observation = LayerObservation {
            layer: 0,
            tokens: 2,
            group: 1,
            kv_heads: 1,
            head_dim: 2,
            window: 0,
            window_mean: None,
            received: None,
            keys: Some(&keys),
            continuation: None,
        };
        assert_eq!(KNorm {}.score(&observation).unwrap(), [[-5.0, -1.0]]);
    }
}
