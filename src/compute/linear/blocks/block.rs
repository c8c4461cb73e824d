//! What a format of packed weights says of itself.

use crate::compute::lanes::{LANES, Lanes};

/// Weights that are unpacked together.
pub(in crate::compute) const GROUP: usize = 2 * LANES;

/// How a format stores consecutive weights of a row.
pub(in crate::compute) trait Block {
    /// Bytes of a block.
    const BYTES: usize;
    /// Groups of [`GROUP`] weights in a block.
    const GROUPS: usize;

    /// The float32 weights of one group, with the roundings of candle's `to_float`.
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2];
}
