//! Numbers in float16: whole rows of them, and those that scale codes.

use std::ops::Range;

use half::f16;

use crate::compute::lanes::{LANES, Lanes};
use crate::error::{Error, Result};

/// Writes a row in float16 behind what is there.
pub(super) fn pack(row: &[f32], to: &mut Vec<u8>) -> Result<()> {
    for &x in row {
        let rounded = f16::from_f32(x);
        if !rounded.is_finite() {
            return Err(Error::NotFinite {
                place: "a row to be held in float16".into(),
                advice: "float16 ends at 65504: hold keys and values in bf16 or f32".into(),
            });
        }
        to.extend(rounded.to_le_bytes());
    }
    Ok(())
}

#[inline(always)]
pub(super) fn unpack<L: Lanes>(packed: &[u8], width: usize, rows: Range<usize>, to: &mut [f32]) {
    let packed = &packed[2 * rows.start * width..2 * rows.end * width];
    let (vectors, rest) = to.as_chunks_mut::<LANES>();
    let whole = vectors.len() * LANES;
    for (chunk, vector) in vectors.iter_mut().enumerate() {
        L::store(halves_at::<L>(packed, chunk), vector);
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = half_at::<L>(packed, 2 * (whole + i));
    }
}

/// The float16 whose bytes begin at `at`.
#[inline(always)]
pub(super) fn half_at<L: Lanes>(bytes: &[u8], at: usize) -> f32 {
    L::half(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// [`LANES`] float16 from `chunk` times as many on.
#[inline(always)]
pub(super) fn halves_at<L: Lanes>(bytes: &[u8], chunk: usize) -> L::Float {
    let (pairs, _) = bytes[2 * chunk * LANES..].as_chunks::<2>();
    let mut halves = [f16::ZERO; LANES];
    for (half, pair) in halves.iter_mut().zip(pairs) {
        *half = f16::from_le_bytes(*pair);
    }
    L::load_f16(&halves)
}
