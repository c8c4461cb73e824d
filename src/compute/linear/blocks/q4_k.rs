//! Q4_K: 256 weights in 144 bytes; 32 share a scale and a minimum, which share a float16 each.

use super::k_scales::scale_and_minimum;
use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q4K;

impl Codes for Q4K {
    const BYTES: usize = 144;
    const GROUPS: usize = 8;
    const LARGEST: Option<i32> = Some(15);
    const NIBBLES: bool = true;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2] {
        // Two groups lie in the same bytes, the second in the high nibbles.
        let at = 16 + group / 2 * 32;
        let shift = 4 * (group as u32 % 2);
        let first = L::shift_right(L::unsigned(lane_bytes(block, at)), shift);
        let second = L::shift_right(L::unsigned(lane_bytes(block, at + 16)), shift);
        [L::mask(first, 15), L::mask(second, 15)]
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
