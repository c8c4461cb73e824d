//! Q4_1: 32 weights `q * d + m` in 20 bytes; low nibbles first, then high ones.

use super::{Affine, Codes, half, nibbles};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q4_1;

impl Codes for Q4_1 {
    const BYTES: usize = 20;
    const GROUPS: usize = 1;
    const LARGEST: Option<i32> = Some(15);
    const NIBBLES: bool = true;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], _: usize) -> [L::Integer; 2] {
        nibbles::<L>(block, 4)
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], _: usize) -> [Affine; 2] {
        [[half::<L>(block, 0), half::<L>(block, 2)]; 2]
    }
}
