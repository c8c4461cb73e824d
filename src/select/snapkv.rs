//! SnapKV: tokens that the end of the prompt looks at, with their neighbours.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::{Error, Result};
use crate::registry::{Entry, described, parse};

/// How neighbouring scores are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The largest of the kernel.
    Max,
    /// The mean of the kernel; beyond the ends it counts zeros.
    Avg,
    /// Not at all.
    None,
}

/// How the query heads of a group become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupReduce {
    /// Their mean.
    Mean,
    /// Their maximum.
    Max,
}

/// Which comes first; it matters wherever one of the two is a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Pool every query head, then reduce the group.
    PoolFirst,
    /// Reduce the group, then pool.
    ReduceFirst,
}

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
    build: |p| {
        let scorer = parse::<SnapKv>(p)?;
        match scorer.kernel.is_multiple_of(2) {
            true => Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            )),
            false => Ok(Box::new(scorer)),
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
        if self.kernel.is_multiple_of(2) {
            let bound = "the kernel of the pooling must be odd, to be centred on a token";
            return Err(Error::invalid("kernel", self.kernel, bound));
        }
        let mean = observation.window_mean()?;
        // Pooling must not reach into the window, whose tokens stay anyway.
        let prefix = observation.tokens.saturating_sub(observation.window);
        let scores = mean
            .chunks(observation.group)
            .map(|heads| {
                let heads: Vec<&[f64]> = heads.iter().map(|h| &h[..prefix]).collect();
                let mut scores = match self.order {
                    Order::PoolFirst => {
                        let pooled: Vec<Vec<f64>> = heads.iter().map(|h| self.pool(h)).collect();
                        self.reduce(&pooled.iter().map(Vec::as_slice).collect::<Vec<_>>())
                    }
                    Order::ReduceFirst => self.pool(&self.reduce(&heads)),
                };
                scores.resize(observation.tokens, 0.0);
                scores
            })
            .collect();
        Ok(scores)
    }
}

impl SnapKv {
    fn pool(&self, scores: &[f64]) -> Vec<f64> {
        let reach = self.kernel / 2;
        let around = |i: usize| {
            let kernel = i.saturating_sub(reach)..(i + reach + 1).min(scores.len());
            scores[kernel].iter().copied()
        };
        match self.pooling {
            Pooling::None => scores.to_vec(),
            Pooling::Max => (0..scores.len())
                .map(|i| around(i).fold(0.0, f64::max))
                .collect(),
            Pooling::Avg => {
                let width = self.kernel as f64;
                (0..scores.len())
                    .map(|i| around(i).sum::<f64>() / width)
                    .collect()
            }
        }
    }

    fn reduce(&self, heads: &[&[f64]]) -> Vec<f64> {
        let tokens = heads.first().map_or(0, |h| h.len());
        let of = |i: usize| heads.iter().map(move |h| h[i]);
        match self.group {
            GroupReduce::Mean => {
                let count = heads.len().max(1) as f64;
                (0..tokens).map(|i| of(i).sum::<f64>() / count).collect()
            }
            GroupReduce::Max => (0..tokens).map(|i| of(i).fold(0.0, f64::max)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(window_mean: &[Vec<f64>], group: usize, window: usize) -> LayerObservation<'_> {
        LayerObservation {
            layer: 0,
            tokens: window_mean[0].len(),
            group,
            kv_heads: window_mean.len() / group,
            head_dim: 1,
            window,
            window_mean: Some(window_mean),
            received: None,
            keys: None,
            continuation: None,
        }
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
            s.score(&observed(&mean, 1, 2)).unwrap()[0].clone()
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
            s.score(&observed(&mean, 2, 0)).unwrap()[0].clone()
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
        assert!(s.score(&observed(&[vec![1.0]], 1, 0)).is_err());
    }
}
