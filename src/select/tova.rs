//! TOVA: tokens that the last one attends to, the same set for every head.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Attention of the last row, mean over all query heads of the layer.
///
/// Paper: arXiv:2401.06104 (TOVA), section 3. Differs: applied once to the prompt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tova {}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "tova",
    paper: "arXiv:2401.06104 (TOVA), section 3",
    about: "attention of the last row, the same for every head of a layer",
    differs: "applied once to the prompt instead of at every step",
    build: |p| Ok(Box::new(parse::<Tova>(p)?)),
};

impl Scorer for Tova {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            window: 1,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let last = observation.window_mean()?;
        let (heads, tokens) = last.dims2()?;
        let mean = pool_rows(last, RowPooling::mean_of_groups(heads, tokens))?;
        LayerScores::alike(&mean, observation.kv_heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn every_head_gets_the_mean_over_all_heads() {
        let last = Tensor::new(&[[0.2, 0.8], [0.6, 0.4]], &Device::Cpu).unwrap();
        let observation = LayerObservation {
            window: 1,
            window_mean: Some(&last),
            ..LayerObservation::of(2, 1, 2, &Device::Cpu)
        };
        let scores = Tova {}.score(&observation).unwrap().to_rows().unwrap();
        assert_eq!(scores[0], scores[1]);
        assert!((scores[0][0] - 0.4).abs() < 1e-12 && (scores[0][1] - 0.6).abs() < 1e-12);
    }
}
