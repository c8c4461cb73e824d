//! DefensiveKV: the most that any row of the window looked at a token, with a floor and what its value brings.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FirstCount, FirstStage, LayerObservation, LayerScores, Needs, Scorer, WindowRows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Worst-case attention of the window with a prior, times ‖W_o v‖₁, behind a first stage by mass.
///
/// Every row of the window, before it, is mean-pooled and scaled to its old sum; a KV head's worst case is the largest
/// over its query heads and rows, and the mean of these over tokens at least; it is multiplied by the head's share of
/// the layer's ‖W_o v‖₁ of the token. Before that a head takes the tokens that hold `mass` of its mean attention, less
/// the mean mass on the last tokens before the window, as many as it has rows.
/// Paper: arXiv:2510.13334 (DefensiveKV), section 4, and its code. Differs: the first stage may take a head's whole
/// budget but for sinks and window, where the code's bound is the budget's share of what lies before the window, less
/// the window; pools over all layers are an allocator's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefensiveKv {
    /// Width of the mean pooling, odd.
    pub kernel: usize,
    /// Share of the mean attention that the first stage takes.
    pub mass: f64,
}

impl Default for DefensiveKv {
    fn default() -> Self {
        Self {
            kernel: 5,
            mass: 0.9,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "defensivekv",
    paper: "arXiv:2510.13334 (DefensiveKV), section 4",
    about: "the window's worst case with a prior, times the norm of W_o v, behind a first stage by mass",
    differs: "the first stage may take all of a head's budget but sinks and window; pools over layers are an allocator's",
    build: |p| {
        let scorer = parse::<DefensiveKv>(p)?;
        if scorer.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        if !(0.0..=1.0).contains(&scorer.mass) {
            return Err(serde::de::Error::custom("mass must be from 0 to 1"));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for DefensiveKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window_rows: window.max(1),
            projected_norms: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let (tokens, heads) = (observation.tokens, observation.kv_heads);
        let rows = observation.window_rows()?;
        let sight = Sight {
            first: observation.first_in_sight,
            prefix: observation.prefix().max(observation.first_in_sight),
            tokens,
        };
        let of_head = |head: usize| {
            let group = head * observation.group..(head + 1) * observation.group;
            self.attention(rows, group.collect(), sight)
        };
        let attention: Vec<HeadAttention> = (0..heads).into_par_iter().map(of_head).collect();
        let near: f64 = attention.iter().map(|a| a.near).sum::<f64>() / heads as f64;
        let counts = attention
            .iter()
            .map(|a| count_of(&a.mean, self.mass - near));
        let counts = counts.collect();
        let mut worst: Vec<Vec<f64>> = Vec::with_capacity(heads);
        let mut means: Vec<Vec<f64>> = Vec::with_capacity(heads);
        for own in attention {
            worst.push(own.worst);
            means.push(own.mean);
        }
        let norms = observation.group_norms()?;
        for token in 0..tokens {
            let total: f64 = norms.iter().map(|norms| norms[token]).sum();
            for (worst, norms) in worst.iter_mut().zip(&norms) {
                worst[token] *= if total > 0.0 {
                    norms[token] / total
                } else {
                    0.0
                };
            }
        }
        let tensor = |rows: Vec<Vec<f64>>| -> Result<Tensor> {
            let tensor = Tensor::from_vec(rows.concat(), (heads, tokens), &Device::Cpu)?;
            Ok(tensor.to_device(observation.device)?)
        };
        let first = FirstStage {
            scores: tensor(means)?,
            count: FirstCount::Tokens(counts),
        };
        LayerScores::in_two_stages(first, tensor(worst)?)
    }
}

/// The tokens that count: those in sight and before the window.
#[derive(Clone, Copy)]
struct Sight {
    first: usize,
    prefix: usize,
    tokens: usize,
}

/// What the window's rows say of one KV head's tokens; zero outside what counts.
struct HeadAttention {
    /// The largest pooled attention over the group's rows, its own mean at least.
    worst: Vec<f64>,
    /// Mean over the group's rows, not pooled.
    mean: Vec<f64>,
    /// Mean mass on the last tokens before the window.
    near: f64,
}

impl DefensiveKv {
    fn attention(&self, rows: WindowRows<'_>, group: Vec<usize>, sight: Sight) -> HeadAttention {
        let counted = sight.first..sight.prefix;
        let count = (group.len() * rows.rows()) as f64;
        let near_from = (sight.prefix.saturating_sub(rows.rows())).max(sight.first);
        let mut worst = vec![0.0; sight.tokens];
        let mut mean = vec![0.0; sight.tokens];
        for row in group.iter().flat_map(|head| rows.of_head(*head)) {
            let row: Vec<f64> = row[counted.clone()].iter().map(|p| f64::from(*p)).collect();
            for (mean, p) in mean[counted.clone()].iter_mut().zip(&row) {
                *mean += p / count;
            }
            let pooled = self.pooled(&row);
            for (worst, p) in worst[counted.clone()].iter_mut().zip(&pooled) {
                *worst = p.max(*worst);
            }
        }
        let floor = worst.iter().sum::<f64>() / counted.len().max(1) as f64;
        worst[counted].iter_mut().for_each(|w| *w = w.max(floor));
        HeadAttention {
            near: mean[near_from..sight.prefix].iter().sum(),
            worst,
            mean,
        }
    }

    /// The mean of every token and its neighbours, scaled so that the sum stays.
    fn pooled(&self, row: &[f64]) -> Vec<f64> {
        let reach = self.kernel / 2;
        let around = |i: usize| {
            let end = row.len().min(i + reach + 1);
            row[i.saturating_sub(reach)..end].iter().sum::<f64>() / self.kernel as f64
        };
        let mut pooled: Vec<f64> = (0..row.len()).map(around).collect();
        let (before, after): (f64, f64) = (row.iter().sum(), pooled.iter().sum());
        if after > 0.0 {
            pooled.iter_mut().for_each(|p| *p *= before / after);
        }
        pooled
    }
}

/// How many of the largest numbers stay below a share of their sum; none if even all of them do.
fn count_of(numbers: &[f64], share: f64) -> usize {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let total: f64 = sorted.iter().sum();
    let mut sum = 0.0;
    let reached = sorted.iter().position(|x| {
        sum += x;
        sum / total >= share
    });
    reached.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_leave_out_the_token_that_crosses() {
        assert_eq!(count_of(&[0.1, 0.5, 0.4], 0.9), 1);
        assert_eq!(count_of(&[0.1, 0.5, 0.4], 0.89), 1);
        assert_eq!(count_of(&[0.1, 0.5, 0.4], 0.95), 2);
        assert_eq!(count_of(&[0.1, 0.5, 0.4], -0.5), 0);
        assert_eq!(count_of(&[0.1, 0.5, 0.4], 1.5), 0);
        assert_eq!(count_of(&[0.0; 3], 0.5), 0);
    }

    #[test]
    fn the_worst_case_of_a_layer_by_hand() {
        // Two KV heads of one query head, two rows, three tokens before a window of two.
        let rows = [
            [0.5f32, 0.25, 0.0, 0.25, 0.0],
            [0.0, 0.25, 0.25, 0.25, 0.25],
            [0.125, 0.0, 0.0, 0.875, 0.0],
            [0.0, 0.125, 0.0, 0.375, 0.5],
        ];
        let flat = rows.concat();
        let norms = [vec![1.0, 3.0, 2.0, 1.0, 1.0], vec![3.0, 1.0, 2.0, 1.0, 1.0]];
        let observation = LayerObservation {
            window: 2,
            window_rows: Some(WindowRows::new(&flat, 2, 5, 2)),
            projected_norms: Some(&norms),
            ..LayerObservation::of(5, 1, 2, &Device::Cpu)
        };
        let scorer = DefensiveKv {
            kernel: 1,
            mass: 0.9,
        };
        let scores = scorer.score(&observation).unwrap();
        // Worst cases 0.5, 0.25, 0.25 with a mean of a third; 0.125, 0.125, 0 with a mean of a twelfth.
        let (third, twelfth) = (1.0 / 3.0, 1.0 / 12.0);
        let want = [
            [0.5 / 4.0, third * 0.75, third / 2.0, 0.0, 0.0],
            [0.125 * 0.75, 0.125 / 4.0, twelfth / 2.0, 0.0, 0.0],
        ];
        for (got, want) in scores.to_rows().unwrap().concat().iter().zip(want.concat()) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        // Means 0.25, 0.25, 0.125 and 0.0625, 0.0625, 0; on the last two tokens 0.375 and 0.0625: 0.21875 in the mean.
        // Of 0.9 less that, 0.4 and 0.5 are below, 0.8 and 1 above.
        let first = scores.first_stage().unwrap();
        assert_eq!(first.count, FirstCount::Tokens(vec![1, 1]));
        let means = first.scores.to_vec2::<f64>().unwrap();
        assert_eq!(
            means,
            [
                [0.25, 0.25, 0.125, 0.0, 0.0],
                [0.0625, 0.0625, 0.0, 0.0, 0.0]
            ]
        );
    }

    #[test]
    fn pooling_keeps_a_rows_sum() {
        let scorer = DefensiveKv {
            kernel: 3,
            mass: 0.9,
        };
        // Pooled 0.2, 0.2, 0.1, 0.1 of 0.6, 0, 0, 0.3: scaled to 0.9.
        let pooled = scorer.pooled(&[0.6, 0.0, 0.0, 0.3]);
        for (got, want) in pooled.iter().zip([0.3, 0.3, 0.15, 0.15]) {
            assert!((got - want).abs() < 1e-12, "{pooled:?}");
        }
        assert_eq!(scorer.pooled(&[0.0; 2]), [0.0; 2]);
    }
}
