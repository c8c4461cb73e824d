//! Q4_K: 256 weights in 144 bytes; 32 share a scale and a minimum, which share a float16 each.

use super::k_scales::scale_and_minimum;
use super::{Block, half, lane_bytes};
use crate::compute::lanes::{Lanes, Nibble};

pub(super) struct Q4K;

impl Nibble for Q4K {
    #[inline(always)]
    fn weights<L: Lanes>(codes: L::Float, scale: L::Float, minimum: L::Float) -> L::Float {
        L::subtract(L::multiply(scale, codes), minimum)
    }
}

impl Block for Q4K {
    const BYTES: usize = 144;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let d = L::splat(half::<L>(block, 0) * scale);
        let m = L::splat(half::<L>(block, 2) * minimum);
        // Two groups lie in the same bytes, the second in the high nibbles.
        let at = 16 + group / 2 * 32;
        let shift = 4 * (group as u32 % 2);
        let first = L::unsigned(lane_bytes(block, at));
        let second = L::unsigned(lane_bytes(block, at + 16));
        [
            L::of_nibbles::<Self>(L::shift_right(first, shift), d, m),
            L::of_nibbles::<Self>(L::shift_right(second, shift), d, m),
        ]
    }
}
