//! Oracle: tokens that the full cache's own continuation attends to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Attention really received while the full cache generates, mean over the group's query heads.
///
/// Paper: none: house definition. Differs: it looks ahead, so that nothing can be served with it; it says
/// what a perfect guess of future attention would be worth.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oracle {}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "oracle",
    paper: "house definition",
    about: "attention really received from the full cache's continuation; evaluations only",
    differs: "nothing was published to differ from; it looks ahead, so that nothing can be served with it",
    build: |p| Ok(Box::new(parse::<Oracle>(p)?)),
};

impl Scorer for Oracle {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            continuation: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let mean = RowPooling::mean_of_groups(observation.group, observation.tokens);
        LayerScores::new(pool_rows(observation.continuation()?, mean)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn a_group_shares_the_mean_of_what_its_heads_received() {
        let received = [[0.5, 0.0], [0.1, 0.4], [1.0, 2.0], [3.0, 0.0]];
        let received = Tensor::new(&received, &Device::Cpu).unwrap();
        let mut observation = LayerObservation {
            continuation: Some(&received),
            ..LayerObservation::of(2, 2, 2, &Device::Cpu)
        };
        let scores = Oracle {}.score(&observation).unwrap();
        assert_eq!(scores.to_rows().unwrap(), [[0.3, 0.2], [2.0, 1.0]]);
        observation.continuation = None;
        assert!(Oracle {}.score(&observation).is_err());
    }
}
