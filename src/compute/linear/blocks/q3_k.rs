//! Q3_K: 256 weights `q * (s - 32) * d` in 110 bytes, q in -4..=3; 16 share a six-bit scale.

use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q3K;

/// Scale `index` of sixteen: a nibble of the first eight bytes, two bits of the last four.
#[inline(always)]
fn scale(packed: &[u8], index: usize) -> f32 {
    let low = packed[index % 8] >> (4 * (index / 8)) & 15;
    let high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
    f32::from(low | high << 4) - 32.0
}

/// Sixteen codes from the byte `part` of a group on.
#[inline(always)]
fn half_codes<L: Lanes>(block: &[u8], group: usize, part: usize) -> L::Integer {
    let low = lane_bytes(block, 32 + group / 4 * 32 + part);
    let low = L::shift_right(L::unsigned(low), 2 * (group as u32 % 4));
    // Bit g of byte j belongs to weight j of group g: without it the weight is 4 lower.
    let high = L::shift_right(L::unsigned(lane_bytes(block, part)), group as u32);
    L::join(L::mask(low, 3), L::mask(high, 1), 2)
}

impl Codes for Q3K {
    const BYTES: usize = 110;
    const GROUPS: usize = 8;
    const LARGEST: Option<i32> = Some(7);
    const ZERO: i32 = 4;
    const HALVES: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2] {
        [
            half_codes::<L>(block, group, 0),
            half_codes::<L>(block, group, 16),
        ]
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], group: usize) -> [Affine; 2] {
        let d = half::<L>(block, 108);
        let first = d * scale(&block[96..108], 2 * group);
        let second = d * scale(&block[96..108], 2 * group + 1);
        [[first, 0.0], [second, 0.0]]
    }
}
