//! Every row by itself: a scale and a zero point for a few consecutive columns.

use std::ops::Range;

use super::codes;
use super::halves::half_at;
use super::scale::{Bits, LEVELS_BYTES, Levels};
use crate::compute::lanes::{LANES, Lanes};
use crate::error::Result;

/// Levels of the groups of a row.
fn levels_bytes(group: usize, width: usize) -> usize {
    width.div_ceil(group.max(1)) * LEVELS_BYTES
}

/// Bytes of a row: the levels of its groups, then its codes.
pub(super) fn bytes(bits: Bits, group: usize, width: usize) -> usize {
    levels_bytes(group, width) + codes::row_bytes(bits, width)
}

pub(super) fn pack(bits: Bits, group: usize, row: &[f32], to: &mut Vec<u8>) -> Result<()> {
    let groups = row.chunks(group.max(1));
    let levels = groups
        .clone()
        .map(|g| Levels::spanning(g.iter().copied(), bits));
    let levels = levels.collect::<Result<Vec<_>>>()?;
    for levels in &levels {
        to.extend(levels.scale.to_le_bytes());
        to.extend(levels.least.to_le_bytes());
    }
    let coded = groups.zip(&levels);
    let coded = coded.flat_map(|(g, levels)| g.iter().map(|&x| levels.code(x, bits)));
    codes::push(bits, coded, row.len(), to);
    Ok(())
}

#[inline(always)]
pub(super) fn unpack<L: Lanes>(
    bits: Bits,
    group: usize,
    packed: &[u8],
    width: usize,
    rows: Range<usize>,
    to: &mut [f32],
) {
    let (size, levels) = (bytes(bits, group, width), levels_bytes(group, width));
    let packed = packed[rows.start * size..rows.end * size].chunks_exact(size.max(1));
    for (packed, to) in packed.zip(to.chunks_exact_mut(width.max(1))) {
        let (levels, codes) = packed.split_at(levels);
        let level = |g: usize| {
            let at = g * LEVELS_BYTES;
            (half_at::<L>(levels, at), half_at::<L>(levels, at + 2))
        };
        if group.is_multiple_of(LANES) && width.is_multiple_of(LANES) {
            let (vectors, _) = to.as_chunks_mut::<LANES>();
            for (chunk, vector) in vectors.iter_mut().enumerate() {
                let (scale, least) = level(chunk * LANES / group);
                let codes = codes::lanes::<L>(bits, codes, chunk);
                let numbers = L::multiply_add(codes, L::splat(scale), L::splat(least));
                L::store(numbers, vector);
            }
        } else {
            for (column, x) in to.iter_mut().enumerate() {
                let (scale, least) = level(column / group.max(1));
                *x = f32::from(codes::one(bits, codes, column)) * scale + least;
            }
        }
    }
}
