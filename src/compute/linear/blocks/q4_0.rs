//! Q4_0: 32 weights `(q - 8) * d` in 18 bytes; low nibbles first, then high ones.

use super::{Affine, Codes, half, nibbles};
use crate::compute::lanes::Lanes;

pub(in crate::compute) struct Q4_0;

impl Codes for Q4_0 {
    const BYTES: usize = 18;
    const GROUPS: usize = 1;
    const LARGEST: Option<i32> = Some(15);
    const ZERO: i32 = 8;
    const NIBBLES: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(block: &[u8], _: usize) -> [L::Integer; 2] {
        nibbles::<L>(block, 2)
    }

    #[inline(always)]
    fn affine<L: Lanes>(block: &[u8], _: usize) -> [Affine; 2] {
        [[half::<L>(block, 0), 0.0]; 2]
    }
}
