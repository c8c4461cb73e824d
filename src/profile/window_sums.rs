//! The rows of the observation window, added up run by run and measured at the end of the prompt.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::budget_grid::budget_grid;
use super::measures::{HeadMeasures, LayerMeasures, MinimumBudgets, SINKS, entropy, share};
use super::minimum_budget::Ranked;
use super::options::MeasureOptions;
use super::output_budget::{OutputCurves, Projection, output_curves};
use super::row_budgets::RowBudgets;
use crate::error::{Error, Result};
use crate::model::attention::{AttentionRun, AttentionView, GroupRows, RowReader, RowSums, Watch};
use crate::model::lanes::{LANES, Lanes, widest};

/// Sums over the window's rows of one layer; it reads them on the threads of attention.
pub(super) struct WindowSums {
    tokens: usize,
    group: usize,
    first_row: usize,
    thresholds: Vec<f64>,
    pooled: RowSums,
    rows: Mutex<RowMeasures>,
}

/// What is kept of single rows; counts of keys are whole, so that their sums have no order.
struct RowMeasures {
    heads: Vec<Vec<f64>>,
    kv_heads: Vec<Vec<f64>>,
    last: Vec<Vec<f64>>, // H_q x T
    finite: bool,
    /// Those of threads that are not reading.
    idle: Vec<GroupMeasures>,
}

/// Measures the rows of one KV head at a time.
struct GroupMeasures {
    budgets: RowBudgets,
    mean: Vec<f32>,
}

/// MBA of the rows of one block, added up: of each query head and of their mean.
struct BlockBudgets {
    heads: Vec<Vec<f64>>,
    mean: Vec<f64>,
}

impl WindowSums {
    pub(super) fn new(run: &AttentionRun, options: &MeasureOptions) -> Self {
        let (h_q, h_kv, tokens) = (run.query_heads, run.kv_heads, run.prompt_tokens);
        let (rows, group) = (options.rows(tokens), h_q / h_kv);
        let zeros = vec![0.0; options.thresholds.len()];
        Self {
            tokens,
            group,
            first_row: tokens - rows,
            thresholds: options.thresholds.clone(),
            pooled: RowSums::new(h_q, group, tokens, rows),
            rows: Mutex::new(RowMeasures {
                heads: vec![zeros.clone(); h_q],
                kv_heads: vec![zeros; h_kv],
                last: vec![Vec::new(); h_q],
                finite: true,
                idle: Vec::new(),
            }),
        }
    }

    /// The reader of the rows that it wants.
    pub(super) fn watch(&self) -> Watch<'_> {
        Watch {
            from: self.first_row,
            reader: self,
        }
    }

    /// Ends a run.
    ///
    /// Errors: [`Error::NotFinite`] if any of its rows was not.
    pub(super) fn end_run(&mut self) -> Result<()> {
        self.pooled.join();
        let rows = self.rows.get_mut().unwrap_or_else(PoisonError::into_inner);
        rows.idle.clear();
        match rows.finite {
            true => Ok(()),
            false => Err(Error::NotFinite {
                place: "attention".into(),
                advice: "the weights are damaged, or --dtype is too narrow for them: try f32"
                    .into(),
            }),
        }
    }

    fn rows(&self) -> MutexGuard<'_, RowMeasures> {
        // Whatever a panic interrupted is not used: it goes on to the caller of attention.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RowReader for WindowSums {
    fn read(&self, rows: &GroupRows<'_>) {
        let idle = self.rows().idle.pop();
        let mut measures = idle.unwrap_or_else(|| GroupMeasures::new(&self.thresholds));
        let block = measures.block(rows, self.thresholds.len());
        self.pooled.read(rows);
        let mut all = self.rows();
        all.idle.push(measures);
        let Some(block) = block else {
            all.finite = false;
            return;
        };
        let first_head = rows.kv_head * self.group;
        for (sums, budgets) in all.heads[first_head..].iter_mut().zip(&block.heads) {
            add(sums, budgets);
        }
        add(&mut all.kv_heads[rows.kv_head], &block.mean);
        if rows.positions.end == self.tokens {
            for g in 0..self.group {
                let last = rows.row(self.tokens - 1, g).iter();
                all.last[first_head + g] = last.map(|&p| f64::from(p)).collect();
            }
        }
    }
}

impl GroupMeasures {
    fn new(thresholds: &[f64]) -> Self {
        Self {
            budgets: RowBudgets::new(thresholds),
            mean: Vec::new(),
        }
    }

    /// Budgets of all rows of a block; none if any is not finite.
    fn block(&mut self, rows: &GroupRows<'_>, thresholds: usize) -> Option<BlockBudgets> {
        let zeros = vec![0.0; thresholds];
        let mut block = BlockBudgets {
            heads: vec![zeros.clone(); rows.group],
            mean: zeros,
        };
        for position in rows.positions.clone() {
            let lines: Vec<&[f32]> = (0..rows.group).map(|g| rows.row(position, g)).collect();
            for (g, line) in lines.iter().enumerate() {
                add_counts(&mut block.heads[g], &self.budgets.measure(line)?);
            }
            match lines.as_slice() {
                [_] => block.mean.clone_from(&block.heads[0]),
                _ => {
                    mean(&lines, &mut self.mean);
                    add_counts(&mut block.mean, &self.budgets.measure(&self.mean)?);
                }
            }
        }
        Some(block)
    }
}

impl WindowSums {
    /// The measures, once all rows were read.
    pub(super) fn measure(
        self,
        view: &AttentionView<'_>,
        options: &MeasureOptions,
    ) -> Result<LayerMeasures> {
        let window = self.tokens - self.first_row;
        let rows = window as f64;
        let RowMeasures {
            heads: head_rows,
            kv_heads: kv_rows,
            last: last_rows,
            ..
        } = self
            .rows
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut pooled_rows = self.pooled.finish();
        pooled_rows.iter_mut().flatten().for_each(|p| *p /= rows);
        let grid = budget_grid(self.tokens);
        let last: Vec<Ranked> = last_rows.par_iter().map(|v| Ranked::new(v)).collect();
        let pooled: Vec<Ranked> = pooled_rows.par_iter().map(|v| Ranked::new(v)).collect();
        let heads = (0..last.len())
            .map(|h| {
                let vector = &pooled_rows[h];
                HeadMeasures {
                    budgets: MinimumBudgets {
                        last: at_thresholds(&last[h], &options.thresholds),
                        pooled: at_thresholds(&pooled[h], &options.thresholds),
                        rows: head_rows[h].iter().map(|s| s / rows).collect(),
                    },
                    entropy: entropy(vector),
                    sink_mass: share(vector, 0..SINKS.min(self.tokens)),
                    window_mass: share(vector, self.first_row..self.tokens),
                    mass_last: grid.iter().map(|&b| last[h].retained_mass(b)).collect(),
                    mass_pooled: grid.iter().map(|&b| pooled[h].retained_mass(b)).collect(),
                }
            })
            .collect();
        let kv_heads = (0..kv_rows.len())
            .map(|kv| {
                let members = kv * self.group..(kv + 1) * self.group;
                let mean = |v: &[Vec<f64>]| Ranked::new(&mean_of(&v[members.clone()]));
                MinimumBudgets {
                    last: at_thresholds(&mean(&last_rows), &options.thresholds),
                    pooled: at_thresholds(&mean(&pooled_rows), &options.thresholds),
                    rows: kv_rows[kv].iter().map(|s| s / rows).collect(),
                }
            })
            .collect();
        let [output_last, output_pooled] = outputs(view, [&last, &pooled], options, &grid)?;
        Ok(LayerMeasures {
            heads,
            kv_heads,
            output_last,
            output_pooled,
        })
    }
}

/// The mean of a group's rows, rounded once.
fn mean(lines: &[&[f32]], mean: &mut Vec<f32>) {
    widest!(mean_of_lines(lines: &[&[f32]], mean: &mut Vec<f32>));
}

#[inline(always)]
fn mean_of_lines<L: Lanes>(lines: &[&[f32]], mean: &mut Vec<f32>) {
    let count = lines.len() as f64;
    let mut sums = [0f64; 4 * LANES];
    mean.clear();
    for start in (0..lines[0].len()).step_by(sums.len()) {
        sums.fill(0.0);
        for line in lines {
            let line = &line[start..];
            sums.iter_mut()
                .zip(line)
                .for_each(|(s, &p)| *s += f64::from(p));
        }
        let rest = sums.len().min(lines[0].len() - start);
        mean.extend(sums[..rest].iter().map(|sum| (sum / count) as f32));
    }
}

/// Output curves of both queries, on values and W_o brought to the CPU in float32.
fn outputs(
    view: &AttentionView<'_>,
    queries: [&[Ranked]; 2],
    options: &MeasureOptions,
    grid: &[usize],
) -> Result<[OutputCurves; 2]> {
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
    let projection = Projection::new(&local(&view.output_projection()?)?, head_dim)?;
    let thresholds = &options.output_thresholds;
    let curves = |heads| output_curves(heads, &values, head_dim, &projection, thresholds, grid);
    let [last, pooled] = queries;
    Ok([curves(last)?, curves(pooled)?])
}

fn add(sums: &mut [f64], more: &[f64]) {
    sums.iter_mut().zip(more).for_each(|(s, m)| *s += m);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(tokens: usize, group: usize, window: usize, threshold: f64) -> WindowSums {
        let run = AttentionRun {
            layer: 0,
            rows: 0..tokens,
            prompt_tokens: tokens,
            query_heads: group,
            kv_heads: 1,
        };
        let options = MeasureOptions {
            window: Some(window),
            thresholds: vec![threshold],
            ..MeasureOptions::default()
        };
        WindowSums::new(&run, &options)
    }

    #[test]
    fn a_group_is_averaged_before_it_is_measured() {
        // Each head needs one key for 60 %; their mean (0.5, 0.5) needs two.
        let sums = sums(2, 2, 1, 0.6);
        sums.read(&GroupRows {
            kv_head: 0,
            positions: 1..2,
            group: 2,
            values: &[1.0, 0.0, 0.0, 1.0],
            strides: [0, 2],
            seen: &[2],
        });
        assert_eq!(sums.rows().heads, [[1.0], [1.0]]);
        assert_eq!(sums.rows().kv_heads, [[2.0]]);
        assert_eq!(sums.rows().last, [[1.0, 0.0], [0.0, 1.0]]);
    }

    #[test]
    fn sums_over_rows_by_hand() {
        // T = 3, w = 2, one head: rows (0.5, 0.5) and (0.2, 0.2, 0.6).
        let mut sums = sums(3, 1, 2, 0.6);
        assert_eq!(sums.watch().from, 1);
        sums.read(&GroupRows {
            kv_head: 0,
            positions: 1..3,
            group: 1,
            values: &[0.5, 0.5, 9.0, 0.2, 0.2, 0.6],
            strides: [3, 3],
            seen: &[2, 3],
        });
        sums.end_run().unwrap();
        assert_eq!(sums.rows().heads, [[3.0]]); // 2 keys, then 1
        assert_eq!(sums.rows().kv_heads, [[3.0]]);
        assert_eq!(sums.rows().last[0].len(), 3);
        for (got, want) in sums.pooled.finish()[0].iter().zip([0.7, 0.7, 0.6]) {
            assert!((got - want).abs() < 1e-6);
        }
    }

    #[test]
    fn rows_that_are_not_finite_end_the_run_with_an_error() {
        let mut sums = sums(1, 1, 1, 0.6);
        sums.read(&GroupRows {
            kv_head: 0,
            positions: 0..1,
            group: 1,
            values: &[f32::NAN],
            strides: [1, 1],
            seen: &[1],
        });
        assert!(matches!(sums.end_run(), Err(Error::NotFinite { .. })));
    }

    #[test]
    fn the_mean_of_lines_of_any_length() {
        for length in [1, 63, 64, 65, 200] {
            let (a, b) = (vec![0.25; length], vec![0.75; length]);
            let mut got = Vec::new();
            mean(&[&a, &b], &mut got);
            assert_eq!(got, vec![0.5; length]);
        }
    }
}
