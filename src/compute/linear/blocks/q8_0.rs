//! Q8_0: 32 weights `q * d` in 34 bytes, q signed.

use super::{Affine, Codes, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q8_0;

impl Codes for Q8_0 {
    const BYTES: usize = 34;
    const GROUPS: usize = 1;
    const LARGEST: Option<i32> = None;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], _: usize) -> [L::Integer; 2] {
        [
            L::signed(lane_bytes(block, 2)),
            L::signed(lane_bytes(block, 18)),
        ]
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], _: usize) -> [Affine; 2] {
        [[half::<L>(block, 0), 0.0]; 2]
    }
}
