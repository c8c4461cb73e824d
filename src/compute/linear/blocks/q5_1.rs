//! Q5_1: 32 weights `q * d + m` in 24 bytes; nibbles as in Q4_1, the fifth bits in a word.

use super::{Affine, Codes, fifth_bits, half};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q5_1;

impl Codes for Q5_1 {
    const BYTES: usize = 24;
    const GROUPS: usize = 1;
    const LARGEST: Option<i32> = Some(31);
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], _: usize) -> [L::Integer; 2] {
        fifth_bits::<L>(block, 4)
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], _: usize) -> [Affine; 2] {
        [[half::<L>(block, 0), half::<L>(block, 2)]; 2]
    }
}
