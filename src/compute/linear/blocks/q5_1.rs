//! Q5_1: 32 weights `q * d + m` in 24 bytes; nibbles as in Q4_1, the fifth bits in a word.

use super::{Block, half, lane_bytes, word};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q5_1;

#[inline(always)]
fn weights<L: Lanes>(nibbles: L::Integer, fifth: u32, d: L::Float, m: L::Float) -> L::Float {
    let codes = L::join(nibbles, L::bits(fifth), 4);
    L::add(L::multiply(L::float(codes), d), m)
}

impl Block for Q5_1 {
    const BYTES: usize = 24;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        let m = L::splat(half::<L>(block, 2));
        let fifth = word(block, 4);
        let codes = L::unsigned(lane_bytes(block, 8));
        [
            weights::<L>(L::mask(codes, 15), fifth, d, m),
            weights::<L>(L::shift_right(codes, 4), fifth >> 16, d, m),
        ]
    }
}
