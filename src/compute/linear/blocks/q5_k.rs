//! Q5_K: Q4_K with a fifth bit; bit g of byte j belongs to weight j of group g. 176 bytes.

use super::k_scales::scale_and_minimum;
use super::{Block, half, lane_bytes};
use crate::compute::lanes::Lanes;

pub(super) struct Q5K;

#[inline(always)]
fn codes<L: Lanes>(block: &[u8], low: usize, shift: u32, high: usize, group: usize) -> L::Integer {
    let low = L::shift_right(L::unsigned(lane_bytes(block, low)), shift);
    let fifth = L::shift_right(L::unsigned(lane_bytes(block, high)), group as u32);
    L::join(L::mask(low, 15), L::mask(fifth, 1), 4)
}

#[inline(always)]
fn weights<L: Lanes>(codes: L::Integer, d: L::Float, m: L::Float) -> L::Float {
    L::subtract(L::multiply(d, L::float(codes)), m)
}

impl Block for Q5K {
    const BYTES: usize = 176;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let d = L::splat(half::<L>(block, 0) * scale);
        let m = L::splat(half::<L>(block, 2) * minimum);
        let low = 48 + group / 2 * 32;
        let shift = 4 * (group as u32 % 2);
        [
            weights::<L>(codes::<L>(block, low, shift, 16, group), d, m),
            weights::<L>(codes::<L>(block, low + 16, shift, 32, group), d, m),
        ]
    }
}
