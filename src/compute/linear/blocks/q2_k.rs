//! Q2_K: 256 weights in 84 bytes; 16 share a four-bit scale and minimum, which share a float16 each.

use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q2K;

impl Codes for Q2K {
    const BYTES: usize = 84;
    const GROUPS: usize = 8;
    const LARGEST: Option<i32> = Some(3);
    const HALVES: bool = true;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2] {
        // Four groups lie in the same bytes, two bits each.
        let at = 16 + group / 4 * 32;
        let by = 2 * (group as u32 % 4);
        let first = L::shift_right(L::unsigned(lane_bytes(block, at)), by);
        let second = L::shift_right(L::unsigned(lane_bytes(block, at + 16)), by);
        [L::mask(first, 3), L::mask(second, 3)]
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], group: usize) -> [Affine; 2] {
        let (d, m) = (half::<L>(block, 80), half::<L>(block, 82));
        let (first, second) = (block[2 * group], block[2 * group + 1]);
        [
            [d * f32::from(first & 15), -(m * f32::from(first >> 4))],
            [d * f32::from(second & 15), -(m * f32::from(second >> 4))],
        ]
    }
}
