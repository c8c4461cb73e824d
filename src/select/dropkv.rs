//! DropKV: how far a layer's output moves when one token alone is left out.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::{host_rows, squared_norms};
use super::{
    GroupReduce, LayerObservation, LayerScores, Needs, Order, Pooling, Scorer, WindowRows,
};
use crate::compute::device::{RowPooling, pool_rows};
use crate::compute::lanes::vectorised;
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// What is added to the rest of a row, so that a row which sees one token alone can be divided by it.
const ROOM: f64 = 1e-6;

/// Squared change of a query head's output, summed over the window's rows, when a token leaves and the row's other
/// probabilities are renormalised: Σ (p / (1 − p))² ‖v − o‖²; pooled, in the mean over the group.
///
/// The unit is that of outputs: scores are comparable across heads, before W_o.
/// Paper: kvpress, pull request 285 (DropKV). Differs: exact up to 1e-6 beside 1 − p; in float64.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropKv {
    /// How neighbours are pooled.
    pub pooling: Pooling,
    /// Width of the pooling, odd.
    pub kernel: usize,
}

impl Default for DropKv {
    fn default() -> Self {
        Self {
            pooling: Pooling::Avg,
            kernel: 7,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "dropkv",
    paper: "kvpress, pull request 285 (DropKV)",
    about: "exact change of the output if one token alone left, over the window's rows: comparable across heads",
    differs: "as proposed, in float64",
    build: |p| {
        let scorer = parse::<DropKv>(p)?;
        if scorer.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for DropKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window_rows: window.max(1),
            values: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let (tokens, group) = (observation.tokens, observation.group);
        let rows = observation.window_rows()?;
        let mut errors = Vec::with_capacity(observation.kv_heads * group * tokens);
        for (kv_head, values) in observation.values()?.iter().enumerate() {
            let values = HeadValues::of(&host_rows(values)?, values.dims2()?.1);
            let heads = (kv_head * group..(kv_head + 1) * group).into_par_iter();
            let own: Vec<Vec<f64>> = heads.map(|head| values.errors(rows, head)).collect();
            errors.extend(own.concat());
        }
        let errors =
            Tensor::from_vec(errors, (observation.kv_heads * group, tokens), &Device::Cpu)?;
        let pooling = RowPooling {
            rows: group,
            group: GroupReduce::Mean,
            prefix: observation.prefix(),
            pooling: self.pooling,
            kernel: self.kernel,
            order: Order::ReduceFirst,
        };
        LayerScores::new(pool_rows(&errors, pooling)?.to_device(observation.device)?)
    }
}

/// The values of a KV head, channel by channel.
struct HeadValues {
    /// `(D, T)`.
    channels: Vec<f64>,
    squares: Vec<f64>,
}

impl HeadValues {
    fn of(rows: &[f32], width: usize) -> Self {
        let tokens = rows.len() / width.max(1);
        let channel = |i: usize| f64::from(rows[i % tokens * width + i / tokens]);
        Self {
            channels: (0..rows.len()).map(channel).collect(),
            squares: squared_norms(rows, width),
        }
    }

    /// The squared change of one query head's output without each token, over the window's rows.
    fn errors(&self, rows: WindowRows<'_>, head: usize) -> Vec<f64> {
        let tokens = self.squares.len();
        let mut errors = vec![0.0; tokens];
        let mut distances = vec![0.0; tokens];
        for row in rows.of_head(head) {
            let row: Vec<f64> = row.iter().map(|p| f64::from(*p)).collect();
            // What float32 leaves of 1 is not 1: next to a probability of nearly 1 the rest would be lost in it.
            let total: f64 = row.iter().sum();
            if total == 0.0 {
                // It sees none of these tokens: none of them changes its output.
                continue;
            }
            self.square_distances(&row, total, &mut distances);
            for ((error, p), distance) in errors.iter_mut().zip(&row).zip(&distances) {
                *error += (p / (total - p + ROOM)).powi(2) * distance;
            }
        }
        errors
    }

    /// ‖v − o‖² of every value, o being the output of a row that sums to `total`.
    fn square_distances(&self, row: &[f64], total: f64, distances: &mut [f64]) {
        distances.copy_from_slice(&self.squares);
        let mut square = 0.0;
        for channel in self.channels.chunks(row.len().max(1)) {
            let output: f64 = channel.iter().zip(row).map(|(v, p)| v * p).sum();
            let output = output / total;
            square += output * output;
            subtract(distances, channel, 2.0 * output);
        }
        // Rounding leaves a value at its output a distance next to zero, on either side.
        distances
            .iter_mut()
            .for_each(|d| *d = (*d + square).max(0.0));
    }
}

fn subtract(from: &mut [f64], channel: &[f64], times: f64) {
    vectorised!(subtract_all(from: &mut [f64], channel: &[f64], times: f64))
}

#[inline(always)]
fn subtract_all(from: &mut [f64], channel: &[f64], times: f64) {
    from.iter_mut()
        .zip(channel)
        .for_each(|(d, v)| *d -= times * v);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The change of the output without a token, from the two outputs themselves.
    fn slowly(row: &[f64], values: &[[f32; 2]], without: usize) -> f64 {
        let output = |leave: Option<usize>| {
            let kept = (0..row.len()).filter(|i| Some(*i) != leave);
            let total: f64 = kept.clone().map(|i| row[i]).sum();
            [0, 1].map(|d| {
                let terms = kept.clone().map(|i| row[i] * f64::from(values[i][d]));
                terms.sum::<f64>() / total
            })
        };
        let (all, less) = (output(None), output(Some(without)));
        (all[0] - less[0]).powi(2) + (all[1] - less[1]).powi(2)
    }

    #[test]
    fn scores_are_the_changes_of_outputs_without_a_token() {
        let values = [[1f32, 0.5], [-2.0, 1.0], [0.25, 4.0], [3.0, -1.0]];
        // Two heads of two rows each.
        let rows = [
            [0.5f32, 0.25, 0.25, 0.0],
            [0.125, 0.5, 0.125, 0.25],
            [0.0625, 0.9375, 0.0, 0.0],
            [0.25, 0.25, 0.25, 0.25],
        ];
        let held = [Tensor::new(&values, &Device::Cpu).unwrap()];
        let flat = rows.concat();
        let observation = LayerObservation {
            window_rows: Some(WindowRows::new(&flat, 2, 4, 2)),
            values: Some(&held),
            ..LayerObservation::of(4, 2, 1, &Device::Cpu)
        };
        let scorer = DropKv {
            pooling: Pooling::None,
            kernel: 1,
        };
        let scores = scorer
            .score(&observation)
            .unwrap()
            .to_rows()
            .unwrap()
            .remove(0);
        for (token, score) in scores.iter().enumerate() {
            let wide = rows.map(|row| row.map(f64::from));
            let want = wide
                .iter()
                .map(|row| slowly(row, &values, token))
                .sum::<f64>()
                / 2.0;
            assert!((score / want - 1.0).abs() < 1e-4, "{token}: {score} {want}");
        }
        // A row that sees one token alone has no other output: its score is finite all the same.
        let alone = [1.0f32, 0.0, 0.0, 0.0];
        let observation = LayerObservation {
            window_rows: Some(WindowRows::new(&alone, 1, 4, 1)),
            ..LayerObservation {
                group: 1,
                ..observation
            }
        };
        assert_eq!(
            scorer.score(&observation).unwrap().to_rows().unwrap(),
            [[0.0; 4]]
        );
    }
}
