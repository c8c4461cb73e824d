//! CAKE's indicator: tokens that the window looks at, or looks at unsteadily.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    GroupReduce, LayerObservation, LayerScores, Needs, Order, Pooling, Scorer, WindowRows,
};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Mean of the window's rows plus `gamma` times their variance, mean-pooled, in the mean over the group.
///
/// Paper: arXiv:2503.12491 (CAKE), equation 9. Differs: once, on the prompt; its budgets of layers are an allocator's.
/// The variance is the unbiased one, as in its code, and 0 for a window of one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cake {
    /// Weight of the variance.
    pub gamma: f64,
    /// Width of the mean pooling, odd.
    pub kernel: usize,
}

impl Default for Cake {
    fn default() -> Self {
        Self {
            gamma: 200.0,
            kernel: 5,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "cake",
    paper: "arXiv:2503.12491 (CAKE), equation 9",
    about: "mean of the window's rows plus 200 times their variance, mean-pooled",
    differs: "once, on the prompt, where CAKE goes on while decoding; its budgets of layers are an allocator's",
    build: |p| {
        let scorer = parse::<Cake>(p)?;
        if scorer.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        if !(scorer.gamma.is_finite() && scorer.gamma >= 0.0) {
            return Err(serde::de::Error::custom(
                "gamma must be finite and not below 0",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for Cake {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window_rows: window.max(1),
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let (tokens, heads) = (observation.tokens, observation.kv_heads * observation.group);
        let rows = observation.window_rows()?;
        let indicators = (0..heads).into_par_iter();
        let indicators = indicators.map(|head| self.indicators(rows, head, tokens));
        let indicators: Vec<Vec<f64>> = indicators.collect();
        let indicators = Tensor::from_vec(indicators.concat(), (heads, tokens), &Device::Cpu)?;
        let pooling = RowPooling {
            rows: observation.group,
            group: GroupReduce::Mean,
            prefix: observation.prefix(),
            pooling: Pooling::Avg,
            kernel: self.kernel,
            order: Order::PoolFirst,
        };
        LayerScores::new(pool_rows(&indicators, pooling)?.to_device(observation.device)?)
    }
}

impl Cake {
    /// The indicator of every token for one query head.
    fn indicators(&self, rows: WindowRows<'_>, head: usize, tokens: usize) -> Vec<f64> {
        let count = rows.rows() as f64;
        let mut means = vec![0.0; tokens];
        for row in rows.of_head(head) {
            means
                .iter_mut()
                .zip(row)
                .for_each(|(m, p)| *m += f64::from(*p));
        }
        means.iter_mut().for_each(|m| *m /= count);
        let mut squares = vec![0.0; tokens];
        for row in rows.of_head(head) {
            let terms = squares.iter_mut().zip(row).zip(&means);
            terms.for_each(|((s, p), m)| *s += (f64::from(*p) - m).powi(2));
        }
        let weight = self.gamma / (count - 1.0).max(1.0);
        let both = means.iter().zip(&squares);
        both.map(|(mean, square)| mean + weight * square).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_unbiased_variance_are_pooled_by_hand() {
        // One head, rows of positions 2 and 3 over four tokens.
        let rows = [0.1f32, 0.5, 0.4, 0.0, 0.3, 0.1, 0.2, 0.4];
        let observation = |window| LayerObservation {
            window,
            window_rows: Some(WindowRows::new(&rows, 2, 4, 2)),
            ..LayerObservation::of(4, 1, 1, &Device::Cpu)
        };
        let score = |kernel, window| {
            let scores = Cake {
                gamma: 10.0,
                kernel,
            }
            .score(&observation(window))
            .unwrap();
            scores.to_rows().unwrap().remove(0)
        };
        // Means 0.2, 0.3, 0.3, 0.2; variances 0.02, 0.08, 0.02, 0.08.
        let close = |got: &[f64], want: &[f64]| {
            assert!(
                got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6),
                "{got:?}"
            );
        };
        close(&score(1, 0), &[0.4, 1.1, 0.5, 1.0]);
        close(&score(1, 2), &[0.4, 1.1, 0.0, 0.0]);
        close(&score(3, 0), &[1.5 / 3.0, 2.0 / 3.0, 2.6 / 3.0, 1.5 / 3.0]);
    }
}
