//! Q5_K: Q4_K with a fifth bit; bit g of byte j belongs to weight j of group g. 176 bytes.

use super::k_scales::scale_and_minimum;
use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q5K;

/// Sixteen codes from the byte `part` of a group on.
#[inline(always)]
fn half_codes<L: Lanes>(block: &[u8], group: usize, part: usize) -> L::Integer {
    let low = L::unsigned(lane_bytes(block, 48 + group / 2 * 32 + part));
    let low = L::shift_right(low, 4 * (group as u32 % 2));
    let fifth = L::shift_right(L::unsigned(lane_bytes(block, 16 + part)), group as u32);
    L::join(L::mask(low, 15), L::mask(fifth, 1), 4)
}

impl Codes for Q5K {
    const BYTES: usize = 176;
    const GROUPS: usize = 8;
    const LARGEST: Option<i32> = Some(31);
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2] {
        [
            half_codes::<L>(block, group, 0),
            half_codes::<L>(block, group, 16),
        ]
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], group: usize) -> [Affine; 2] {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        [[
            half::<L>(block, 0) * scale,
            -(half::<L>(block, 2) * minimum),
        ]; 2]
    }
}
