//! Expected attention: tokens that queries to come are likely to attend to, by the prompt's own queries.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::{host_rows, squared_norms};
use super::query_statistics::first_counted;
use super::{LayerObservation, LayerScores, Needs, QueryNeeds, Scorer};
use crate::compute::lanes::vectorised;
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Attention in the expectation over queries that are distributed as the prompt's, at the positions to come.
///
/// With m and C the mean and covariance of the queries before RoPE, R the mean rotation of the next positions and
/// k a key, the logit is k·Rm/√D + k·(R C Rᵀ)k/(2D). Its softmax over the keys behind the first `skip`, in the mean
/// over the group, plus `epsilon`, is multiplied by the value's L2 norm.
/// Paper: arXiv:2510.00636 (Expected Attention), section 3, and kvpress. Differs: the first tokens, which kvpress keeps
/// by scores above all others, score 0 here: sinks are an argument of the selection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedAttention {
    /// Positions after the prompt over which rotations are averaged.
    pub future: usize,
    /// First tokens whose queries and keys are left out.
    pub skip: usize,
    /// Whether the queries' covariance counts.
    pub covariance: bool,
    /// Whether values' norms count.
    pub values: bool,
    /// What is added to the expected attention before it meets the value's norm.
    pub epsilon: f64,
}

impl Default for ExpectedAttention {
    fn default() -> Self {
        Self {
            future: 512,
            skip: 4,
            covariance: true,
            values: true,
            epsilon: 0.0,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "expected-attention",
    paper: "arXiv:2510.00636 (Expected Attention), section 3",
    about: "attention expected of the queries to come, by mean and covariance of the prompt's, times the value's norm",
    differs: "the first tokens score 0 instead of above all: sinks are an argument of the selection",
    build: |p| {
        let scorer = parse::<ExpectedAttention>(p)?;
        if scorer.future == 0 {
            return Err(serde::de::Error::custom(
                "future must be at least 1 position",
            ));
        }
        if !(scorer.epsilon.is_finite() && scorer.epsilon >= 0.0) {
            return Err(serde::de::Error::custom(
                "epsilon must be finite and not below 0",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for ExpectedAttention {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            keys: true,
            values: self.values,
            queries: Some(QueryNeeds {
                skip: self.skip,
                covariance: self.covariance,
            }),
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let tokens = observation.tokens;
        let expected = self.expected_queries(observation)?;
        let counted = first_counted(self.skip, tokens).max(observation.first_in_sight)..tokens;
        let mut scores = Vec::with_capacity(observation.kv_heads * tokens);
        let keys = observation.keys()?.iter();
        for (head, (keys, queries)) in keys
            .zip(expected.chunks(observation.group.max(1)))
            .enumerate()
        {
            let keys = host_rows(keys)?;
            let shares = queries.par_iter().map(|query| {
                let logits = query.logits(&keys);
                softmax(&logits[counted.clone()])
            });
            let shares: Vec<Vec<f64>> = shares.collect();
            let mean = |i: usize| shares.iter().map(|s| s[i]).sum::<f64>() / shares.len() as f64;
            let mut own = vec![0.0; tokens];
            for (i, score) in own[counted.clone()].iter_mut().enumerate() {
                *score = mean(i) + self.epsilon;
            }
            if self.values {
                let values = &observation.values()?[head];
                let norms = squared_norms(&host_rows(values)?, values.dims2()?.1);
                own.iter_mut()
                    .zip(norms)
                    .for_each(|(score, norm)| *score *= norm.sqrt());
            }
            scores.extend(own);
        }
        LayerScores::of_heads(scores, observation.kv_heads, observation.device)
    }
}

impl ExpectedAttention {
    /// What every head's queries to come are expected to be.
    fn expected_queries(&self, observation: &LayerObservation<'_>) -> Result<Vec<Expected>> {
        let statistics = observation.queries()?;
        let to_come = observation.tokens..observation.tokens + self.future;
        let turns = observation.rotation.mean(to_come);
        let d = statistics.head_dim;
        let turned = |head: usize| {
            let mut mean = statistics.mean[head].clone();
            turn(&mut mean, &turns);
            let covariance = statistics.covariance.get(head).filter(|_| self.covariance);
            Expected {
                mean,
                covariance: covariance.map(|c| turned_on_both_sides(c, d, &turns)),
            }
        };
        Ok((0..statistics.mean.len())
            .into_par_iter()
            .map(turned)
            .collect())
    }
}

/// Mean and covariance of one head's queries to come.
struct Expected {
    mean: Vec<f64>,
    covariance: Option<Vec<f64>>,
}

impl Expected {
    /// The logit of the expected weight of every key.
    fn logits(&self, keys: &[f32]) -> Vec<f64> {
        let d = self.mean.len();
        let (root, twice) = ((d as f64).sqrt(), 2.0 * d as f64);
        let mut row = vec![0.0; d];
        let mut spread = vec![0.0; d];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let logit = |key: &[f32]| {
            row.iter_mut()
                .zip(key)
                .for_each(|(x, k)| *x = f64::from(*k));
            let logit = dot(&row, &self.mean) / root;
            match &self.covariance {
                None => logit,
                Some(covariance) => {
                    spread.fill(0.0);
                    add_products(&mut spread, covariance, &row);
                    logit + dot(&spread, &row) / twice
                }
            }
        };
        keys.chunks(d.max(1)).map(logit).collect()
    }
}

/// Adds the lines of a matrix, each times an entry of `by`.
fn add_products(sums: &mut [f64], matrix: &[f64], by: &[f64]) {
    vectorised!(add_lines(sums: &mut [f64], matrix: &[f64], by: &[f64]))
}

#[inline(always)]
fn add_lines(sums: &mut [f64], matrix: &[f64], by: &[f64]) {
    for (line, &x) in matrix.chunks_exact(by.len()).zip(by) {
        sums.iter_mut().zip(line).for_each(|(s, &m)| *s += x * m);
    }
}

/// Turns a row by cosines and sines, pairs half of what is turned apart.
fn turn(row: &mut [f64], turns: &[[f64; 2]]) {
    for (i, [cos, sin]) in turns.iter().enumerate() {
        let (x, y) = (row[i], row[i + turns.len()]);
        row[i] = x * cos - y * sin;
        row[i + turns.len()] = x * sin + y * cos;
    }
}

/// `R C Rᵀ` for a symmetric C.
fn turned_on_both_sides(covariance: &[f64], d: usize, turns: &[[f64; 2]]) -> Vec<f64> {
    let mut once = covariance.to_vec();
    once.chunks_mut(d.max(1)).for_each(|row| turn(row, turns)); // C Rᵀ
    let mut twice: Vec<f64> = (0..d * d).map(|i| once[i % d * d + i / d]).collect(); // R C
    twice.chunks_mut(d.max(1)).for_each(|row| turn(row, turns));
    twice
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
    let mut shares: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let total: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= total);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::QueryStatistics;
    use candle_core::{Device, Tensor};

    fn statistics() -> QueryStatistics {
        QueryStatistics {
            head_dim: 2,
            mean: vec![vec![1.0, 0.0], vec![0.0, 2.0]],
            covariance: vec![vec![2.0, 1.0, 1.0, 3.0], vec![0.0; 4]],
        }
    }

    /// The score from the definition, with nothing turned.
    fn slowly(keys: &[[f32; 2]], values: &[f64], skip: usize, epsilon: f64) -> Vec<f64> {
        let statistics = statistics();
        let weight = |head: usize, k: &[f32; 2]| {
            let [x, y] = k.map(f64::from);
            let (m, c) = (&statistics.mean[head], &statistics.covariance[head]);
            let spread = c[0] * x * x + (c[1] + c[2]) * x * y + c[3] * y * y;
            ((m[0] * x + m[1] * y) / 2f64.sqrt() + spread / 4.0).exp()
        };
        let all = |head: usize| keys[skip..].iter().map(|k| weight(head, k)).sum::<f64>();
        let share = |k: &[f32; 2]| (weight(0, k) / all(0) + weight(1, k) / all(1)) / 2.0;
        (keys.iter().zip(values).enumerate())
            .map(|(i, (k, v))| {
                if i < skip {
                    0.0
                } else {
                    (share(k) + epsilon) * v
                }
            })
            .collect()
    }

    #[test]
    fn scores_equal_their_definition() {
        let rows = [[9f32, 9.0], [1.0, -0.5], [0.25, 2.0], [-1.0, 0.5]];
        let keys = [Tensor::new(&rows, &Device::Cpu).unwrap()];
        let values = [Tensor::new(
            &[[1f32, 0.0], [3.0, 4.0], [0.0, 2.0], [1.0, 0.0]],
            &Device::Cpu,
        )
        .unwrap()];
        let statistics = statistics();
        let observation = LayerObservation {
            keys: Some(&keys),
            values: Some(&values),
            queries: Some(&statistics),
            ..LayerObservation::of(4, 2, 1, &Device::Cpu)
        };
        for (skip, values, epsilon) in [(1, true, 0.0), (1, true, 0.02), (2, false, 0.0)] {
            let scorer = ExpectedAttention {
                skip,
                values,
                epsilon,
                ..ExpectedAttention::default()
            };
            let got = scorer
                .score(&observation)
                .unwrap()
                .to_rows()
                .unwrap()
                .remove(0);
            let norms = if values {
                [1.0, 5.0, 2.0, 1.0]
            } else {
                [1.0; 4]
            };
            for (got, want) in got.iter().zip(slowly(&rows, &norms, skip, epsilon)) {
                assert!((got - want).abs() < 1e-12, "{got} {want}");
            }
        }
    }

    #[test]
    fn a_covariance_is_turned_as_its_rows_are() {
        // One pair is turned by a mean rotation, a third dimension stays.
        let turns = [[0.6, 0.5]];
        let rows = [[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]];
        let product = |rows: &[[f64; 3]]| -> Vec<f64> {
            (0..9)
                .map(|i| rows.iter().map(|r| r[i / 3] * r[i % 3]).sum())
                .collect()
        };
        let turned = rows.map(|mut row| {
            turn(&mut row, &turns);
            row
        });
        assert_eq!(turned[0], [0.6 - 1.0, 0.5 + 1.2, 3.0]);
        let got = turned_on_both_sides(&product(&rows), 3, &turns);
        for (got, want) in got.iter().zip(product(&turned)) {
            assert!((got - want).abs() < 1e-12);
        }
    }
}
