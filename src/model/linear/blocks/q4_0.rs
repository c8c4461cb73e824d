use super::super::lanes::Lanes;
use super::{Block, half, lane_bytes};

pub(super) struct Q4_0;

#[inline(always)]
fn weights<L: Lanes>(codes: L::Integer, d: L::Float) -> L::Float {
    L::multiply(L::subtract(L::float(codes), L::splat(8.0)), d)
}

impl Block for Q4_0 {
    const BYTES: usize = 18;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let d = L::splat(half::<L>(block, 0));
        let codes = L::unsigned(lane_bytes(block, 2));
        [
            weights::<L>(L::mask(codes, 15), d),
            weights::<L>(L::shift_right(codes, 4), d),
        ]
    }
}
