//! The probe that measures every head of every layer during one prefill.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::budget_grid::budget_grid;
use super::minimum_budget::{Ranked, minimum_budgets};
use super::output_budget::{OutputCurves, output_curves};
use crate::error::{Error, Result};
use crate::model::attention::{AttentionProbe, AttentionView, QUERY_BLOCK};

/// Keys at the start of a prompt that count as sinks.
pub const SINKS: usize = 4;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureOptions {
    /// Observation window w: how many of the last rows; `None` is every row.
    pub window: Option<usize>,
    /// Retained-mass thresholds of MBA, each in (0, 1].
    pub thresholds: Vec<f64>,
    /// Cosine thresholds of LMBO, each in (0, 1].
    pub output_thresholds: Vec<f64>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self {
            window: Some(32),
            thresholds: vec![0.5, 0.8, 0.9, 0.95, 0.99],
            output_thresholds: vec![0.8, 0.9, 0.95, 0.99, 0.999],
        }
    }
}

impl MeasureOptions {
    /// Refuses what cannot be measured.
    ///
    /// Errors: [`Error::Invalid`] for a window of 0, thresholds outside (0, 1], repeated or none.
    pub fn check(&self) -> Result<()> {
        if self.window == Some(0) {
            return Err(Error::invalid(
                "--window",
                0,
                "at least one row must be observed",
            ));
        }
        for (what, list) in [
            ("--thresholds", &self.thresholds),
            ("LMBO thresholds", &self.output_thresholds),
        ] {
            if list.is_empty() {
                return Err(Error::invalid(
                    what,
                    "empty",
                    "at least one threshold is needed",
                ));
            }
            if let Some(bad) = list.iter().find(|t| !(**t > 0.0 && **t <= 1.0)) {
                return Err(Error::invalid(
                    what,
                    bad,
                    "a threshold lies above 0 and at most at 1",
                ));
            }
            let mut names: Vec<_> = list.iter().map(|t| super::threshold_name(*t)).collect();
            names.sort();
            if names.windows(2).any(|w| w[0] == w[1]) {
                return Err(Error::invalid(
                    what,
                    format!("{list:?}"),
                    "each threshold is named once",
                ));
            }
        }
        Ok(())
    }

    /// Rows that a prompt of `tokens` has in its window.
    pub fn rows(&self, tokens: usize) -> usize {
        self.window.unwrap_or(tokens).min(tokens)
    }
}

/// MBA of one attention head, or of the mean over a group of heads.
///
/// Units: keys; one entry per threshold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinimumBudgets {
    /// Of the last prompt token's row.
    pub last: Vec<u32>,
    /// Of the mean of the window's rows.
    pub pooled: Vec<u32>,
    /// Mean over the window's rows of each row's own.
    pub rows: Vec<f64>,
}

/// Everything measured of one query head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadMeasures {
    /// MBA at every threshold.
    pub budgets: MinimumBudgets,
    /// Entropy of the pooled vector, in nats.
    pub entropy: f64,
    /// Share of the pooled vector on the first [`SINKS`] keys.
    pub sink_mass: f64,
    /// Share of the pooled vector on the keys of the window itself.
    pub window_mass: f64,
    /// Retained mass of the `last` row at every budget of the grid.
    pub mass_last: Vec<f64>,
    /// Retained mass of the pooled vector at every budget of the grid.
    pub mass_pooled: Vec<f64>,
}

/// Everything measured of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMeasures {
    /// One per query head.
    pub heads: Vec<HeadMeasures>,
    /// One per KV head: attention averaged over its query heads first.
    pub kv_heads: Vec<MinimumBudgets>,
    /// Output curves of the `last` row.
    pub output_last: OutputCurves,
    /// Output curves of the pooled vector.
    pub output_pooled: OutputCurves,
}

/// Measures one prompt; give it to [`crate::model::decoder::Decoder::prefill`].
///
/// Paper: ZigZagKV, arXiv 2412.09036. Differs: three queries are measured in one prefill, never on
/// pooled, padded or masked scores.
pub struct Profiler<'a> {
    options: &'a MeasureOptions,
    watching: Vec<WindowSums>,
    layers: Vec<LayerMeasures>,
    on_layer: &'a mut dyn FnMut(usize),
}

impl<'a> Profiler<'a> {
    /// A profiler for one prompt; `on_layer` hears the number of tokens of each run and layer done.
    pub fn new(options: &'a MeasureOptions, on_layer: &'a mut dyn FnMut(usize)) -> Self {
        Self {
            options,
            watching: Vec::new(),
            layers: Vec::new(),
            on_layer,
        }
    }

    /// The measures, one per layer.
    pub fn finish(self) -> Vec<LayerMeasures> {
        self.layers
    }
}

impl AttentionProbe for Profiler<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, run, _) = view.queries.dims3()?;
        let tokens = view.prompt_tokens;
        if self.watching.len() <= view.layer {
            let h_kv = view.cache.heads.len();
            self.watching.push(WindowSums::new(
                h_q,
                h_kv,
                tokens,
                self.options.thresholds.len(),
            ));
        }
        let first_row = tokens - self.options.rows(tokens);
        let sums = &mut self.watching[view.layer];
        let mut start = view.rows.start.max(first_row);
        while start < view.rows.end {
            let end = view.rows.end.min(start + QUERY_BLOCK);
            let block = view.probabilities(start..end)?.to_device(&Device::Cpu)?;
            sums.add(&block, start, &self.options.thresholds)?;
            start = end;
        }
        if view.is_last() {
            let sums = std::mem::take(&mut self.watching[view.layer]);
            self.layers.push(sums.measure(view, self.options)?);
        }
        (self.on_layer)(run);
        Ok(())
    }
}

/// Sums over the window's rows of one layer, gathered run by run.
#[derive(Default)]
struct WindowSums {
    tokens: usize,
    group: usize,
    rows: usize,
    last: Vec<Vec<f64>>,   // H_q x T
    pooled: Vec<Vec<f64>>, // H_q x T, a sum until it is divided by the rows
    head_rows: Vec<Vec<f64>>,
    kv_rows: Vec<Vec<f64>>,
}

/// MBA of the rows of one KV group in one block: per row, of each query head and of their mean.
struct GroupRows {
    heads: Vec<Vec<u32>>,
    mean: Vec<u32>,
}

impl WindowSums {
    fn new(h_q: usize, h_kv: usize, tokens: usize, thresholds: usize) -> Self {
        Self {
            tokens,
            group: h_q / h_kv,
            rows: 0,
            last: Vec::new(),
            pooled: vec![vec![0.0; tokens]; h_q],
            head_rows: vec![vec![0.0; thresholds]; h_q],
            kv_rows: vec![vec![0.0; thresholds]; h_kv],
        }
    }

    /// Adds rows `(H_q, rows, S)` that start at position `first`.
    fn add(&mut self, block: &Tensor, first: usize, thresholds: &[f64]) -> Result<()> {
        let (_, rows, seen) = block.dims3()?;
        let flat = block.flatten_all()?.to_vec1::<f32>()?;
        let line = |head: usize, row: usize| {
            // Keys after the query are zero; leaving them out changes nothing but time.
            &flat[(head * rows + row) * seen..][..first + row + 1]
        };
        if flat.iter().any(|p| !p.is_finite()) {
            return Err(Error::NotFinite {
                place: "attention".into(),
                advice: "the weights are damaged, or --dtype is too narrow for them: try f32"
                    .into(),
            });
        }
        let pairs: Vec<(usize, usize)> = (0..self.kv_rows.len())
            .flat_map(|kv| (0..rows).map(move |r| (kv, r)))
            .collect();
        let group = self.group;
        let measured: Vec<GroupRows> = pairs
            .par_iter()
            .map_init(Vec::new, |scratch, &(kv, row)| {
                let heads = kv * group..(kv + 1) * group;
                let lines: Vec<&[f32]> = heads.map(|h| line(h, row)).collect();
                GroupRows::measure(&lines, thresholds, scratch)
            })
            .collect();
        // Added up in the order of the rows, so that runs of any length give the same sums.
        for (&(kv, _), rows) in pairs.iter().zip(&measured) {
            for (g, budgets) in rows.heads.iter().enumerate() {
                add_counts(&mut self.head_rows[kv * group + g], budgets);
            }
            add_counts(&mut self.kv_rows[kv], &rows.mean);
        }
        self.pooled
            .par_iter_mut()
            .enumerate()
            .for_each(|(head, sum)| {
                for row in 0..rows {
                    sum.iter_mut()
                        .zip(line(head, row))
                        .for_each(|(s, &p)| *s += f64::from(p));
                }
            });
        if first + rows == self.tokens {
            self.last = (0..self.pooled.len())
                .map(|h| line(h, rows - 1).iter().map(|&p| f64::from(p)).collect())
                .collect();
        }
        self.rows += rows;
        Ok(())
    }

    fn measure(
        mut self,
        view: &AttentionView<'_>,
        options: &MeasureOptions,
    ) -> Result<LayerMeasures> {
        let rows = self.rows as f64;
        self.pooled.iter_mut().flatten().for_each(|p| *p /= rows);
        let grid = budget_grid(self.tokens);
        let last: Vec<Ranked> = self.last.par_iter().map(|v| Ranked::new(v)).collect();
        let pooled: Vec<Ranked> = self.pooled.par_iter().map(|v| Ranked::new(v)).collect();
        let heads = (0..last.len())
            .map(|h| {
                let vector = &self.pooled[h];
                HeadMeasures {
                    budgets: MinimumBudgets {
                        last: at_thresholds(&last[h], &options.thresholds),
                        pooled: at_thresholds(&pooled[h], &options.thresholds),
                        rows: self.head_rows[h].iter().map(|s| s / rows).collect(),
                    },
                    entropy: entropy(vector),
                    sink_mass: share(vector, 0..SINKS.min(self.tokens)),
                    window_mass: share(vector, self.tokens - self.rows..self.tokens),
                    mass_last: grid.iter().map(|&b| last[h].retained_mass(b)).collect(),
                    mass_pooled: grid.iter().map(|&b| pooled[h].retained_mass(b)).collect(),
                }
            })
            .collect();
        let kv_heads = (0..self.kv_rows.len())
            .map(|kv| {
                let members = kv * self.group..(kv + 1) * self.group;
                let mean = |v: &[Vec<f64>]| Ranked::new(&mean_of(&v[members.clone()]));
                MinimumBudgets {
                    last: at_thresholds(&mean(&self.last), &options.thresholds),
                    pooled: at_thresholds(&mean(&self.pooled), &options.thresholds),
                    rows: self.kv_rows[kv].iter().map(|s| s / rows).collect(),
                }
            })
            .collect();
        let (output_last, output_pooled) = outputs(view, &last, &pooled)?;
        Ok(LayerMeasures {
            heads,
            kv_heads,
            output_last,
            output_pooled,
        })
    }
}

impl GroupRows {
    fn measure(lines: &[&[f32]], thresholds: &[f64], scratch: &mut Vec<u32>) -> Self {
        let mut of = |line: &[f32]| {
            let mut budgets = vec![0u32; thresholds.len()];
            minimum_budgets(line, thresholds, scratch, &mut budgets);
            budgets
        };
        let heads: Vec<Vec<u32>> = lines.iter().map(|line| of(line)).collect();
        if lines.len() == 1 {
            return Self {
                mean: heads[0].clone(),
                heads,
            };
        }
        let mut mean = lines[0].to_vec();
        for line in &lines[1..] {
            mean.iter_mut().zip(*line).for_each(|(m, p)| *m += p);
        }
        // A common factor changes no MBA: the sum stands for the mean.
        Self {
            mean: of(&mean),
            heads,
        }
    }
}

/// Output curves of both queries, on values and W_o brought to the CPU in float32.
fn outputs(
    view: &AttentionView<'_>,
    last: &[Ranked],
    pooled: &[Ranked],
) -> Result<(OutputCurves, OutputCurves)> {
    let (_, _, head_dim) = view.queries.dims3()?;
    let local =
        |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(DType::F32)?.to_device(&Device::Cpu)?) };
    let values: Vec<Vec<f32>> = view
        .cache
        .heads
        .iter()
        .map(|head| Ok(local(&head.values()?)?.flatten_all()?.to_vec1::<f32>()?))
        .collect::<Result<_>>()?;
    let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let projection = local(view.output_projection)?;
    Ok((
        output_curves(last, &values, head_dim, &projection)?,
        output_curves(pooled, &values, head_dim, &projection)?,
    ))
}

fn add_counts(sums: &mut [f64], counts: &[u32]) {
    sums.iter_mut()
        .zip(counts)
        .for_each(|(s, &c)| *s += f64::from(c));
}

fn at_thresholds(ranked: &Ranked, thresholds: &[f64]) -> Vec<u32> {
    thresholds
        .iter()
        .map(|&t| ranked.minimum_budget(t) as u32)
        .collect()
}

fn mean_of(vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vectors[0].clone();
    for vector in &vectors[1..] {
        mean.iter_mut().zip(vector).for_each(|(m, v)| *m += v);
    }
    mean.iter_mut().for_each(|m| *m /= vectors.len() as f64);
    mean
}

/// Entropy −Σ p ln p of a vector divided by its sum.
///
/// Units: nats, 0 to ln T.
pub fn entropy(attention: &[f64]) -> f64 {
    let total: f64 = attention.iter().sum();
    let sum: f64 = attention
        .iter()
        .filter(|a| **a > 0.0)
        .map(|a| a / total * (a / total).ln())
        .sum();
    (-sum).max(0.0)
}

/// Share of a vector's sum on the keys of `range`.
pub fn share(attention: &[f64], range: std::ops::Range<usize>) -> f64 {
    attention[range].iter().sum::<f64>() / attention.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_a_uniform_vector_is_ln_t_and_of_one_hot_zero() {
        assert!((entropy(&[0.25; 4]) - 4f64.ln()).abs() < 1e-15);
        assert!((entropy(&[3.0; 7]) - 7f64.ln()).abs() < 1e-14);
        assert_eq!(entropy(&[0.0, 1.0, 0.0]), 0.0);
        assert_eq!(entropy(&[1.0]), 0.0);
    }

    #[test]
    fn shares_are_of_the_vectors_own_sum() {
        assert_eq!(share(&[1.0, 1.0, 2.0, 4.0], 0..2), 0.25);
        assert_eq!(share(&[2.0], 0..1), 1.0);
    }

    #[test]
    fn a_group_is_averaged_before_it_is_measured() {
        // Each head needs one key for 60 %; their mean (0.5, 0.5) needs two.
        let (a, b) = ([1.0f32, 0.0], [0.0f32, 1.0]);
        let rows = GroupRows::measure(&[&a, &b], &[0.6], &mut Vec::new());
        assert_eq!(rows.heads, [[1], [1]]);
        assert_eq!(rows.mean, [2]);
    }

    #[test]
    fn sums_over_rows_by_hand() {
        // T = 3, w = 2, one head: rows (0.5, 0.5) and (0.2, 0.2, 0.6).
        let block = Tensor::new(&[[[0.5f32, 0.5, 0.0], [0.2, 0.2, 0.6]]], &Device::Cpu).unwrap();
        let mut sums = WindowSums::new(1, 1, 3, 1);
        sums.add(&block, 1, &[0.6]).unwrap();
        assert_eq!(sums.rows, 2);
        assert_eq!(sums.head_rows, [[3.0]]); // 2 keys, then 1
        let want = [0.7, 0.7, 0.6];
        for (got, want) in sums.pooled[0].iter().zip(want) {
            assert!((got - want).abs() < 1e-6);
        }
        assert_eq!(sums.last[0].len(), 3);
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        let with = |f: fn(&mut MeasureOptions)| {
            let mut options = MeasureOptions::default();
            f(&mut options);
            options.check()
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|o| o.window = None).is_ok());
        assert!(with(|o| o.window = Some(0)).is_err());
        assert!(with(|o| o.thresholds = vec![0.0]).is_err());
        assert!(with(|o| o.thresholds = vec![1.1]).is_err());
        assert!(with(|o| o.thresholds = vec![f64::NAN]).is_err());
        assert!(with(|o| o.thresholds = vec![0.9, 0.9]).is_err());
        assert!(with(|o| o.output_thresholds = vec![]).is_err());
    }
}
