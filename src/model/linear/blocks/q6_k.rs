//! Q6_K: 256 weights `(q - 32) * s * d` in 210 bytes; 16 share a signed byte as scale.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half};

pub(super) struct Q6K;

impl Block for Q6K {
    const BYTES: usize = 210;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], group: usize) -> [f32; GROUP] {
        let d = half::<I>(block, 208);
        // Half a block: 64 bytes of nibbles and 32 bytes of upper bits for its four groups.
        let (part, member) = (group / 4, group % 4);
        let low = &block[64 * part + 32 * (member % 2)..][..32];
        let low_shift = 4 * (member as u32 / 2);
        let high = &block[128 + 32 * part..][..32];
        let high_shift = 2 * member as u32;
        let mut weights = [0f32; GROUP];
        for half in 0..2 {
            let d = d * f32::from(block[192 + 2 * group + half] as i8);
            for j in 16 * half..16 * half + 16 {
                let low = u32::from(low[j]) >> low_shift & 15;
                let code = low | (u32::from(high[j]) >> high_shift & 3) << 4;
                weights[j] = d * (code as i32 - 32) as f32;
            }
        }
        weights
    }
}
