//! Q3_K: 256 weights `q * (s - 32) * d` in 110 bytes, q in -4..=3; 16 share a six-bit scale.

use super::super::instructions::Instructions;
use super::{Block, GROUP, half};

pub(super) struct Q3K;

/// Scale `index` of sixteen: a nibble of the first eight bytes, two bits of the last four.
#[inline(always)]
fn scale(packed: &[u8], index: usize) -> f32 {
    let low = packed[index % 8] >> (4 * (index / 8)) & 15;
    let high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
    f32::from(low | high << 4) - 32.0
}

impl Block for Q3K {
    const BYTES: usize = 110;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<I: Instructions>(block: &[u8], group: usize) -> [f32; GROUP] {
        let d = half::<I>(block, 108);
        // Bit g of byte j belongs to weight j of group g: without it the weight is 4 lower.
        let high = &block[0..32];
        let codes = &block[32 + group / 4 * 32..][..32];
        let shift = 2 * (group as u32 % 4);
        let mut weights = [0f32; GROUP];
        for part in 0..2 {
            let d = d * scale(&block[96..108], 2 * group + part);
            for j in 16 * part..16 * part + 16 {
                let code =
                    (u32::from(codes[j]) >> shift & 3) | (u32::from(high[j]) >> group & 1) << 2;
                weights[j] = d * (code as i32 - 4) as f32;
            }
        }
        weights
    }
}
