//! CurDKV: tokens whose keys and values are long for their neighbourhood.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::{host_rows, squared_norms};
use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// The product of a key's and a value's squared norm, each as its share of the `chunk` tokens that it stands among.
///
/// Paper: arXiv:2509.15038 (CurDKV), section 3. Differs: norms stand for leverage scores without a random projection, as
/// kvpress has it by default; a head's scores add up to 1 over all tokens in sight.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cur {
    /// Neighbouring tokens that share 1 among them, counted from the first token on.
    pub chunk: usize,
}

impl Default for Cur {
    fn default() -> Self {
        Self { chunk: 16 }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "cur",
    paper: "arXiv:2509.15038 (CurDKV), section 3",
    about: "squared norms of key and value, each as its share among 16 neighbours, multiplied",
    differs: "norms stand for leverage scores without a random projection, as kvpress has it by default",
    build: |p| {
        let scorer = parse::<Cur>(p)?;
        if scorer.chunk == 0 {
            return Err(serde::de::Error::custom("chunk must be at least 1 token"));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for Cur {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            keys: true,
            values: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let mut scores = Vec::with_capacity(observation.kv_heads * observation.tokens);
        for (keys, values) in observation.keys()?.iter().zip(observation.values()?) {
            let (_, width) = keys.dims2()?;
            let [keys, values] = [host_rows(keys)?, host_rows(values)?]
                .map(|rows| self.shares(squared_norms(&rows, width)));
            let mut own: Vec<f64> = keys.iter().zip(values).map(|(k, v)| k * v).collect();
            let total: f64 = own.iter().skip(observation.first_in_sight).sum();
            if total > 0.0 {
                own.iter_mut().for_each(|score| *score /= total);
            }
            scores.extend(own);
        }
        LayerScores::of_heads(scores, observation.kv_heads, observation.device)
    }
}

impl Cur {
    /// Every number's share of its chunk's sum.
    fn shares(&self, mut numbers: Vec<f64>) -> Vec<f64> {
        for chunk in numbers.chunks_mut(self.chunk) {
            let sum: f64 = chunk.iter().sum();
            if sum > 0.0 {
                chunk.iter_mut().for_each(|x| *x /= sum);
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn long_rows_among_short_ones_score_highest() {
        let rows =
            |numbers: [f32; 3]| [Tensor::new(&numbers.map(|x| [x, 0.0]), &Device::Cpu).unwrap()];
        let (keys, values) = (rows([1.0, 2.0, 9.0]), rows([3.0, 1.0, 0.5]));
        let observation = LayerObservation {
            keys: Some(&keys),
            values: Some(&values),
            ..LayerObservation::of(3, 1, 1, &Device::Cpu)
        };
        // Shares of keys 0.2, 0.8, 1, of values 0.9, 0.1, 1: the last stands alone.
        let scores = Cur { chunk: 2 }
            .score(&observation)
            .unwrap()
            .to_rows()
            .unwrap();
        for (got, want) in scores[0].iter().zip([0.18 / 1.26, 0.08 / 1.26, 1.0 / 1.26]) {
            assert!((got - want).abs() < 1e-12, "{scores:?}");
        }
        assert_eq!(Cur { chunk: 2 }.shares(vec![0.0, 0.0]), [0.0, 0.0]);
    }
}
