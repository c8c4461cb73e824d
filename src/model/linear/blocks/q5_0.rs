//! Q5_0: 32 weights `(q - 16) * d` in 22 bytes; nibbles as in Q4_0, the fifth bits in a word.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half, word};

pub(super) struct Q5_0;

impl Block for Q5_0 {
    const BYTES: usize = 22;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], _: usize) -> [f32; GROUP] {
        let d = half::<I>(block, 0);
        let high = word(block, 2);
        let codes = &block[6..22];
        let mut weights = [0f32; GROUP];
        for j in 0..16 {
            let code = u32::from(codes[j] & 15) | (high >> j & 1) << 4;
            weights[j] = (code as i32 - 16) as f32 * d;
        }
        for j in 0..16 {
            let code = u32::from(codes[j] >> 4) | (high >> (16 + j) & 1) << 4;
            weights[16 + j] = (code as i32 - 16) as f32 * d;
        }
        weights
    }
}
