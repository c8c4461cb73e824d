//! The rows of the observation window, added up block by block and measured at the end of the prompt.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Tensor};

use super::budget_grid::budget_grid;
use super::device_vectors;
use super::group_measures::GroupMeasures;
use super::measures::{HeadMeasures, LayerMeasures, MinimumBudgets};
use super::vectors::{self, Spread, Vectors};
use super::work::Work;
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
    /// Thresholds of single rows, where these are measured.
    thresholds: Option<Vec<f64>>,
    /// Sums over rows, where these are asked for.
    pooled: Option<RowSums>,
    keeps_last: bool,
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
    /// For the last `rows` rows of a prompt, as far as `work` looks at them.
    pub(super) fn new(run: &AttentionRun, rows: usize, work: &Work) -> Self {
        let (h_q, h_kv, tokens) = (run.query_heads, run.kv_heads, run.prompt_tokens);
        let group = h_q / h_kv;
        let rows = if work.rows || work.pools() { rows } else { 1 };
        let thresholds = work.rows.then(|| work.thresholds.clone());
        let zeros = vec![0.0; thresholds.as_ref().map_or(0, Vec::len)];
        let keeps_last = work.last.is_some();
        Self {
            tokens,
            group,
            first_row: tokens - rows,
            thresholds,
            pooled: (work.pools()).then(|| RowSums::new(h_q, group, tokens, rows)),
            keeps_last,
            rows: Mutex::new(RowMeasures {
                heads: vec![zeros.clone(); h_q],
                kv_heads: vec![zeros; h_kv],
                last: vec![Vec::new(); if keeps_last { h_q } else { 0 }],
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
        if let Some(pooled) = &mut self.pooled {
            pooled.join();
        }
        let rows = self.rows.get_mut().unwrap_or_else(PoisonError::into_inner);
        rows.idle.clear();
        rows.take_counts(run as f64 * self.tokens as f64)?;
        if rows.finite {
            return Ok(());
        }
        Err(not_finite("attention"))
    }

    fn rows(&self) -> MutexGuard<'_, RowMeasures> {
        // Whatever a panic interrupted is not used: it goes on to the caller of attention.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures single rows on their own.
    fn read_budgets(&self, rows: &GroupRows<'_>, thresholds: &[f64]) {
        let idle = self.rows().idle.pop();
        let mut measures = idle.unwrap_or_else(|| GroupMeasures::new(thresholds));
        let block = measures.block(rows, thresholds.len());
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
    }

    /// Counts the budgets of single rows where a device has them.
    fn count_on_device(&self, rows: &DeviceRows<'_>, thresholds: &[f64]) -> Result<()> {
        let counts = counts_to_mass(&rows.probabilities, thresholds)?;
        let counts = counts.to_dtype(DType::F64)?.sum(1)?;
        let mut all = self.rows();
        let sum = match all.counts_on_device.remove(&rows.kv_head) {
            Some(before) => (before + counts)?,
            None => counts,
        };
        all.counts_on_device.insert(rows.kv_head, sum);
        Ok(())
    }
}

impl RowReader for WindowSums {
    fn read(&self, rows: &GroupRows<'_>) {
        if let Some(thresholds) = &self.thresholds {
            self.read_budgets(rows, thresholds);
        }
        if let Some(pooled) = &self.pooled {
            pooled.read(rows);
        }
        if self.keeps_last && rows.positions.end == self.tokens {
            let first_head = rows.kv_head * self.group;
            let mut all = self.rows();
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
        if let Some(thresholds) = &self.thresholds {
            self.count_on_device(rows, thresholds)?;
        }
        if let Some(pooled) = &self.pooled {
            pooled.read_on_device(rows)?;
        }
        if self.keeps_last && rows.positions.end == self.tokens {
            let last = rows.probabilities.narrow(1, rows.positions.len() - 1, 1)?;
            // A copy: a view would keep the whole block.
            let last = last.squeeze(1)?.to_dtype(DType::F64)?.copy()?;
            self.rows().last_on_device.push(last);
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
    ///
    /// Errors: [`Error::NotFinite`] for rows that are not; [`Error::Candle`].
    pub(super) fn measure(self, view: &AttentionView<'_>, work: &Work) -> Result<LayerMeasures> {
        let window = (self.tokens - self.first_row) as f64;
        let grid = budget_grid(self.tokens);
        let mut sums = self.pooled;
        let pooled_on_device = sums.as_mut().and_then(RowSums::take_from_device);
        let rows = self.rows.into_inner();
        let rows = rows.unwrap_or_else(PoisonError::into_inner);
        let on_device = Some(&rows.last_on_device).filter(|heads| !heads.is_empty());
        let last_on_device = on_device.map(|heads| Tensor::cat(heads, 0)).transpose()?;
        let mut spreads = Vec::new();
        let vectors = if pooled_on_device.is_some() || last_on_device.is_some() {
            let divided = |sums: Tensor| -> Result<Tensor> {
                let rows = Tensor::new(window, sums.device())?;
                Ok(sums.broadcast_div(&rows)?)
            };
            let pooled = pooled_on_device.map(divided).transpose()?;
            let vectors = [last_on_device, pooled];
            for vector in vectors.iter().flatten() {
                check_total(vector.sum_all()?.to_scalar()?)?;
            }
            if let Some(pooled) = vectors[1].as_ref().filter(|_| work.spreads) {
                spreads = device_vectors::spreads(pooled, self.first_row)?;
            }
            device_vectors::on_device(view, vectors, work, &grid)?
        } else {
            let mut pooled = sums.map_or_else(|| Ok(Vec::new()), RowSums::finish)?;
            pooled.iter_mut().flatten().for_each(|p| *p /= window);
            for vector in [&rows.last, &pooled] {
                check_total(vector.iter().flatten().sum())?;
            }
            if work.spreads {
                let of = |v: &Vec<f64>| Spread::of(v, self.first_row);
                spreads = pooled.iter().map(of).collect();
            }
            vectors::on_host(view, [&rows.last, &pooled], work, &grid)?
        };
        if !vectors.iter().all(|vector| vector.output.norm.is_finite()) {
            return Err(not_finite("a layer's output"));
        }
        let measures = layer_measures(&rows, window, vectors, spreads);
        Ok(LayerMeasures {
            window: view.cache.window(),
            ..measures
        })
    }
}

/// Puts together what was measured of a layer, given sums over the budgets of `window` rows.
fn layer_measures(
    rows: &RowMeasures,
    window: f64,
    [last, pooled]: [Vectors; 2],
    spreads: Vec<Spread>,
) -> LayerMeasures {
    let budgets =
        |last: &[Vec<u32>], pooled: &[Vec<u32>], sums: &[Vec<f64>], head| MinimumBudgets {
            last: of_head(last, head),
            pooled: of_head(pooled, head),
            rows: sums[head].iter().map(|s| s / window).collect(),
        };
    let head = |h| {
        let spread = spreads.get(h).unwrap_or(&Spread::UNKNOWN);
        HeadMeasures {
            budgets: budgets(&last.budgets, &pooled.budgets, &rows.heads, h),
            entropy: spread.entropy,
            sink_mass: spread.sink_mass,
            window_mass: spread.window_mass,
            mass_last: of_head(&last.mass, h),
            mass_pooled: of_head(&pooled.mass, h),
        }
    };
    let kv_head = |kv| budgets(&last.kv_budgets, &pooled.kv_budgets, &rows.kv_heads, kv);
    LayerMeasures {
        heads: (0..rows.heads.len()).map(head).collect(),
        kv_heads: (0..rows.kv_heads.len()).map(kv_head).collect(),
        output_last: last.output,
        output_pooled: pooled.output,
        quantised: Vec::new(),
        window: None,
        residual_cosine: None,
    }
}

/// What was measured of a head; nothing where it was not asked for.
fn of_head<T: Clone>(all: &[Vec<T>], head: usize) -> Vec<T> {
    all.get(head).cloned().unwrap_or_default()
}

fn check_total(total: f64) -> Result<()> {
    if total.is_finite() {
        return Ok(());
    }
    Err(not_finite("attention"))
}

fn not_finite(place: &str) -> Error {
    Error::NotFinite {
        place: place.to_owned(),
        advice: "weights or a capture are damaged, or the type that they were computed in is too narrow for them: try float32"
            .into(),
    }
}

fn add(sums: &mut [f64], more: &[f64]) {
    sums.iter_mut().zip(more).for_each(|(s, m)| *s += m);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::MeasureOptions;

    fn sums(tokens: usize, group: usize, window: usize, threshold: f64) -> WindowSums {
        let run = AttentionRun {
            layer: 0,
            rows: 0..tokens,
            prompt_tokens: tokens,
            query_heads: group,
            kv_heads: 1,
        };
        let options = MeasureOptions {
            thresholds: vec![threshold],
            ..MeasureOptions::default()
        };
        WindowSums::new(&run, window, &Work::of(&options))
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
        for (got, want) in sums.pooled.unwrap().finish().unwrap()[0]
            .iter()
            .zip([0.7, 0.7, 0.6])
        {
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
