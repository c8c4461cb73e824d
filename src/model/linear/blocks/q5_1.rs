//! Q5_1: 32 weights `q * d + m` in 24 bytes; nibbles as in Q4_1, the fifth bits in a word.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half, word};

pub(super) struct Q5_1;

impl Block for Q5_1 {
    const BYTES: usize = 24;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], _: usize) -> [f32; GROUP] {
        let (d, m) = (half::<I>(block, 0), half::<I>(block, 2));
        let high = word(block, 4);
        let codes = &block[8..24];
        let mut weights = [0f32; GROUP];
        for j in 0..16 {
            let code = u32::from(codes[j] & 15) | (high >> j & 1) << 4;
            weights[j] = code as i32 as f32 * d + m;
        }
        for j in 0..16 {
            let code = u32::from(codes[j] >> 4) | (high >> (16 + j) & 1) << 4;
            weights[16 + j] = code as i32 as f32 * d + m;
        }
        weights
    }
}
