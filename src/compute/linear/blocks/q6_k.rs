//! Q6_K: 256 weights `(q - 32) * s * d` in 210 bytes; 16 share a signed byte as scale.

use super::{Block, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q6K;

/// Sixteen weights: the first or the second half of a group.
#[inline(always)]
fn half_group<L: Lanes>(block: &[u8], group: usize, part: usize) -> L::Float {
    let d = L::splat(half::<L>(block, 208) * f32::from(block[192 + 2 * group + part] as i8));
    // Four groups are half a block: 64 bytes of nibbles, 32 bytes of upper bits.
    let (quarter, member) = (group / 4, group % 4);
    let low = lane_bytes(block, 64 * quarter + 32 * (member % 2) + 16 * part);
    let low = L::shift_right(L::unsigned(low), 4 * (member as u32 / 2));
    let high = lane_bytes(block, 128 + 32 * quarter + 16 * part);
    let high = L::shift_right(L::unsigned(high), 2 * member as u32);
    let codes = L::join(L::mask(low, 15), L::mask(high, 3), 4);
    L::multiply(d, L::subtract(L::float(codes), L::splat(32.0)))
}

impl Block for Q6K {
    const BYTES: usize = 210;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        [
            half_group::<L>(block, group, 0),
            half_group::<L>(block, group, 1),
        ]
    }
}
