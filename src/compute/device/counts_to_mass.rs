//! MBA of rows of attention, at several thresholds at once.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::numbers;
use super::program::{Argument, Buffer, Launch, Program, Source, size};
use crate::error::{Error, Result};

/// What stands for the budgets of a row with a weight that is negative, infinite or not a number.
pub const NOT_FINITE: u32 = u32::MAX;

/// Thresholds that a kernel looks for at once.
const TOGETHER: usize = 8;

/// Keys of the longest row that a block keeps in shared memory: every device has 48 KiB of it, of which the histograms
/// take 24.3.
const MOST_STAGED: usize = 6_000;

/// Exponents below the largest whose weights count: 2^32 keys of 24 bits add up to less than 2^128.
const REACH: u32 = 71;

/// MBA of every row of every head of a group, and of the rows' means over the heads.
///
/// Paper: ZigZagKV, arXiv 2412.09036 (MBA). Differs: sums are exact and hence have no order, but leave out weights
/// below 2^-71 of the largest: equal to [`crate::profile::Ranked::minimum_budget`] on the same row, but for sums that
/// reach a threshold to the last bits of float64.
/// Shapes: probabilities `(G, rows, keys)`, float32, zero for keys that a query does not see -> `(G + 1, rows,
/// thresholds)`, u32; [`NOT_FINITE`] for rows that are not.
/// Units: keys.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for shapes that no device takes.
pub fn counts_to_mass(probabilities: &Tensor, thresholds: &[f64]) -> Result<Tensor> {
    let op = CountsToMass::new(probabilities.dims3()?, thresholds)?;
    Ok(probabilities.contiguous()?.apply_op1_no_bwd(&op)?)
}

/// [`counts_to_mass`] of one shape.
pub struct CountsToMass {
    group: usize,
    rows: usize,
    keys: usize,
    thresholds: Vec<f64>,
    /// Operands: probabilities, budgets.
    pub program: Program,
}

impl CountsToMass {
    /// For probabilities of a shape `(G, rows, keys)`.
    ///
    /// Errors: as [`counts_to_mass`].
    pub fn new((group, rows, keys): (usize, usize, usize), thresholds: &[f64]) -> Result<Self> {
        if let Some(wrong) = thresholds.iter().find(|t| t.is_nan() || **t < 0.0) {
            return Err(Error::invalid("threshold", wrong, "it must be at least 0"));
        }
        if group == 0 {
            return Err(Error::invalid(
                "size of a group",
                0,
                "it must be at least 1",
            ));
        }
        let mut op = Self {
            group,
            rows,
            keys,
            thresholds: thresholds.to_vec(),
            program: Program::new(Source::CountsToMass),
        };
        if keys > 0 {
            op.launches()?;
        }
        Ok(op)
    }

    fn launches(&mut self) -> Result<()> {
        let stages = self.keys <= MOST_STAGED;
        for (i, thresholds) in self.thresholds.chunks(TOGETHER).enumerate() {
            let mut eight = [0.0; TOGETHER];
            eight[..thresholds.len()].copy_from_slice(thresholds);
            self.program.launch(Launch {
                kernel: "counts_to_mass",
                grid: [
                    size("number of rows", self.rows)?,
                    size("size of a group", self.group + 1)?,
                ],
                threads: match self.keys {
                    0..2048 => 128,
                    2048..16_384 => 256,
                    _ => 512,
                },
                shared: if stages { 4 * self.keys as u32 } else { 0 },
                arguments: vec![
                    Buffer::Operand(0).into(),
                    Buffer::Operand(1).into(),
                    size("size of a group", self.group)?.into(),
                    size("number of keys", self.keys)?.into(),
                    u32::from(stages).into(),
                    Argument::Eight(eight),
                    (thresholds.len() as u32).into(),
                    size("number of thresholds", i * TOGETHER)?.into(),
                    size("number of thresholds", self.thresholds.len())?.into(),
                ],
            })?;
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        (self.group + 1, self.rows, self.thresholds.len()).into()
    }
}

impl CustomOp1 for CountsToMass {
    fn name(&self) -> &'static str {
        "counts_to_mass"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let probabilities = numbers::<f32>(storage, layout, self.name())?;
        let (rows, keys) = (self.rows, self.keys);
        let mut budgets = Vec::with_capacity(self.shape().elem_count());
        let row = |head: usize, row: usize| &probabilities[(head * rows + row) * keys..][..keys];
        for head in 0..self.group {
            for r in 0..rows {
                budgets.extend(budgets_of(row(head, r), &self.thresholds));
            }
        }
        for r in 0..rows {
            let lines: Vec<&[f32]> = (0..self.group).map(|head| row(head, r)).collect();
            budgets.extend(budgets_of(&mean_of(&lines, keys), &self.thresholds));
        }
        Ok((CpuStorage::U32(budgets), self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{Operand, run, start};
        let device = &storage.device;
        let stream = device.cuda_stream();
        let probabilities = storage.as_cuda_slice::<f32>()?;
        let mut budgets = device.alloc_zeros::<u32>(self.shape().elem_count())?;
        let operands = [
            Operand::read(probabilities, start(layout, self.name())?, &stream),
            Operand::write(&mut budgets, 0, &stream),
        ];
        run(&self.program, device, &operands)?;
        drop(operands);
        let budgets = candle_core::CudaStorage::wrap_cuda_slice(budgets, device.clone());
        Ok((budgets, self.shape()))
    }
}

/// The mean of a group's rows, rounded once.
fn mean_of(lines: &[&[f32]], keys: usize) -> Vec<f32> {
    let sum = |key: usize| lines.iter().map(|line| f64::from(line[key])).sum::<f64>();
    (0..keys)
        .map(|key| (sum(key) / lines.len() as f64) as f32)
        .collect()
}

/// The budgets of one row, by sorting.
fn budgets_of(row: &[f32], thresholds: &[f64]) -> Vec<u32> {
    if row.iter().any(|w| !w.is_finite() || *w < 0.0) {
        return vec![NOT_FINITE; thresholds.len()];
    }
    let mut sorted: Vec<u32> = row.iter().map(|w| (w + 0.0).to_bits()).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let largest = sorted.first().map_or(1, |&bits| unit_of(bits));
    let mut sum = 0;
    let sums: Vec<u128> = (sorted.iter())
        .map(|&bits| {
            sum += whole(bits, largest);
            sum
        })
        .collect();
    (thresholds.iter())
        .map(|&threshold| {
            let target = target_of(threshold, sum);
            let kept = sums.partition_point(|&s| s < target) + 1;
            kept.min(row.len()) as u32
        })
        .collect()
}

/// The exponent of the unit that a weight, given by its bits, is a multiple of.
fn unit_of(bits: u32) -> u32 {
    (bits >> 23).max(1)
}

/// A weight, given by its bits, as a multiple of 2^-71 of the largest one's unit; nothing for those below it.
fn whole(bits: u32, largest: u32) -> u128 {
    let hidden = if bits >> 23 == 0 { 0 } else { 1 << 23 };
    let mantissa = u128::from(bits & 0x7f_ffff | hidden);
    match largest - unit_of(bits) {
        below @ 0..=REACH => mantissa << (REACH - below),
        _ => 0,
    }
}

/// The sum that a threshold asks for, of 62 significant bits.
fn target_of(threshold: f64, total: u128) -> u128 {
    let by = (128 - total.leading_zeros()).saturating_sub(62);
    let rounded = (total >> by) as u64 as f64;
    let wanted = (threshold * rounded).ceil();
    match threshold < 1.0 && wanted < rounded {
        true => u128::from(wanted as u64) << by,
        false => total,
    }
}
