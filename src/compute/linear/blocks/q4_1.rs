//! Q4_1: 32 weights `q * d + m` in 20 bytes; low nibbles first, then high ones.

use super::{Block, half, lane_bytes};
use crate::compute::lanes::{Lanes, Nibble};

pub(in crate::compute) struct Q4_1;

impl Nibble for Q4_1 {
    #[inline(always)]
    fn weights<L: Lanes>(codes: L::Float, scale: L::Float, minimum: L::Float) -> L::Float {
        L::add(L::multiply(codes, scale), minimum)
    }
}

impl Block for Q4_1 {
    const BYTES: usize = 20;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        let m = L::splat(half::<L>(block, 2));
        let codes = L::unsigned(lane_bytes(block, 4));
        [
            L::of_nibbles::<Self>(codes, d, m),
            L::of_nibbles::<Self>(L::shift_right(codes, 4), d, m),
        ]
    }
}
