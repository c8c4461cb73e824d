//! Rows of numbers in few bits: groups of numbers that share a scale, and how they are read back.
//!
//! A [`Packing`] says how many rows are coded together, how many bytes they take and what numbers they stand for; it
//! knows nothing of what the rows mean. Whoever reads packed rows widens a few of them at a time.

mod blocks;
mod by_channel;
mod by_row;
mod codes;
mod hadamard;
mod halves;
mod scale;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::lanes::{Lanes, widest};
use crate::error::Result;

pub(crate) use blocks::BLOCK;
pub use blocks::BlockFormat;
pub(crate) use hadamard::rotate;
pub use scale::Bits;

/// How rows of numbers are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// So many consecutive rows together, every column with a scale and a zero point of its own.
    ByChannel(Bits, usize),
    /// Every row by itself, with a scale and a zero point for so many consecutive columns.
    ByRow(Bits, usize),
    /// Every row by itself, in blocks of 32 columns that llama.cpp reads.
    Blocks(BlockFormat),
    /// Every row by itself in float16, without codes.
    Halves,
}

impl Packing {
    /// Rows that are coded together.
    pub fn rows(self) -> usize {
        match self {
            Self::ByChannel(_, rows) => rows,
            Self::ByRow(..) | Self::Blocks(_) | Self::Halves => 1,
        }
    }

    /// Bytes of the rows that are coded together: codes, scales and zero points.
    pub fn bytes(self, width: usize) -> usize {
        match self {
            Self::ByChannel(bits, rows) => by_channel::bytes(bits, rows, width),
            Self::ByRow(bits, group) => by_row::bytes(bits, group, width),
            Self::Blocks(format) => format.bytes(width),
            Self::Halves => 2 * width,
        }
    }

    /// Codes rows, as many as are coded together or a multiple of it, behind the bytes that are there.
    ///
    /// Shapes: `rows` `(n, width)`. Errors: [`crate::error::Error::NotFinite`] for numbers that float16 scales cannot
    /// reach; those of candle.
    pub(crate) fn pack(self, rows: &[f32], width: usize, to: &mut Vec<u8>) -> Result<()> {
        let mut groups = rows.chunks_exact((self.rows() * width).max(1));
        match self {
            Self::ByChannel(bits, rows) => {
                groups.try_for_each(|group| by_channel::pack(bits, rows, group, to))
            }
            Self::ByRow(bits, size) => groups.try_for_each(|row| by_row::pack(bits, size, row, to)),
            Self::Blocks(format) => format.pack(rows, to),
            Self::Halves => halves::pack(rows, to),
        }
    }

    /// The numbers of some rows.
    ///
    /// Shapes: `to` `(rows, width)`.
    pub(crate) fn unpack(self, packed: &[u8], width: usize, rows: Range<usize>, to: &mut [f32]) {
        let packing = self;
        widest!(unpack_rows(packing: Packing, packed: &[u8], width: usize, rows: Range<usize>, to: &mut [f32]));
    }

    /// [`Packing::unpack`] within code that is compiled for an instruction set already.
    #[inline(always)]
    pub(crate) fn unpack_in<L: Lanes>(
        self,
        packed: &[u8],
        width: usize,
        rows: Range<usize>,
        to: &mut [f32],
    ) {
        match self {
            Self::ByChannel(bits, together) => {
                by_channel::unpack::<L>(bits, together, packed, width, rows, to);
            }
            Self::ByRow(bits, group) => by_row::unpack::<L>(bits, group, packed, width, rows, to),
            Self::Blocks(format) => format.unpack::<L>(packed, width, rows, to),
            Self::Halves => halves::unpack::<L>(packed, width, rows, to),
        }
    }
}

#[inline(always)]
fn unpack_rows<L: Lanes>(
    packing: Packing,
    packed: &[u8],
    width: usize,
    rows: Range<usize>,
    to: &mut [f32],
) {
    packing.unpack_in::<L>(packed, width, rows, to);
}
