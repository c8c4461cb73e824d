//! Q5_0: 32 weights `(q - 16) * d` in 22 bytes; nibbles as in Q4_0, the fifth bits in a word.

use super::{Affine, Codes, fifth_bits, half};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q5_0;

impl Codes for Q5_0 {
    const BYTES: usize = 22;
    const GROUPS: usize = 1;
    const LARGEST: Option<i32> = Some(31);
    const ZERO: i32 = 16;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], _: usize) -> [L::Integer; 2] {
        fifth_bits::<L>(block, 2)
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], _: usize) -> [Affine; 2] {
        [[half::<L>(block, 0), 0.0]; 2]
    }
}
