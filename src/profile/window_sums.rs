//! The rows of the observation window, added up block by block and measured at the end of the prompt.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Tensor};

use super::budget_grid::budget_grid;
use super::device_vectors;
use super::group_measures::GroupMeasures;
use super::measures::{HeadMeasures, LayerMeasures, MinimumBudgets};
use super::options::MeasureOptions;
use super::vectors::{self, Spread};
use crate::compute::device::counts_to_mass;
use crate::error::{Error, Result};
use crate::model::attention::{
    AttentionRun, AttentionView, DeviceRows, GroupRows, RowReader, RowSums, Watch,
};

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
    /// The same where a device has them, one `(G, T)` per KV head.
    last_on_device: Vec<Tensor>,
    /// Sums over the counts of a device, `(G + 1, thresholds)` per KV head, of the run at hand.
    counts_on_device: BTreeMap<usize, Tensor>,
    finite: bool,
    /// Those of threads that are not reading.
    idle: Vec<GroupMeasures>,
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
                last_on_device: Vec::new(),
                counts_on_device: BTreeMap::new(),
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

    /// Ends a run of `run` rows.
    ///
    /// Errors: [`Error::NotFinite`] if any of its rows was not.
    pub(super) fn end_run(&mut self, run: usize) -> Result<()> {
        self.pooled.join();
        let rows = self.rows.get_mut().unwrap_or_else(PoisonError::into_inner);
        rows.idle.clear();
        rows.take_counts(run as f64 * self.tokens as f64)?;
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

    fn read_on_device(&self, rows: &DeviceRows<'_>) -> Result<()> {
        if rows.probabilities.device().is_metal() {
            return rows.on_host(&mut |rows| self.read(rows));
        }
        let counts = counts_to_mass(&rows.probabilities, &self.thresholds)?;
        let counts = counts.to_dtype(DType::F64)?.sum(1)?;
        self.pooled.read_on_device(rows)?;
        let mut all = self.rows();
        let sum = match all.counts_on_device.remove(&rows.kv_head) {
            Some(before) => (before + counts)?,
            None => counts,
        };
        all.counts_on_device.insert(rows.kv_head, sum);
        if rows.positions.end == self.tokens {
            let last = rows.probabilities.narrow(1, rows.positions.len() - 1, 1)?;
            // A copy: a view would keep the whole block.
            let last = last.squeeze(1)?.to_dtype(DType::F64)?.copy()?;
            all.last_on_device.push(last);
        }
        Ok(())
    }
}

impl RowMeasures {
    /// Brings the counts of a run from the device; a sum above `most` has one that stands for a row that is not
    /// finite.
    fn take_counts(&mut self, most: f64) -> Result<()> {
        let group = self.heads.len() / self.kv_heads.len();
        for (kv, counts) in std::mem::take(&mut self.counts_on_device) {
            let mut counts = counts.to_vec2::<f64>()?;
            self.finite &= counts.iter().flatten().all(|sum| *sum <= most);
            if let Some(mean) = counts.pop() {
                add(&mut self.kv_heads[kv], &mean);
            }
            for (sums, counts) in self.heads[kv * group..].iter_mut().zip(&counts) {
                add(sums, counts);
            }
        }
        Ok(())
    }
}

impl WindowSums {
    /// The measures, once all rows were read.
    pub(super) fn measure(
        mut self,
        view: &AttentionView<'_>,
        options: &MeasureOptions,
    ) -> Result<LayerMeasures> {
        let window = (self.tokens - self.first_row) as f64;
        let grid = budget_grid(self.tokens);
        let on_device = self.pooled.take_from_device();
        let rows = self.rows.into_inner();
        let rows = rows.unwrap_or_else(PoisonError::into_inner);
        let (vectors, spreads) = match on_device {
            Some(pooled) => {
                let last = Tensor::cat(&rows.last_on_device, 0)?;
                let rows = Tensor::new(window, pooled.device())?;
                let pooled = pooled.broadcast_div(&rows)?;
                let spreads = device_vectors::spreads(&pooled, self.first_row)?;
                let thresholds = &options.thresholds;
                let measured = device_vectors::on_device(view, [last, pooled], thresholds, &grid)?;
                (measured, spreads)
            }
            None => {
                let mut pooled = self.pooled.finish()?;
                pooled.iter_mut().flatten().for_each(|p| *p /= window);
                let spreads = pooled.iter().map(|v| Spread::of(v, self.first_row));
                let spreads = spreads.collect();
                let measured = vectors::on_host(view, [rows.last, pooled], options, &grid)?;
                (measured, spreads)
            }
        };
        let [last, pooled] = vectors;
        let mean = |sums: &[f64]| sums.iter().map(|s| s / window).collect();
        let budgets = |last: &[u32], pooled: &[u32], sums: &[f64]| MinimumBudgets {
            last: last.to_vec(),
            pooled: pooled.to_vec(),
            rows: mean(sums),
        };
        let heads = rows.heads.iter().zip(spreads).enumerate();
        let heads = heads.map(|(h, (sums, spread))| HeadMeasures {
            budgets: budgets(&last.budgets[h], &pooled.budgets[h], sums),
            entropy: spread.entropy,
            sink_mass: spread.sink_mass,
            window_mass: spread.window_mass,
            mass_last: last.mass[h].clone(),
            mass_pooled: pooled.mass[h].clone(),
        });
        let kv_heads = rows
            .kv_heads
            .iter()
            .enumerate()
            .map(|(kv, sums)| budgets(&last.kv_budgets[kv], &pooled.kv_budgets[kv], sums));
        Ok(LayerMeasures {
            heads: heads.collect(),
            kv_heads: kv_heads.collect(),
            output_last: last.output,
            output_pooled: pooled.output,
        })
    }
}

fn add(sums: &mut [f64], more: &[f64]) {
    sums.iter_mut().zip(more).for_each(|(s, m)| *s += m);
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
        sums.end_run(3).unwrap();
        assert_eq!(sums.rows().heads, [[3.0]]); // 2 keys, then 1
        assert_eq!(sums.rows().kv_heads, [[3.0]]);
        assert_eq!(sums.rows().last[0].len(), 3);
        for (got, want) in sums.pooled.finish().unwrap()[0].iter().zip([0.7, 0.7, 0.6]) {
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
        assert!(matches!(sums.end_run(1), Err(Error::NotFinite { .. })));
    }
}
