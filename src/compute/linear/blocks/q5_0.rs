//! Q5_0: 32 weights `(q - 16) * d` in 22 bytes; nibbles as in Q4_0, the fifth bits in a word.

use super::{Block, half, lane_bytes, word};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q5_0;

#[inline(always)]
fn weights<L: Lanes>(nibbles: L::Integer, fifth: u32, d: L::Float) -> L::Float {
    let codes = L::join(nibbles, L::bits(fifth), 4);
    L::multiply(L::subtract(L::float(codes), L::splat(16.0)), d)
}

impl Block for Q5_0 {
    const BYTES: usize = 22;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        let fifth = word(block, 2);
        let codes = L::unsigned(lane_bytes(block, 6));
        [
            weights::<L>(L::mask(codes, 15), fifth, d),
            weights::<L>(L::shift_right(codes, 4), fifth >> 16, d),
        ]
    }
}
