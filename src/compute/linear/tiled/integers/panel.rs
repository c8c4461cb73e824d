//! Packed weights as panels of integer codes: sixteen rows lie across the lanes, pairs of the width one after another.

use super::super::super::blocks::{Codes, GROUP};
use super::super::PANEL;
use crate::compute::lanes::{LANES, Lanes};

/// Thirty-two weights each of sixteen rows.
#[derive(Clone, Copy, Default)]
pub(in crate::compute) struct GroupPanel {
    /// Two codes of each row, the first in the lower bits.
    pub(super) pairs: [[i32; PANEL]; GROUP / 2],
    /// Scales of the first and the second half; where they share one, the first's.
    pub(super) scales: [[f32; PANEL]; 2],
    /// Minima alike.
    pub(super) minima: [[f32; PANEL]; 2],
}

/// Lays out up to [`PANEL`] packed rows of so many bytes; rows that are missing keep what was there.
#[inline(always)]
pub(super) fn pack<C: Codes, L: Lanes>(rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
    for (r, row) in rows.chunks_exact(row_bytes).take(PANEL).enumerate() {
        let blocks = row.chunks_exact(C::BYTES);
        for (block, groups) in blocks.zip(panel.chunks_exact_mut(C::GROUPS)) {
            for (g, group) in groups.iter_mut().enumerate() {
                let mut codes = [0i16; GROUP];
                let (halves, _) = codes.as_chunks_mut::<LANES>();
                for (to, codes) in halves.iter_mut().zip(C::codes::<L>(block, g)) {
                    L::store_short(codes, C::ZERO, to);
                }
                let pairs = codes.as_chunks::<2>().0;
                for (to, [lower, upper]) in group.pairs.iter_mut().zip(pairs) {
                    to[r] = i32::from(*lower as u16) | i32::from(*upper) << 16;
                }
                for (half, [scale, minimum]) in C::affine::<L>(block, g).into_iter().enumerate() {
                    group.scales[half][r] = scale;
                    group.minima[half][r] = minimum;
                }
            }
        }
    }
}
