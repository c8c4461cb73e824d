//! Q2_K: 256 weights in 84 bytes; 16 share a four-bit scale and minimum, which share a float16 each.

use super::{Block, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q2K;

/// Sixteen weights: the first or the second half of a group.
#[inline(always)]
fn half_group<L: Lanes>(block: &[u8], group: usize, part: usize) -> L::Float {
    let scale = block[2 * group + part];
    let d = L::splat(half::<L>(block, 80) * f32::from(scale & 15));
    let m = L::splat(half::<L>(block, 82) * f32::from(scale >> 4));
    // Four groups lie in the same bytes, two bits each.
    let bytes = lane_bytes(block, 16 + group / 4 * 32 + 16 * part);
    let codes = L::shift_right(L::unsigned(bytes), 2 * (group as u32 % 4));
    L::subtract(L::multiply(d, L::float(L::mask(codes, 3))), m)
}

impl Block for Q2K {
    const BYTES: usize = 84;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        [
            half_group::<L>(block, group, 0),
            half_group::<L>(block, group, 1),
        ]
    }
}
