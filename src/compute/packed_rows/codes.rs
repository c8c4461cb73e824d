//! Codes of 8, 4 or 2 bits one after another, the lowest bits first.

use super::scale::Bits;
use crate::compute::lanes::{LANES, Lanes};

/// Bytes of [`LANES`] codes.
pub(super) const fn lane_bytes(bits: usize) -> usize {
    LANES * bits / 8
}

/// Bytes of a row of codes; the last lanes may stay empty.
pub(super) fn row_bytes(bits: Bits, width: usize) -> usize {
    width.div_ceil(LANES) * lane_bytes(bits.count())
}

/// Writes the codes of a row behind what is there.
pub(super) fn push(bits: Bits, codes: impl Iterator<Item = u8>, width: usize, to: &mut Vec<u8>) {
    let start = to.len();
    to.resize(start + row_bytes(bits, width), 0);
    let count = bits.count();
    for (i, code) in codes.enumerate() {
        let bit = i * count;
        to[start + bit / 8] |= code << (bit % 8);
    }
}

/// One code of a row.
#[inline(always)]
pub(super) fn one(bits: Bits, row: &[u8], column: usize) -> u8 {
    let bit = column * bits.count();
    (row[bit / 8] >> (bit % 8)) & bits.largest()
}

/// The codes of [`LANES`] columns from `chunk` times as many on, as float32.
#[inline(always)]
pub(super) fn lanes<L: Lanes>(bits: Bits, row: &[u8], chunk: usize) -> L::Float {
    let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    let from = chunk * lane_bytes(bits.count());
    L::float(match bits {
        Bits::Eight => {
            let (bytes, _) = row[from..from + LANES].as_chunks::<LANES>();
            L::unsigned(&bytes[0])
        }
        Bits::Four => L::nibbles([word(from), word(from + 4)]),
        Bits::Two => L::pairs(word(from)),
    })
}
