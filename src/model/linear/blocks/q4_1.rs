use super::super::lanes::Lanes;
use super::{Block, half, lane_bytes};

pub(super) struct Q4_1;

#[inline(always)]
fn weights<L: Lanes>(codes: L::Integer, d: L::Float, m: L::Float) -> L::Float {
    L::add(L::multiply(L::float(codes), d), m)
}

impl Block for Q4_1 {
    const BYTES: usize = 20;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        let m = L::splat(half::<L>(block, 2));
        let codes = L::unsigned(lane_bytes(block, 4));
        [
            weights::<L>(L::mask(codes, 15), d, m),
            weights::<L>(L::shift_right(codes, 4), d, m),
        ]
    }
}
