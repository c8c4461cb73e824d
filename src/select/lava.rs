//! LAVa: pooled attention of the window times the head's largest value.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value_norm::value_norms;
use super::{GroupReduce, LayerObservation, LayerScores, Needs, Order, Pooling, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Mean attention of the window's rows, max-pooled, times the largest ‖v‖₁ of the head, the largest of the group.
///
/// The factor is one number per KV head: it decides where heads compete, and nowhere else.
/// Paper: arXiv:2509.09754 (LAVa), section 4. Differs: layers' budgets by entropy are an allocator's, not a scorer's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lava {
    /// Width of the max pooling, odd.
    pub kernel: usize,
}

impl Default for Lava {
    fn default() -> Self {
        Self { kernel: 7 }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "lava",
    paper: "arXiv:2509.09754 (LAVa), section 4",
    about: "the window's mean attention, max-pooled, times the head's largest value: comparable across heads",
    differs: "as published; its budgets of layers are an allocator's",
    build: |p| {
        let scorer = parse::<Lava>(p)?;
        if scorer.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for Lava {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window: window.max(1),
            values: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let pooling = RowPooling {
            rows: observation.group,
            group: GroupReduce::Max,
            prefix: observation.prefix(),
            pooling: Pooling::Max,
            kernel: self.kernel,
            order: Order::PoolFirst,
        };
        let pooled = pool_rows(observation.window_mean()?, pooling)?;
        let largest = value_norms(observation)?.into_iter().map(|norms| {
            let seen = norms.into_iter().skip(observation.first_in_sight);
            seen.fold(0.0, f64::max)
        });
        let largest: Vec<f64> = largest.collect();
        let largest = Tensor::from_vec(largest, (observation.kv_heads, 1), pooled.device())?;
        LayerScores::new(pooled.broadcast_mul(&largest)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn heads_are_weighed_by_their_largest_value() {
        let mean = [
            [0.0, 0.2, 0.0, 0.0, 0.8],
            [0.3, 0.0, 0.0, 0.1, 0.6],
            [0.5, 0.0, 0.0, 0.0, 0.5],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ];
        let mean = Tensor::new(&mean, &Device::Cpu).unwrap();
        let rows = |largest: f32| {
            Tensor::new(
                &[
                    [0f32, 1.0],
                    [largest, -1.0],
                    [0.0, 0.0],
                    [0.0, 0.0],
                    [1.0, 1.0],
                ],
                &Device::Cpu,
            )
            .unwrap()
        };
        let values = [rows(1.0), rows(3.0)];
        let observation = LayerObservation {
            window: 1,
            window_mean: Some(&mean),
            values: Some(&values),
            ..LayerObservation::of(5, 2, 2, &Device::Cpu)
        };
        let scores = Lava { kernel: 3 }
            .score(&observation)
            .unwrap()
            .to_rows()
            .unwrap();
        let want = [[0.6, 0.6, 0.4, 0.2, 0.0], [2.0, 2.0, 0.0, 0.0, 0.0]];
        for (got, want) in scores.concat().iter().zip(want.concat()) {
            assert!((got - want).abs() < 1e-12, "{scores:?}");
        }
    }
}
