//! Q3_K: 256 weights `q * (s - 32) * d` in 110 bytes, q in -4..=3; 16 share a six-bit scale.

use super::{Block, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q3K;

/// Scale `index` of sixteen: a nibble of the first eight bytes, two bits of the last four.
#[inline(always)]
fn scale(packed: &[u8], index: usize) -> f32 {
    let low = packed[index % 8] >> (4 * (index / 8)) & 15;
    let high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
    f32::from(low | high << 4) - 32.0
}

/// Sixteen weights: the first or the second half of a group.
#[inline(always)]
fn half_group<L: Lanes>(block: &[u8], group: usize, part: usize) -> L::Float {
    let d = L::splat(half::<L>(block, 108) * scale(&block[96..108], 2 * group + part));
    let low = lane_bytes(block, 32 + group / 4 * 32 + 16 * part);
    let low = L::shift_right(L::unsigned(low), 2 * (group as u32 % 4));
    // Bit g of byte j belongs to weight j of group g: without it the weight is 4 lower.
    let high = L::shift_right(L::unsigned(lane_bytes(block, 16 * part)), group as u32);
    let codes = L::join(L::mask(low, 3), L::mask(high, 1), 2);
    L::multiply(d, L::subtract(L::float(codes), L::splat(4.0)))
}

impl Block for Q3K {
    const BYTES: usize = 110;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        [
            half_group::<L>(block, group, 0),
            half_group::<L>(block, group, 1),
        ]
    }
}
