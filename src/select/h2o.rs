//! H2O: tokens that received the most attention from the whole prompt.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GroupReduce, LayerObservation, LayerScores, Needs, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Attention received from all rows, reduced over the group's query heads.
///
/// Paper: arXiv:2306.14048 (H2O), section 4. Differs: applied once to the prompt, as the field does
/// when it compresses prompts; `normalise` divides by the number of rows that can see the token, which
/// is what kvpress calls observed attention.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct H2o {
    /// Mean over the rows that see a token instead of the sum, which favours early tokens.
    pub normalise: bool,
    /// How a group of query heads is reduced.
    pub group: GroupReduce,
}

impl Default for H2o {
    fn default() -> Self {
        Self::SUM
    }
}

impl H2o {
    /// As published: sums, averaged over the group.
    pub const SUM: Self = Self {
        normalise: false,
        group: GroupReduce::Mean,
    };
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "h2o",
    paper: "arXiv:2306.14048 (H2O), section 4",
    about: "attention received from all rows of the prompt",
    differs: "applied once to the prompt instead of at every step",
    build: |p| Ok(Box::new(parse::<H2o>(p)?)),
};

impl Scorer for H2o {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            all_rows: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let tokens = observation.tokens;
        let reduced = RowPooling {
            group: self.group,
            ..RowPooling::mean_of_groups(observation.group, tokens)
        };
        let reduced = pool_rows(observation.received()?, reduced)?;
        if !self.normalise {
            return LayerScores::new(reduced);
        }
        let rows_seeing: Vec<f64> = (0..tokens).map(|key| (tokens - key) as f64).collect();
        let rows_seeing = Tensor::from_vec(rows_seeing, (1, tokens), observation.device)?;
        LayerScores::new(reduced.broadcast_div(&rows_seeing)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_sum_favours_early_tokens_and_the_mean_does_not() {
        // Rows (1), (0.5, 0.5), (0.2, 0.2, 0.6) of one head; the other head looks at key 0 only.
        let received = [[1.7, 0.7, 0.6], [3.0, 0.0, 0.0]];
        let received = Tensor::new(&received, &Device::Cpu).unwrap();
        let observation = LayerObservation {
            received: Some(&received),
            ..LayerObservation::of(3, 2, 1, &Device::Cpu)
        };
        let close = |got: &LayerScores, want: [f64; 3]| {
            got.to_rows().unwrap()[0]
                .iter()
                .zip(want)
                .for_each(|(g, w)| assert!((g - w).abs() < 1e-12));
        };
        close(
            &H2o::default().score(&observation).unwrap(),
            [2.35, 0.35, 0.3],
        );
        let normalised = H2o {
            normalise: true,
            ..H2o::default()
        };
        close(
            &normalised.score(&observation).unwrap(),
            [2.35 / 3.0, 0.175, 0.3],
        );
        let largest = H2o {
            group: GroupReduce::Max,
            ..normalised
        };
        close(&largest.score(&observation).unwrap(), [1.0, 0.35, 0.6]);
    }
}
