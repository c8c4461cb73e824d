//! Q8_0: 32 weights `q * d` in 34 bytes, q signed.

use super::{Block, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q8_0;

impl Block for Q8_0 {
    const BYTES: usize = 34;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        [
            L::multiply(L::float(L::signed(lane_bytes(block, 2))), d),
            L::multiply(L::float(L::signed(lane_bytes(block, 18))), d),
        ]
    }
}
