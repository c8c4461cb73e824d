//! Q4_K: 256 weights in 144 bytes; 32 share a scale and a minimum, which share a float16 each.

use super::super::instructions::Instructions;
use super::k_scales::scale_and_minimum;
use super::{Block, GROUP, half};

pub(super) struct Q4K;

impl Block for Q4K {
    const BYTES: usize = 144;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], group: usize) -> [f32; GROUP] {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let d = half::<I>(block, 0) * scale;
        let m = half::<I>(block, 2) * minimum;
        // Two groups lie in the same bytes, the second in the high nibbles.
        let codes = &block[16 + group / 2 * 32..][..32];
        let shift = 4 * (group as u32 % 2);
        let mut weights = [0f32; GROUP];
        for j in 0..GROUP {
            weights[j] = d * (u32::from(codes[j]) >> shift & 15) as i32 as f32 - m;
        }
        weights
    }
}
