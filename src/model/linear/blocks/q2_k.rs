//! Q2_K: 256 weights in 84 bytes; 16 share a four-bit scale and minimum, which share a float16 each.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half};

pub(super) struct Q2K;

impl Block for Q2K {
    const BYTES: usize = 84;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], group: usize) -> [f32; GROUP] {
        let (d, minimum) = (half::<I>(block, 80), half::<I>(block, 82));
        // Four groups lie in the same bytes, two bits each.
        let codes = &block[16 + group / 4 * 32..][..32];
        let shift = 2 * (group as u32 % 4);
        let mut weights = [0f32; GROUP];
        for part in 0..2 {
            let scale = block[2 * group + part];
            let (d, m) = (d * f32::from(scale & 15), minimum * f32::from(scale >> 4));
            for j in 16 * part..16 * part + 16 {
                weights[j] = d * (u32::from(codes[j]) >> shift & 3) as i32 as f32 - m;
            }
        }
        weights
    }
}
