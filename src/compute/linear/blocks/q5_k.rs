//! Q5_K: Q4_K with a fifth bit; bit g of byte j belongs to weight j of group g. 176 bytes.

use super::k_scales::scale_and_minimum;
use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q5K;

impl Codes for Q5K {
    const BYTES: usize = 176;
    const GROUPS: usize = 8;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2] {
        let shift = 4 * (group as u32 % 2);
        [0, 16].map(|part| {
            let low = lane_bytes(block, 48 + group / 2 * 32 + part);
            let low = L::shift_right(L::unsigned(low), shift);
            let fifth = L::unsigned(lane_bytes(block, 16 + part));
            let fifth = L::shift_right(fifth, group as u32);
            L::join(L::mask(low, 15), L::mask(fifth, 1), 4)
        })
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
