//! LMBO: how few keys keep a layer's attention output, from one pass over all budgets.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::minimum_budget::Ranked;
use crate::error::Result;

/// Budgets whose outputs are computed together.
const BUDGET_BLOCK: usize = 512;

/// How far the output with b keys is from the output with all keys, for b = 1..=T.
///
/// Shapes: T entries each; entry b - 1 is for budget b.
/// Units: cosine; relative L2 norm ‖y − ŷ_b‖ / ‖y‖.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputCurve {
    /// Cosine between y and ŷ_b.
    pub cosine: Vec<f64>,
    /// ‖y − ŷ_b‖ / ‖y‖.
    pub relative_l2: Vec<f64>,
}

impl OutputCurve {
    /// The smallest budget whose cosine reaches `threshold`; T if none does.
    pub fn first(&self, threshold: f64) -> usize {
        let t = self.cosine.len();
        self.cosine
            .iter()
            .position(|&c| c >= threshold)
            .map_or(t, |i| i + 1)
    }

    /// The smallest budget from which on every larger one reaches `threshold` too; T if none does.
    pub fn stable(&self, threshold: f64) -> usize {
        match self
            .cosine
            .iter()
            .rposition(|&c| c.is_nan() || c < threshold)
        {
            Some(i) => (i + 2).min(self.cosine.len()),
            None => 1.min(self.cosine.len()),
        }
    }

    fn push(&mut self, output: &[f32], full: &[f64], full_norm: f64) {
        let (mut dot, mut norm, mut distance) = (0f64, 0f64, 0f64);
        for (&o, &f) in output.iter().zip(full) {
            let o = f64::from(o);
            dot += o * f;
            norm += o * o;
            distance += (o - f) * (o - f);
        }
        let cosine = match norm.sqrt() * full_norm {
            // Two zero outputs are the same output; one alone has no direction.
            0.0 if full_norm == 0.0 && norm == 0.0 => 1.0,
            0.0 => 0.0,
            product => dot / product,
        };
        let relative = match full_norm {
            0.0 => distance.sqrt(),
            n => distance.sqrt() / n,
        };
        self.cosine.push(cosine);
        self.relative_l2.push(relative);
    }
}

/// Both curves of one layer for one query, and the norm of its full output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputCurves {
    /// Probabilities divided by their sum over the kept keys: what eviction does.
    pub renormalised: OutputCurve,
    /// Probabilities as they were.
    pub raw: OutputCurve,
    /// ‖y‖ of the full output.
    pub norm: f64,
}

/// Output curves of a layer: y = W_o·concat_h(a_h V_g(h)) against the same with b keys per head.
///
/// Paper: ZigZagKV, arXiv 2412.09036 (LMBO). Differs: every budget is evaluated, since the cosine
/// is not monotone; kept probabilities are renormalised as eviction does, and raw beside it.
/// Prefix sums in float64, the product with W_o in float32.
/// Shapes: one ranked vector per query head; values `(T, D)` row-major per KV head; projection
/// `(hidden, H_q * D)`, float32 on the CPU.
/// Errors: [`crate::error::Error::Candle`].
pub fn output_curves(
    heads: &[Ranked],
    values: &[&[f32]],
    head_dim: usize,
    projection: &Tensor,
) -> Result<OutputCurves> {
    let tokens = heads.first().map_or(0, |h| h.order.len());
    let width = heads.len() * head_dim;
    let group = heads.len() / values.len().max(1);
    let transposed = projection.t()?;
    let project = |rows: Vec<f32>| -> Result<Tensor> {
        let n = rows.len() / width;
        Ok(Tensor::from_vec(rows, (n, width), &Device::Cpu)?.matmul(&transposed)?)
    };

    let mut sums: Vec<PrefixSum<'_>> = heads
        .iter()
        .enumerate()
        .map(|(h, ranked)| PrefixSum::new(ranked, values[h / group], head_dim))
        .collect();
    let complete: Vec<f32> = sums.iter().flat_map(|s| s.complete()).collect();
    let full: Vec<f64> = project(complete)?
        .flatten_all()?
        .to_vec1::<f32>()?
        .into_iter()
        .map(f64::from)
        .collect();
    let norm = full.iter().map(|x| x * x).sum::<f64>().sqrt();

    let mut curves = OutputCurves {
        norm,
        ..Default::default()
    };
    for start in (0..tokens).step_by(BUDGET_BLOCK) {
        let block = BUDGET_BLOCK.min(tokens - start);
        let columns: Vec<[Vec<f32>; 2]> = sums
            .par_iter_mut()
            .map(|sum| sum.advance(start..start + block))
            .collect();
        for (kind, curve) in [&mut curves.renormalised, &mut curves.raw]
            .into_iter()
            .enumerate()
        {
            let mut rows = vec![0f32; block * width];
            for (h, column) in columns.iter().enumerate() {
                let pairs = rows.chunks_mut(width).zip(column[kind].chunks(head_dim));
                for (row, part) in pairs {
                    row[h * head_dim..][..head_dim].copy_from_slice(part);
                }
            }
            let outputs = project(rows)?.to_vec2::<f32>()?;
            outputs.iter().for_each(|o| curve.push(o, &full, norm));
        }
    }
    Ok(curves)
}

/// Running sum of p·v over the keys of one head in ranked order.
struct PrefixSum<'a> {
    ranked: &'a Ranked,
    values: &'a [f32],
    head_dim: usize,
    sum: Vec<f64>,
}

impl<'a> PrefixSum<'a> {
    fn new(ranked: &'a Ranked, values: &'a [f32], head_dim: usize) -> Self {
        Self {
            ranked,
            values,
            head_dim,
            sum: vec![0.0; head_dim],
        }
    }

    fn add(&mut self, rank: usize) {
        let key = self.ranked.order[rank] as usize;
        let p = self.ranked.sorted[rank];
        let value = &self.values[key * self.head_dim..][..self.head_dim];
        for (s, &v) in self.sum.iter_mut().zip(value) {
            *s += p * f64::from(v);
        }
    }

    /// The sum over all keys, in the same order as [`Self::advance`] would reach it.
    fn complete(&self) -> Vec<f32> {
        let mut all = Self::new(self.ranked, self.values, self.head_dim);
        (0..self.ranked.order.len()).for_each(|rank| all.add(rank));
        all.sum.iter().map(|&s| s as f32).collect()
    }

    /// Renormalised and raw sums after each of the ranks, `(ranks, D)`.
    fn advance(&mut self, ranks: std::ops::Range<usize>) -> [Vec<f32>; 2] {
        let mut renormalised = Vec::with_capacity(ranks.len() * self.head_dim);
        let mut raw = Vec::with_capacity(ranks.len() * self.head_dim);
        for rank in ranks {
            self.add(rank);
            let mass = self.ranked.cumulative[rank];
            let scale = if mass > 0.0 { 1.0 / mass } else { 0.0 };
            renormalised.extend(self.sum.iter().map(|&s| (s * scale) as f32));
            raw.extend(self.sum.iter().map(|&s| s as f32));
        }
        [renormalised, raw]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: usize) -> Tensor {
        Tensor::eye(n, candle_core::DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn two_keys_by_hand() {
        // One head, D = 2: a = (0.8, 0.2), v = (1, 0) and (0, 1); y = (0.8, 0.2).
        let ranked = [Ranked::new(&[0.8, 0.2])];
        let curves = output_curves(&ranked, &[&[1.0, 0.0, 0.0, 1.0]], 2, &identity(2)).unwrap();
        let norm = 0.68f64.sqrt();
        assert!((curves.norm - norm).abs() < 1e-7);
        // With one key the direction is (1, 0), renormalised or not.
        for curve in [&curves.renormalised, &curves.raw] {
            assert!((curve.cosine[0] - 0.8 / norm).abs() < 1e-7);
            assert!((curve.cosine[1] - 1.0).abs() < 1e-7);
            assert!(curve.relative_l2[1] < 1e-7);
        }
        let raw = 0.2 / norm; // (0.8, 0.2) - (0.8, 0)
        let renormalised = (0.2f64.powi(2) * 2.0).sqrt() / norm; // (0.8, 0.2) - (1, 0)
        assert!((curves.raw.relative_l2[0] - raw).abs() < 1e-6);
        assert!((curves.renormalised.relative_l2[0] - renormalised).abs() < 1e-6);
    }

    #[test]
    fn heads_of_a_group_share_values_and_mix_in_the_projection() {
        // Two query heads on one KV head, D = 1, W_o = [[1, 1]]: y = sum of both heads.
        let ranked = [Ranked::new(&[0.9, 0.1]), Ranked::new(&[0.3, 0.7])];
        let projection = Tensor::new(&[[1f32, 1.0]], &Device::Cpu).unwrap();
        let curves = output_curves(&ranked, &[&[2.0, -1.0]], 1, &projection).unwrap();
        // y = (1.8 - 0.1) + (0.6 - 0.7) = 1.6; one key: 2 + (-1) = 1 renormalised, 1.8 - 0.7 raw.
        assert!((curves.norm - 1.6).abs() < 1e-6);
        assert!((curves.renormalised.relative_l2[0] - 0.6 / 1.6).abs() < 1e-6);
        assert!((curves.raw.relative_l2[0] - 0.5 / 1.6).abs() < 1e-6);
        assert_eq!(curves.raw.cosine.len(), 2);
    }

    #[test]
    fn first_and_stable_differ_where_the_curve_dips() {
        let curve = OutputCurve {
            cosine: vec![0.5, 0.95, 0.8, 0.97, 1.0],
            relative_l2: vec![],
        };
        assert_eq!((curve.first(0.9), curve.stable(0.9)), (2, 4));
        assert_eq!((curve.first(0.4), curve.stable(0.4)), (1, 1));
        assert_eq!((curve.first(0.96), curve.stable(0.96)), (4, 4));
        let never = OutputCurve {
            cosine: vec![0.5, 0.6],
            relative_l2: vec![],
        };
        assert_eq!((never.first(0.9), never.stable(0.9)), (2, 2));
        let none = OutputCurve::default();
        assert_eq!((none.first(0.9), none.stable(0.9)), (0, 0));
    }

    #[test]
    fn many_keys_equal_a_direct_evaluation_across_blocks() {
        let t = BUDGET_BLOCK + 77;
        let attention = |seed: usize| -> Vec<f64> {
            (0..t)
                .map(|i| 1.0 / (1.0 + ((i * 7919 + seed) % 611) as f64))
                .collect()
        };
        let vectors = [attention(1), attention(5), attention(9), attention(13)];
        let values: Vec<Vec<f32>> = (0..2)
            .map(|h| {
                (0..t * 3)
                    .map(|i| ((i * 31 + h * 7) % 19) as f32 / 9.0 - 1.0)
                    .collect()
            })
            .collect();
        let weights: Vec<f32> = (0..5 * 12)
            .map(|i| ((i * 13) % 17) as f32 / 8.0 - 1.0)
            .collect();
        let projection = Tensor::from_vec(weights.clone(), (5, 12), &Device::Cpu).unwrap();
        let ranked: Vec<_> = vectors.iter().map(|v| Ranked::new(v)).collect();
        let slices: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        let curves = output_curves(&ranked, &slices, 3, &projection).unwrap();
        let output = |budget: usize, renormalise: bool| -> Vec<f64> {
            let mut concat = vec![0f64; 12];
            for (h, ranked) in ranked.iter().enumerate() {
                let kept = &ranked.order[..budget];
                let mass: f64 = kept.iter().map(|&k| vectors[h][k as usize]).sum();
                for &k in kept {
                    let p = vectors[h][k as usize] / if renormalise { mass } else { 1.0 };
                    for x in 0..3 {
                        concat[h * 3 + x] += p * f64::from(values[h / 2][k as usize * 3 + x]);
                    }
                }
            }
            weights
                .chunks(12)
                .map(|w| w.iter().zip(&concat).map(|(&w, c)| f64::from(w) * c).sum())
                .collect()
        };
        let full = output(t, false);
        let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
        for budget in [1, 2, 40, BUDGET_BLOCK, BUDGET_BLOCK + 1, t] {
            for (renormalise, curve) in [(true, &curves.renormalised), (false, &curves.raw)] {
                let o = output(budget, renormalise);
                let dot: f64 = o.iter().zip(&full).map(|(a, b)| a * b).sum();
                let gap: Vec<f64> = o.iter().zip(&full).map(|(a, b)| a - b).collect();
                let cosine = dot / (norm(&o) * norm(&full));
                assert!((curve.cosine[budget - 1] - cosine).abs() < 1e-6, "{budget}");
                if budget < t || !renormalise {
                    let l2 = norm(&gap) / norm(&full);
                    assert!(
                        (curve.relative_l2[budget - 1] - l2).abs() < 1e-5,
                        "{budget}"
                    );
                }
            }
        }
    }
}
