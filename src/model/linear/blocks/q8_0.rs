//! Q8_0: 32 weights `q * d` in 34 bytes, q signed.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half};

pub(super) struct Q8_0;

impl Block for Q8_0 {
    const BYTES: usize = 34;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], _: usize) -> [f32; GROUP] {
        let d = half::<I>(block, 0);
        let codes = &block[2..34];
        let mut weights = [0f32; GROUP];
        for j in 0..GROUP {
            weights[j] = f32::from(codes[j] as i8) * d;
        }
        weights
    }
}
