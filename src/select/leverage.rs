//! Leverage scores: tokens whose keys no others stand in for.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::host_rows;
use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::model::turn_back;
use crate::registry::{Entry, described, parse};

/// Statistical leverage of a key before RoPE: x (XᵀX + jitter)⁻¹ xᵀ, x being its distance from the mean key.
///
/// Paper: arXiv:2507.08143 (Compactor), section 3. Differs: exact, without a random sketch; not scaled to a layer's mean
/// and deviation, which changes no order; without the paper's mixture with non-causal attention.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leverage {
    /// What is added to the diagonal of XᵀX.
    pub jitter: f64,
}

impl Default for Leverage {
    fn default() -> Self {
        Self { jitter: 0.01 }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "leverage",
    paper: "arXiv:2507.08143 (Compactor), section 3",
    about: "leverage of the key before RoPE: what no other keys stand in for",
    differs: "exact, without a random sketch; without the mixture with non-causal attention",
    build: |p| {
        let scorer = parse::<Leverage>(p)?;
        if !(scorer.jitter.is_finite() && scorer.jitter > 0.0) {
            return Err(serde::de::Error::custom(
                "jitter must be finite and above 0",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for Leverage {
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
        let keys = observation.keys()?.iter();
        let keys = keys.map(|keys| Ok((host_rows(keys)?, keys.dims2()?.1)));
        let keys: Vec<(Vec<f32>, usize)> = keys.collect::<Result<_>>()?;
        let first = observation.first_in_sight;
        let positions = 0..observation.tokens;
        let turns: Vec<Vec<[f32; 2]>> = positions
            .map(|position| observation.rotation.at(position).collect())
            .collect();
        let scores = keys.into_par_iter().map(|(keys, width)| {
            let mut rows: Vec<f64> = keys.into_iter().map(f64::from).collect();
            let each = rows.chunks_mut(width.max(1)).zip(&turns);
            each.for_each(|(row, turns)| turn_back(turns, row));
            self.leverage(rows, width, first)
        });
        let scores: Vec<Vec<f64>> = scores.collect();
        LayerScores::of_heads(scores.concat(), observation.kv_heads, observation.device)
    }
}

impl Leverage {
    /// The leverage of every row among those from `first` on.
    fn leverage(&self, mut rows: Vec<f64>, width: usize, first: usize) -> Vec<f64> {
        let count = (rows.len() / width.max(1)).saturating_sub(first) as f64;
        let seen = |rows: &[f64]| first * width..rows.len();
        let mut mean = vec![0.0; width];
        for row in rows[seen(&rows)].chunks(width.max(1)) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / count);
        }
        for row in rows.chunks_mut(width.max(1)) {
            row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m);
        }
        let mut gram = vec![0.0; width * width];
        for row in rows[seen(&rows)].chunks(width.max(1)) {
            for (line, x) in gram.chunks_mut(width).zip(row) {
                line.iter_mut().zip(row).for_each(|(g, y)| *g += x * y);
            }
        }
        (0..width).for_each(|i| gram[i * width + i] += self.jitter);
        factorise(&mut gram, width);
        rows.chunks_mut(width.max(1))
            .for_each(|row| solve(&gram, row));
        let square = |row: &[f64]| row.iter().map(|x| x * x).sum();
        rows.chunks(width.max(1)).map(square).collect()
    }
}

/// The lower factor L of a positive matrix L Lᵀ, in its place.
fn factorise(matrix: &mut [f64], width: usize) {
    for i in 0..width {
        for j in 0..=i {
            let (upper, row) = matrix.split_at(i * width);
            let known = if j == i {
                &row[..width]
            } else {
                &upper[j * width..][..width]
            };
            let products: f64 = (row[..j].iter().zip(known)).map(|(a, b)| a * b).sum();
            let left = row[j] - products;
            matrix[i * width + j] = if i == j {
                // Rounding must not take the last of a direction away.
                left.max(f64::MIN_POSITIVE).sqrt()
            } else {
                left / matrix[j * width + j]
            };
        }
    }
}

/// L⁻¹ x, in the place of x.
fn solve(factor: &[f64], row: &mut [f64]) {
    let width = row.len();
    for i in 0..width {
        let line = &factor[i * width..][..=i];
        let products: f64 = line[..i].iter().zip(&row[..i]).map(|(l, y)| l * y).sum();
        row[i] = (row[i] - products) / line[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn leverage_by_hand() {
        // Centred: (-1, -1), (1, -1), (0, 2); the Gram matrix is diag(2, 6).
        let keys = [Tensor::new(&[[9f64, 4.0], [11.0, 4.0], [10.0, 7.0]], &Device::Cpu).unwrap()];
        let observation = LayerObservation {
            keys: Some(&keys),
            ..LayerObservation::of(3, 1, 1, &Device::Cpu)
        };
        let scores = Leverage { jitter: 1e-12 }.score(&observation).unwrap();
        for (got, want) in scores.to_rows().unwrap()[0].iter().zip([2.0 / 3.0; 3]) {
            assert!((got - want).abs() < 1e-9, "{got}");
        }
        let scores = Leverage { jitter: 1.0 }.score(&observation).unwrap();
        let want = [1.0 / 3.0 + 1.0 / 7.0, 1.0 / 3.0 + 1.0 / 7.0, 4.0 / 7.0];
        for (got, want) in scores.to_rows().unwrap()[0].iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got}");
        }
    }

    #[test]
    fn a_factor_times_itself_is_the_matrix() {
        let matrix = [4.0, 2.0, -2.0, 2.0, 10.0, 5.0, -2.0, 5.0, 9.0];
        let mut factor = matrix;
        factorise(&mut factor, 3);
        for i in 0..3 {
            for j in 0..=i {
                let product: f64 = (0..=j).map(|k| factor[i * 3 + k] * factor[j * 3 + k]).sum();
                assert!((product - matrix[i * 3 + j]).abs() < 1e-12);
            }
        }
        let mut row = [2.0, 1.0, 0.0];
        solve(&factor, &mut row);
        assert!((factor[0] * row[0] - 2.0).abs() < 1e-12);
        assert!((factor[3] * row[0] + factor[4] * row[1] - 1.0).abs() < 1e-12);
    }
}
