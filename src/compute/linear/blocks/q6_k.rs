//! Q6_K: 256 weights `(q - 32) * s * d` in 210 bytes; 16 share a signed byte as scale.

use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q6K;

/// Sixteen codes from the byte `part` of a group on.
#[inline(always)]
fn half_codes<L: Lanes>(block: &[u8], group: usize, part: usize) -> L::Integer {
    // Four groups are half a block: 64 bytes of nibbles, 32 bytes of upper bits.
    let (quarter, member) = (group / 4, group % 4);
    let low = lane_bytes(block, 64 * quarter + 32 * (member % 2) + part);
    let low = L::shift_right(L::unsigned(low), 4 * (member as u32 / 2));
    let high = lane_bytes(block, 128 + 32 * quarter + part);
    let high = L::shift_right(L::unsigned(high), 2 * member as u32);
    L::join(L::mask(low, 15), L::mask(high, 3), 4)
}

impl Codes for Q6K {
    const BYTES: usize = 210;
    const GROUPS: usize = 8;
    const LARGEST: Option<i32> = Some(63);
    const ZERO: i32 = 32;
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
        let d = half::<L>(block, 208);
        let first = d * f32::from(block[192 + 2 * group] as i8);
        let second = d * f32::from(block[193 + 2 * group] as i8);
        [[first, 0.0], [second, 0.0]]
    }
}
