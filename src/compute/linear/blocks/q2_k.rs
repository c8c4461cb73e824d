//! Q2_K: 256 weights in 84 bytes; 16 share a four-bit scale and minimum, which share a float16 each.

use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q2K;

impl Codes for Q2K {
    const BYTES: usize = 84;
    const GROUPS: usize = 8;
    const HALVES: bool = true;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2] {
        // Four groups lie in the same bytes, two bits each.
        let at = 16 + group / 4 * 32;
        [at, at + 16].map(|at| {
            let codes = L::shift_right(L::unsigned(lane_bytes(block, at)), 2 * (group as u32 % 4));
            L::mask(codes, 3)
        })
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], group: usize) -> [Affine; 2] {
        [2 * group, 2 * group + 1].map(|at| {
            let scale = block[at];
            [
                half::<L>(block, 80) * f32::from(scale & 15),
                -(half::<L>(block, 82) * f32::from(scale >> 4)),
            ]
        })
    }
}
