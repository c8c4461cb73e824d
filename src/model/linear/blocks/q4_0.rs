//! Q4_0: 32 weights `(q - 8) * d` in 18 bytes; low nibbles first, then high ones.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half};

pub(super) struct Q4_0;

impl Block for Q4_0 {
    const BYTES: usize = 18;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], _: usize) -> [f32; GROUP] {
        let d = half::<I>(block, 0);
        let codes = &block[2..18];
        let mut weights = [0f32; GROUP];
        for j in 0..16 {
            weights[j] = (i32::from(codes[j] & 15) - 8) as f32 * d;
        }
        for j in 0..16 {
            weights[16 + j] = (i32::from(codes[j] >> 4) - 8) as f32 * d;
        }
        weights
    }
}
