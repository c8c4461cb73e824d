//! Rows of a matrix copied over others, in place.

use candle_core::{CpuStorage, Error, InplaceOp1, Layout, Result};

/// Copies row `from` over row `to` for every pair, in this order, of a contiguous matrix.
pub(super) struct MovedRows<'a>(pub &'a [(usize, usize)]);

impl InplaceOp1 for MovedRows<'_> {
    fn name(&self) -> &'static str {
        "moved-rows"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (rows, width) = layout.shape().dims2()?;
        let Some((start, _)) = layout.contiguous_offsets() else {
            return Err(Error::msg("rows are moved within contiguous matrices only"));
        };
        if self.0.iter().any(|&(from, to)| from.max(to) >= rows) {
            return Err(Error::msg("a row to be moved lies outside the matrix"));
        }
        match storage {
            CpuStorage::F32(numbers) => self.apply(&mut numbers[start..], width),
            CpuStorage::BF16(numbers) => self.apply(&mut numbers[start..], width),
            CpuStorage::F16(numbers) => self.apply(&mut numbers[start..], width),
            _ => return Err(Error::msg("rows of this type are not moved")),
        }
        Ok(())
    }
}

impl MovedRows<'_> {
    fn apply<T: Copy>(&self, numbers: &mut [T], width: usize) {
        for &(from, to) in self.0 {
            numbers.copy_within(from * width..(from + 1) * width, to * width);
        }
    }
}
