//! SnapKV: tokens that the end of the prompt looks at, with their neighbours.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GroupReduce, LayerObservation, LayerScores, Needs, Order, Pooling, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Mean attention of the last w rows to the tokens before them, pooled over neighbours.
///
/// Paper: arXiv:2404.14469 (SnapKV), section 4 and listing 1. Differs: mean over the rows instead of
/// their sum (the order is the same), and the group of query heads is reduced so that keys and values
/// are never repeated; both steps and their order are parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapKv {
    /// How neighbours are pooled.
    pub pooling: Pooling,
    /// Width of the pooling, odd.
    pub kernel: usize,
    /// How a group of query heads is reduced.
    pub group: GroupReduce,
    /// Pooling or reduction first.
    pub order: Order,
}

impl Default for SnapKv {
    fn default() -> Self {
        Self {
            pooling: Pooling::Max,
            kernel: 7,
            group: GroupReduce::Mean,
            order: Order::PoolFirst,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "snapkv",
    paper: "arXiv:2404.14469 (SnapKV), section 4",
    about: "mean attention of the last rows, pooled over neighbouring tokens",
    differs: "the mean over the rows for their sum, and one score for the query heads that share a KV head",
    build: |p| {
        let scorer = parse::<SnapKv>(p)?;
        if scorer.kernel.is_multiple_of(2) {
            Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ))
        } else {
            Ok(Box::new(scorer))
        }
    },
};

impl Scorer for SnapKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window: window.max(1),
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        // Pooling must not reach into the window, whose tokens stay anyway.
        let prefix = observation.tokens.saturating_sub(observation.window);
        let pooling = RowPooling {
            rows: observation.group,
            group: self.group,
            prefix,
            pooling: self.pooling,
            kernel: self.kernel,
            order: self.order,
        };
        LayerScores::new(pool_rows(observation.window_mean()?, pooling)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// Scores of a mean `(H_q, T)`.
    fn scores(
        scorer: &SnapKv,
        window_mean: &[Vec<f64>],
        group: usize,
        window: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let window_mean = Tensor::new(window_mean.to_vec(), &Device::Cpu)?;
        let (heads, tokens) = window_mean.dims2()?;
        let observation = LayerObservation {
            window,
            window_mean: Some(&window_mean),
            ..LayerObservation::of(tokens, group, heads / group, &Device::Cpu)
        };
        scorer.score(&observation)?.to_rows()
    }

    fn scorer(pooling: Pooling, kernel: usize, group: GroupReduce, order: Order) -> SnapKv {
        SnapKv {
            pooling,
            kernel,
            group,
            order,
        }
    }

    #[test]
    fn pooling_spreads_over_neighbours_but_not_into_the_window() {
        let mean = [vec![0.0, 3.0, 0.0, 0.0, 6.0, 9.0, 9.0]];
        let score = |pooling| {
            let s = scorer(pooling, 3, GroupReduce::Mean, Order::PoolFirst);
            scores(&s, &mean, 1, 2).unwrap()[0].clone()
        };
        assert_eq!(score(Pooling::Max), [3.0, 3.0, 3.0, 6.0, 6.0, 0.0, 0.0]);
        assert_eq!(score(Pooling::Avg), [1.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0]);
        assert_eq!(score(Pooling::None), [0.0, 3.0, 0.0, 0.0, 6.0, 0.0, 0.0]);
    }

    #[test]
    fn the_order_of_pooling_and_reduction_matters_for_maxima() {
        let mean = [vec![4.0, 0.0, 0.0], vec![0.0, 0.0, 2.0]];
        let score = |group, order| {
            let s = scorer(Pooling::Max, 3, group, order);
            scores(&s, &mean, 2, 0).unwrap()[0].clone()
        };
        // Pooled: (4, 4, 0) and (0, 2, 2); reduced first: (2, 0, 1).
        assert_eq!(score(GroupReduce::Mean, Order::PoolFirst), [2.0, 3.0, 1.0]);
        assert_eq!(
            score(GroupReduce::Mean, Order::ReduceFirst),
            [2.0, 2.0, 1.0]
        );
        assert_eq!(score(GroupReduce::Max, Order::PoolFirst), [4.0, 4.0, 2.0]);
    }

    #[test]
    fn an_even_kernel_is_refused() {
        let s = scorer(Pooling::Max, 4, GroupReduce::Mean, Order::PoolFirst);
        assert!(scores(&s, &[vec![1.0]], 1, 0).is_err());
    }
}
