//! Several rows together: every column has a scale and a zero point of its own.

use std::ops::Range;

use super::codes;
use super::halves::{half_at, halves_at};
use super::scale::{Bits, LEVELS_BYTES, Levels};
use crate::compute::lanes::{LANES, Lanes};
use crate::error::Result;

/// Bytes of a group: scales of all columns, their zero points, then the codes row by row.
pub(super) fn bytes(bits: Bits, rows: usize, width: usize) -> usize {
    width * LEVELS_BYTES + rows * codes::row_bytes(bits, width)
}

pub(super) fn pack(bits: Bits, rows: usize, group: &[f32], to: &mut Vec<u8>) -> Result<()> {
    let width = group.len() / rows.max(1);
    let column = |c: usize| group.iter().skip(c).step_by(width).copied();
    let levels = (0..width).map(|c| Levels::spanning(column(c), bits));
    let levels = levels.collect::<Result<Vec<_>>>()?;
    to.extend(levels.iter().flat_map(|l| l.scale.to_le_bytes()));
    to.extend(levels.iter().flat_map(|l| l.least.to_le_bytes()));
    for row in group.chunks_exact(width.max(1)) {
        let coded = row.iter().zip(&levels);
        let coded = coded.map(|(&x, levels)| levels.code(x, bits));
        codes::push(bits, coded, width, to);
    }
    Ok(())
}

#[inline(always)]
pub(super) fn unpack<L: Lanes>(
    bits: Bits,
    together: usize,
    packed: &[u8],
    width: usize,
    rows: Range<usize>,
    to: &mut [f32],
) {
    let size = bytes(bits, together, width);
    let mut row = rows.start;
    let mut to = to;
    while row < rows.end {
        let group = row / together;
        let end = rows.end.min((group + 1) * together);
        let (now, later) = to.split_at_mut((end - row) * width);
        let within = row - group * together..end - group * together;
        unpack_group::<L>(bits, &packed[group * size..][..size], width, within, now);
        (row, to) = (end, later);
    }
}

/// Some rows of one group.
#[inline(always)]
fn unpack_group<L: Lanes>(
    bits: Bits,
    packed: &[u8],
    width: usize,
    rows: Range<usize>,
    to: &mut [f32],
) {
    let (levels, codes) = packed.split_at(width * LEVELS_BYTES);
    let (scales, leasts) = levels.split_at(levels.len() / 2);
    let size = codes::row_bytes(bits, width);
    let codes = &codes[rows.start * size..rows.end * size];
    if !width.is_multiple_of(LANES) {
        for (codes, to) in codes.chunks_exact(size).zip(to.chunks_exact_mut(width)) {
            for (column, x) in to.iter_mut().enumerate() {
                let scale = half_at::<L>(scales, 2 * column);
                *x = f32::from(codes::one(bits, codes, column)) * scale
                    + half_at::<L>(leasts, 2 * column);
            }
        }
        return;
    }
    for chunk in 0..width / LANES {
        let scale = halves_at::<L>(scales, chunk);
        let least = halves_at::<L>(leasts, chunk);
        for (codes, to) in codes.chunks_exact(size).zip(to.chunks_exact_mut(width)) {
            let codes = codes::lanes::<L>(bits, codes, chunk);
            let (vectors, _) = to.as_chunks_mut::<LANES>();
            L::store(L::multiply_add(codes, scale, least), &mut vectors[chunk]);
        }
    }
}
