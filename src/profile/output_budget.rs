//! LMBO: how few keys keep a layer's attention output, evaluated at every budget that could matter.

use candle_core::Tensor;
use rayon::prelude::*;

use super::head_path::{HeadPath, Stretch};
use super::minimum_budget::Ranked;
use super::output_bound::{may_cross, spectral_bounds};
use super::projection::projected;
use crate::error::Result;

/// Budgets whose outputs are computed together.
const BUDGET_BLOCK: usize = 512;

/// Largest distance between two budgets that are always evaluated.
const STRIDE: usize = 64;

/// How far the output with b keys is from the output with all keys, at the budgets that decide.
///
/// Between two evaluated budgets no threshold of the curve's making is crossed.
/// Units: keys; cosine; relative L2 norm ‖y − ŷ_b‖ / ‖y‖.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputCurve {
    /// Evaluated budgets, ascending; the last is T.
    pub budgets: Vec<u32>,
    /// Cosine between y and ŷ_b.
    pub cosine: Vec<f64>,
    /// ‖y − ŷ_b‖ / ‖y‖.
    pub relative_l2: Vec<f64>,
}

impl OutputCurve {
    /// The smallest budget whose cosine reaches `threshold`; T if none does.
    pub fn first(&self, threshold: f64) -> usize {
        let reached = self.cosine.iter().position(|&c| c >= threshold);
        self.budget(reached.unwrap_or(self.budgets.len().saturating_sub(1)))
    }

    /// The smallest budget from which on every larger one reaches `threshold` too; T if none does.
    pub fn stable(&self, threshold: f64) -> usize {
        let below = |c: &f64| c.is_nan() || *c < threshold;
        match self.cosine.iter().rposition(below) {
            Some(place) => (self.budget(place) + 1).min(self.budget(self.budgets.len() - 1)),
            None => self.budget(0),
        }
    }

    /// Cosine and relative L2 at an evaluated budget; NaN at any other.
    pub fn at(&self, budget: usize) -> [f64; 2] {
        match self.budgets.binary_search(&(budget as u32)) {
            Ok(place) => [self.cosine[place], self.relative_l2[place]],
            Err(_) => [f64::NAN; 2],
        }
    }

    fn budget(&self, place: usize) -> usize {
        self.budgets.get(place).map_or(0, |&b| b as usize)
    }

    /// Brings budgets that were evaluated later to their places.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.budgets.len()).collect();
        order.sort_by_key(|&i| self.budgets[i]);
        self.budgets = order.iter().map(|&i| self.budgets[i]).collect();
        self.cosine = order.iter().map(|&i| self.cosine[i]).collect();
        self.relative_l2 = order.iter().map(|&i| self.relative_l2[i]).collect();
    }
}

/// Both curves of one layer for one query, empty where not asked for, and the norm of its full output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputCurves {
    /// Probabilities divided by their sum over the kept keys: what eviction does.
    pub renormalised: OutputCurve,
    /// Probabilities as they were.
    pub raw: OutputCurve,
    /// ‖y‖ of the full output.
    pub norm: f64,
}

impl OutputCurves {
    pub(super) fn curve(&self, raw: bool) -> &OutputCurve {
        if raw { &self.raw } else { &self.renormalised }
    }

    /// Both, with what stands before their query in the names of columns.
    pub(super) fn named(&self) -> [(&'static str, &OutputCurve); 2] {
        [("", &self.renormalised), ("raw_", &self.raw)]
    }
}

/// Output curves of a layer: y = W_o·concat_h(a_h V_g(h)) against the same with b keys per head.
///
/// Paper: ZigZagKV, arXiv 2412.09036 (LMBO). Differs: the cosine is not monotone, so a budget is left out only
/// where a bound on the output's way shows that no `threshold` can be crossed; kept probabilities are
/// renormalised as eviction does, and raw beside it. Prefix sums in float64, the product with W_o in float32.
/// Shapes: one ranked vector per query head; values `(T, D)` row-major per KV head; projection
/// `(hidden, H_q * D)`, float32 on the CPU. The budgets of `grid` are among the evaluated ones.
/// Errors: [`crate::error::Error::Candle`].
pub fn output_curves(
    heads: &[Ranked],
    values: &[&[f32]],
    head_dim: usize,
    projection: &Projection,
    thresholds: &[f64],
    grid: &[usize],
) -> Result<OutputCurves> {
    let asked = [Some(thresholds); 2];
    asked_output_curves(heads, values, head_dim, projection, asked, grid)
}

/// The same, but for `asked` curves only: the renormalised and the raw one, each with the thresholds that decide which
/// budgets are evaluated beside those of the grid.
pub(super) fn asked_output_curves(
    heads: &[Ranked],
    values: &[&[f32]],
    head_dim: usize,
    projection: &Projection,
    asked: [Option<&[f64]>; 2],
    grid: &[usize],
) -> Result<OutputCurves> {
    let tokens = heads.first().map_or(0, |h| h.order.len());
    if tokens == 0 {
        return Ok(OutputCurves::default());
    }
    let group = heads.len() / values.len().max(1);
    let landmarks = landmarks(tokens, grid);
    let paths: Vec<HeadPath<'_>> = (heads.par_iter().enumerate())
        .map(|(h, ranked)| HeadPath::walk(ranked, values[h / group], head_dim, &landmarks))
        .collect();
    let last = landmarks.len() - 1;
    let complete = paths.iter().flat_map(|p| p.sum_at(last));
    let complete: Vec<f32> = complete.map(|&s| s as f32).collect();
    let full = projection.outputs(&complete);
    let full: Vec<f64> = full.into_iter().map(f64::from).collect();
    let norm = full.iter().map(|x| x * x).sum::<f64>().sqrt();
    let layer = Layer {
        paths: &paths,
        landmarks: &landmarks,
        head_dim,
        projection,
        full,
        norm,
    };
    let curve = |renormalise, thresholds: Option<&[f64]>| match thresholds {
        Some(thresholds) => layer.curve(renormalise, thresholds),
        None => Ok(OutputCurve::default()),
    };
    let [renormalised, raw] = asked;
    Ok(OutputCurves {
        renormalised: curve(true, renormalised)?,
        raw: curve(false, raw)?,
        norm,
    })
}

/// Cosine and relative distance of an output of norm `norm` from the full one of norm `full`, given their product
/// and squared distance.
pub(super) fn compared(dot: f64, norm: f64, distance: f64, full: f64) -> [f64; 2] {
    let cosine = match norm * full {
        // Two zero outputs are the same output; one alone has no direction.
        0.0 if full == 0.0 && norm == 0.0 => 1.0,
        0.0 => 0.0,
        product => dot / product,
    };
    let relative = match full {
        0.0 => distance.sqrt(),
        full => distance.sqrt() / full,
    };
    [cosine, relative]
}

/// Budgets that are always evaluated: 1, the grid, T, and between them none further than a stride.
fn landmarks(tokens: usize, grid: &[usize]) -> Vec<usize> {
    let strides = (STRIDE..tokens).step_by(STRIDE);
    let inside = grid.iter().copied().filter(|b| (1..=tokens).contains(b));
    let mut all: Vec<usize> = strides.chain(inside).chain([1, tokens]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// W_o of one layer, with a bound on how far each head's part of it stretches a vector.
pub struct Projection {
    /// `(hidden, width)`, row after row.
    weights: Vec<f32>,
    hidden: usize,
    width: usize,
    stretch: Vec<f64>,
}

impl Projection {
    /// Takes W_o `(hidden, H_q * D)`, float32 on the CPU.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn new(weight: &Tensor, head_dim: usize) -> Result<Self> {
        let (hidden, width) = weight.dims2()?;
        Ok(Self {
            weights: weight.flatten_all()?.to_vec1()?,
            hidden,
            width,
            stretch: spectral_bounds(weight, head_dim)?,
        })
    }

    /// The outputs of rows of concatenated heads, `(rows, hidden)`.
    fn outputs(&self, rows: &[f32]) -> Vec<f32> {
        projected(&self.weights, [self.hidden, self.width], rows)
    }
}

/// One layer's heads on their way from one key to all.
struct Layer<'a> {
    paths: &'a [HeadPath<'a>],
    landmarks: &'a [usize],
    head_dim: usize,
    projection: &'a Projection,
    full: Vec<f64>,
    norm: f64,
}

impl Layer<'_> {
    fn curve(&self, renormalise: bool, thresholds: &[f64]) -> Result<OutputCurve> {
        let mut curve = OutputCurve::default();
        let places: Vec<(usize, usize)> = self.landmarks.iter().copied().enumerate().collect();
        let ends = self.evaluate(&places, renormalise, &mut curve)?;
        let mut open: Vec<Stretch> = (places.windows(2).zip(ends.windows(2)))
            .map(|(at, ends)| Stretch {
                place: at[0].0,
                budgets: [at[0].1, at[1].1],
                ends: [ends[0], ends[1]],
            })
            .collect();
        // What cannot be ruled out is halved: half as long a way may be ruled out.
        loop {
            open.retain(|s| s.is_long() && self.may_cross(s, renormalise, thresholds));
            if open.is_empty() {
                break;
            }
            let middles: Vec<_> = open.iter().map(|s| (s.place, s.middle())).collect();
            let found = self.evaluate(&middles, renormalise, &mut curve)?;
            let halves = open
                .iter()
                .zip(found)
                .flat_map(|(s, found)| s.halves(found));
            open = halves.collect();
        }
        curve.sort();
        Ok(curve)
    }

    /// Evaluates budgets, each given after the landmark that it follows; gives their cosines and norms.
    fn evaluate(
        &self,
        budgets: &[(usize, usize)],
        renormalise: bool,
        curve: &mut OutputCurve,
    ) -> Result<Vec<(f64, f64)>> {
        let (d, width) = (self.head_dim, self.head_dim * self.paths.len());
        let mut ends = Vec::with_capacity(budgets.len());
        for block in budgets.chunks(BUDGET_BLOCK) {
            let column = |path: &HeadPath<'_>| path.outputs(block, self.landmarks, renormalise);
            let columns: Vec<Vec<f32>> = self.paths.par_iter().map(column).collect();
            let mut rows = vec![0f32; block.len() * width];
            for (h, column) in columns.iter().enumerate() {
                for (row, part) in rows.chunks_mut(width).zip(column.chunks(d)) {
                    row[h * d..][..d].copy_from_slice(part);
                }
            }
            let outputs = self.projection.outputs(&rows);
            let outputs = outputs.par_chunks(self.projection.hidden);
            let compared: Vec<[f64; 3]> = outputs.map(|o| self.compare(o)).collect();
            for (&(_, budget), [cosine, relative, norm]) in block.iter().zip(compared) {
                curve.budgets.push(budget as u32);
                curve.cosine.push(cosine);
                curve.relative_l2.push(relative);
                ends.push((cosine, norm));
            }
        }
        Ok(ends)
    }

    /// Cosine, relative distance, and norm of an output.
    fn compare(&self, output: &[f32]) -> [f64; 3] {
        let (mut dot, mut norm, mut distance) = (0f64, 0f64, 0f64);
        for (&o, &f) in output.iter().zip(&self.full) {
            let o = f64::from(o);
            dot += o * f;
            norm += o * o;
            distance += (o - f) * (o - f);
        }
        let norm = norm.sqrt();
        let [cosine, relative] = compared(dot, norm, distance, self.norm);
        [cosine, relative, norm]
    }

    /// Whether the cosine could pass a threshold on a stretch, perhaps to come back.
    fn may_cross(&self, stretch: &Stretch, renormalise: bool, thresholds: &[f64]) -> bool {
        if thresholds.is_empty() {
            return false;
        }
        let heads = self.paths.iter().zip(&self.projection.stretch);
        let way: f64 = heads
            .map(|(path, factor)| factor * path.way(stretch, renormalise))
            .sum();
        may_cross(way, stretch.ends, thresholds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    fn identity(n: usize) -> Tensor {
        Tensor::eye(n, candle_core::DType::F32, &Device::Cpu).unwrap()
    }

    /// With every budget evaluated.
    fn every(heads: &[Ranked], values: &[&[f32]], d: usize, weight: &Tensor) -> OutputCurves {
        let projection = Projection::new(weight, d).unwrap();
        let grid: Vec<usize> = (1..=heads[0].order.len()).collect();
        output_curves(heads, values, d, &projection, &[0.9], &grid).unwrap()
    }

    #[test]
    fn two_keys_by_hand() {
        // One head, D = 2: a = (0.8, 0.2), v = (1, 0) and (0, 1); y = (0.8, 0.2).
        let ranked = [Ranked::new(&[0.8, 0.2])];
        let curves = every(&ranked, &[&[1.0, 0.0, 0.0, 1.0]], 2, &identity(2));
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
        let curves = every(&ranked, &[&[2.0, -1.0]], 1, &projection);
        // y = (1.8 - 0.1) + (0.6 - 0.7) = 1.6; one key: 2 + (-1) = 1 renormalised, 1.8 - 0.7 raw.
        assert!((curves.norm - 1.6).abs() < 1e-6);
        assert!((curves.renormalised.relative_l2[0] - 0.6 / 1.6).abs() < 1e-6);
        assert!((curves.raw.relative_l2[0] - 0.5 / 1.6).abs() < 1e-6);
        assert_eq!(curves.raw.cosine.len(), 2);
    }

    #[test]
    fn first_and_stable_differ_where_the_curve_dips() {
        let curve = OutputCurve {
            budgets: (1..=5).collect(),
            cosine: vec![0.5, 0.95, 0.8, 0.97, 1.0],
            relative_l2: vec![],
        };
        assert_eq!((curve.first(0.9), curve.stable(0.9)), (2, 4));
        assert_eq!((curve.first(0.4), curve.stable(0.4)), (1, 1));
        assert_eq!((curve.first(0.96), curve.stable(0.96)), (4, 4));
        let never = OutputCurve {
            budgets: vec![1, 2],
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
        let curves = every(&ranked, &slices, 3, &projection);
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What is left out decides nothing: `first`, `stable` and the grid are those of an evaluation of all.
        #[test]
        fn budgets_that_are_left_out_cross_no_threshold(
            seed in 0u32..1000, sharpness in 0.0f64..4.0, tokens in 1usize..400,
        ) {
            let noise = |i: usize| {
                let x = (i as u32 + 1).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503));
                f64::from((x ^ (x >> 15)) % 10_007) / 10_007.0
            };
            let vector = |h: usize| -> Vec<f64> {
                let p: Vec<f64> = (0..tokens)
                    .map(|i| noise(i + h * tokens).powf(1.0 + 8.0 * sharpness))
                    .collect();
                let sum = p.iter().sum::<f64>().max(1e-300);
                p.into_iter().map(|x| x / sum).collect()
            };
            let ranked: Vec<_> = (0..4).map(|h| Ranked::new(&vector(h))).collect();
            let float = |i: usize| noise(i) as f32 - 0.4;
            let values: Vec<Vec<f32>> = (0..2)
                .map(|g| (0..tokens * 3).map(|i| float(i * 7 + g)).collect())
                .collect();
            let slices: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
            let weight = Tensor::from_vec((0..60).map(float).collect(), (5, 12), &Device::Cpu).unwrap();
            let projection = Projection::new(&weight, 3).unwrap();
            let thresholds = [0.8, 0.9, 0.95, 0.99, 0.999];
            let grid = crate::profile::budget_grid(tokens);
            let some = output_curves(&ranked, &slices, 3, &projection, &thresholds, &grid).unwrap();
            let all = every(&ranked, &slices, 3, &weight);
            for (some, all) in [(&some.renormalised, &all.renormalised), (&some.raw, &all.raw)] {
                prop_assert_eq!(all.budgets.len(), tokens);
                // Products of other numbers of rows differ in their last bits.
                let close = 1e-6;
                for t in thresholds {
                    let first = all.first(t - close)..=all.first(t + close);
                    prop_assert!(first.contains(&some.first(t)), "first at {}", t);
                    let stable = all.stable(t - close)..=all.stable(t + close);
                    prop_assert!(stable.contains(&some.stable(t)), "stable at {}", t);
                }
                for budget in &grid {
                    let ([a, b], [c, d]) = (some.at(*budget), all.at(*budget));
                    prop_assert!((a - c).abs() < close && (b - d).abs() < 10.0 * close);
                }
            }
        }
    }
}
