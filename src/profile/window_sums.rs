//! The rows of the observation window, added up run by run and measured at the end of the prompt.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::budget_grid::budget_grid;
use super::measures::{HeadMeasures, LayerMeasures, MinimumBudgets, SINKS, entropy, share};
use super::minimum_budget::{Ranked, RowBudgets};
use super::options::MeasureOptions;
use super::output_budget::{OutputCurves, Projection, output_curves};
use crate::error::{Error, Result};
use crate::model::attention::AttentionView;

/// Sums over the window's rows of one layer, gathered run by run.
#[derive(Default)]
pub(super) struct WindowSums {
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
    pub(super) fn new(h_q: usize, h_kv: usize, tokens: usize, thresholds: usize) -> Self {
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
    pub(super) fn add(&mut self, block: &Tensor, first: usize, thresholds: &[f64]) -> Result<()> {
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
            .map_init(
                || RowBudgets::new(thresholds),
                |budgets, &(kv, row)| {
                    let heads = kv * group..(kv + 1) * group;
                    let lines: Vec<&[f32]> = heads.map(|h| line(h, row)).collect();
                    GroupRows::measure(&lines, budgets)
                },
            )
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

    pub(super) fn measure(
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
        let [output_last, output_pooled] = outputs(view, [&last, &pooled], options, &grid)?;
        Ok(LayerMeasures {
            heads,
            kv_heads,
            output_last,
            output_pooled,
        })
    }
}

impl GroupRows {
    fn measure(lines: &[&[f32]], budgets: &mut RowBudgets) -> Self {
        let heads: Vec<Vec<u32>> = lines.iter().map(|line| budgets.measure(line)).collect();
        if lines.len() == 1 {
            return Self {
                mean: heads[0].clone(),
                heads,
            };
        }
        let mean: Vec<f32> = (0..lines[0].len())
            .map(|k| lines.iter().map(|line| f64::from(line[k])).sum::<f64>())
            .map(|sum| (sum / lines.len() as f64) as f32)
            .collect();
        Self {
            mean: budgets.measure(&mean),
            heads,
        }
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

    #[test]
    fn a_group_is_averaged_before_it_is_measured() {
        // Each head needs one key for 60 %; their mean (0.5, 0.5) needs two.
        let (a, b) = ([1.0f32, 0.0], [0.0f32, 1.0]);
        let rows = GroupRows::measure(&[&a, &b], &mut RowBudgets::new(&[0.6]));
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
}
