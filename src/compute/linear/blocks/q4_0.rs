//! Q4_0: 32 weights `(q - 8) * d` in 18 bytes; low nibbles first, then high ones.

use super::{Block, half, lane_bytes};
use crate::compute::lanes::{Lanes, Nibble};

pub(in crate::compute) struct Q4_0;

impl Nibble for Q4_0 {
    #[inline(always)]
    fn weights<L: Lanes>(codes: L::Float, scale: L::Float, _: L::Float) -> L::Float {
        L::multiply(L::subtract(codes, L::splat(8.0)), scale)
    }
}

impl Block for Q4_0 {
    const BYTES: usize = 18;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        let codes = L::unsigned(lane_bytes(block, 2));
        [
            L::of_nibbles::<Self>(codes, d, d),
            L::of_nibbles::<Self>(L::shift_right(codes, 4), d, d),
        ]
    }
}
