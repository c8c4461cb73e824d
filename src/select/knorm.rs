//! Knorm: tokens whose keys are short.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::compute::device::row_norms;
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
    differs: "no layer is left out",
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
        let heads = observation.keys()?.iter();
        let norms: Vec<Tensor> = heads.map(row_norms).collect::<Result<_>>()?;
        LayerScores::new(Tensor::stack(&norms, 0)?.neg()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn short_keys_score_highest() {
        let keys = [Tensor::new(&[[3f32, 4.0], [0.0, 1.0]], &Device::Cpu).unwrap()];
        let observation = LayerObservation {
            keys: Some(&keys),
            ..LayerObservation::of(2, 1, 1, &Device::Cpu)
        };
        let scores = KNorm {}.score(&observation).unwrap();
        assert_eq!(scores.to_rows().unwrap(), [[-5.0, -1.0]]);
    }
}
