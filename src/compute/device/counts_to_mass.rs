//! How many of a row's largest numbers reach shares of its sum, for several shares at once.

use candle_core::{CpuStorage, DType, Tensor};

use super::operation::{OnCpu, Operation};
use super::program::{Argument, Buffer, Launch, Program, size, source};
use crate::error::{Error, Result};

/// What stands for the counts of a row with a number that is negative, infinite or none.
pub const NOT_FINITE: u32 = u32::MAX;

/// Shares that a kernel looks for at once.
const TOGETHER: usize = 8;

/// Numbers of the longest row that a block keeps in shared memory: every device has 48 KiB of it, of which the
/// histograms take 24.3.
const MOST_STAGED: usize = 6_000;

/// Exponents below the largest whose numbers count: 2^32 numbers of 24 bits add up to less than 2^128.
const REACH: u32 = 71;

/// The fewest numbers that hold a share of their row's sum, of every row of some matrices and of the rows' means over
/// the matrices.
///
/// Differs: sums are exact and hence have no order, but leave out numbers below 2^-71 of the largest: equal to counting
/// in float64 over sorted numbers, but for sums that reach a share to the last bits of it.
/// Shapes: `(matrices, rows, columns)`, float32 -> `(matrices + 1, rows, shares)`, u32; [`NOT_FINITE`] for rows with
/// numbers that are not.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for shapes that no device takes, and shares below 0.
pub fn counts_to_mass(numbers: &Tensor, shares: &[f64]) -> Result<Tensor> {
    CountsToMass::new(numbers.dims3()?, shares)?.run(&[numbers])
}

/// [`counts_to_mass`] of one shape.
pub struct CountsToMass {
    /// Matrices, rows, columns.
    dims: (usize, usize, usize),
    shares: Vec<f64>,
    /// Operands: numbers, counts.
    pub program: Program,
}

impl CountsToMass {
    /// For numbers of a shape `(matrices, rows, columns)`.
    ///
    /// Errors: as [`counts_to_mass`].
    pub fn new(dims: (usize, usize, usize), shares: &[f64]) -> Result<Self> {
        let (matrices, rows, columns) = dims;
        if let Some(wrong) = shares.iter().find(|share| share.is_nan() || **share < 0.0) {
            return Err(Error::invalid("threshold", wrong, "it must be at least 0"));
        }
        if matrices == 0 {
            return Err(Error::invalid(
                "size of a group",
                0,
                "it must be at least 1",
            ));
        }
        let output = (DType::U32, (matrices + 1, rows, shares.len()));
        let mut op = Self {
            dims,
            shares: shares.to_vec(),
            program: Program::new(source!("counts_to_mass"), [DType::F32], output),
        };
        if columns > 0 {
            op.launches()?;
        }
        Ok(op)
    }

    fn launches(&mut self) -> Result<()> {
        let (matrices, rows, columns) = self.dims;
        let stages = columns <= MOST_STAGED;
        for (i, shares) in self.shares.chunks(TOGETHER).enumerate() {
            let mut eight = [0.0; TOGETHER];
            eight[..shares.len()].copy_from_slice(shares);
            self.program.launch(Launch {
                kernel: "counts_to_mass",
                grid: [
                    size("number of rows", rows)?,
                    size("size of a group", matrices + 1)?,
                ],
                threads: match columns {
                    0..2048 => 128,
                    2048..16_384 => 256,
                    _ => 512,
                },
                shared: if stages { 4 * columns as u32 } else { 0 },
                arguments: vec![
                    Buffer::Operand(0).into(),
                    Buffer::Operand(1).into(),
                    size("size of a group", matrices)?.into(),
                    size("number of columns", columns)?.into(),
                    u32::from(stages).into(),
                    Argument::Eight(eight),
                    (shares.len() as u32).into(),
                    size("number of thresholds", i * TOGETHER)?.into(),
                    size("number of thresholds", self.shares.len())?.into(),
                ],
            })?;
        }
        Ok(())
    }
}

impl Operation for CountsToMass {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let (group, rows, columns) = self.dims;
        let numbers = operands.numbers::<f32>(0)?;
        let mut counts = Vec::with_capacity(self.program.output.1.elem_count());
        let row = |m: usize, row: usize| &numbers[(m * rows + row) * columns..][..columns];
        for m in 0..group {
            for r in 0..rows {
                counts.extend(counts_of(row(m, r), &self.shares));
            }
        }
        for r in 0..rows {
            let lines: Vec<&[f32]> = (0..group).map(|m| row(m, r)).collect();
            counts.extend(counts_of(&mean_of(&lines, columns), &self.shares));
        }
        Ok(CpuStorage::U32(counts))
    }
}

/// The mean of some rows, rounded once.
fn mean_of(rows: &[&[f32]], columns: usize) -> Vec<f32> {
    let sum = |column: usize| rows.iter().map(|row| f64::from(row[column])).sum::<f64>();
    (0..columns)
        .map(|column| (sum(column) / rows.len() as f64) as f32)
        .collect()
}

/// The counts of one row, by sorting.
fn counts_of(row: &[f32], shares: &[f64]) -> Vec<u32> {
    if row.iter().any(|x| !x.is_finite() || *x < 0.0) {
        return vec![NOT_FINITE; shares.len()];
    }
    let mut sorted: Vec<u32> = row.iter().map(|x| (x + 0.0).to_bits()).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let largest = sorted.first().map_or(1, |&bits| unit_of(bits));
    let mut sum = 0;
    let sums: Vec<u128> = (sorted.iter())
        .map(|&bits| {
            sum += whole(bits, largest);
            sum
        })
        .collect();
    (shares.iter())
        .map(|&share| {
            let target = target_of(share, sum);
            let kept = sums.partition_point(|&s| s < target) + 1;
            kept.min(row.len()) as u32
        })
        .collect()
}

/// The exponent of the unit that a number, given by its bits, is a multiple of.
fn unit_of(bits: u32) -> u32 {
    (bits >> 23).max(1)
}

/// A number, given by its bits, as a multiple of 2^-71 of the largest one's unit; nothing for those below it.
fn whole(bits: u32, largest: u32) -> u128 {
    let hidden = if bits >> 23 == 0 { 0 } else { 1 << 23 };
    let mantissa = u128::from(bits & 0x7f_ffff | hidden);
    match largest - unit_of(bits) {
        below @ 0..=REACH => mantissa << (REACH - below),
        _ => 0,
    }
}

/// The sum that a share of the total asks for, of 62 significant bits.
fn target_of(share: f64, total: u128) -> u128 {
    let by = (128 - total.leading_zeros()).saturating_sub(62);
    let rounded = (total >> by) as u64 as f64;
    let wanted = (share * rounded).ceil();
    if share < 1.0 && wanted < rounded {
        u128::from(wanted as u64) << by
    } else {
        total
    }
}
