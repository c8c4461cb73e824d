//! Q4_1: 32 weights `q * d + m` in 20 bytes; low nibbles first, then high ones.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half};

pub(super) struct Q4_1;

impl Block for Q4_1 {
    const BYTES: usize = 20;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], _: usize) -> [f32; GROUP] {
        let (d, m) = (half::<I>(block, 0), half::<I>(block, 2));
        let codes = &block[4..20];
        let mut weights = [0f32; GROUP];
        for j in 0..16 {
            weights[j] = f32::from(codes[j] & 15) * d + m;
        }
        for j in 0..16 {
            weights[16 + j] = f32::from(codes[j] >> 4) * d + m;
        }
        weights
    }
}
