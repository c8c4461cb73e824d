//! Q5_K: Q4_K with a fifth bit; bit g of byte j belongs to weight j of group g. 176 bytes.

use super::super::instructions::Instructions;
use super::k_scales::scale_and_minimum;
use super::{Block, GROUP, half};

pub(super) struct Q5K;

impl Block for Q5K {
    const BYTES: usize = 176;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], group: usize) -> [f32; GROUP] {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let d = half::<I>(block, 0) * scale;
        let m = half::<I>(block, 2) * minimum;
        let high = &block[16..48];
        let codes = &block[48 + group / 2 * 32..][..32];
        let shift = 4 * (group as u32 % 2);
        let mut weights = [0f32; GROUP];
        for j in 0..GROUP {
            let fifth = (u32::from(high[j]) >> group & 1) << 4;
            let code = (u32::from(codes[j]) >> shift & 15) | fifth;
            weights[j] = d * code as i32 as f32 - m;
        }
        weights
    }
}
