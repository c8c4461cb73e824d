use super::super::lanes::{LANES, Lanes};
use super::k_scales::scale_and_minimum;
use super::{Block, half, lane_bytes};

pub(super) struct Q4K;

#[inline(always)]
fn weights<L: Lanes>(bytes: &[u8; LANES], shift: u32, d: L::Float, m: L::Float) -> L::Float {
    let codes = L::mask(L::shift_right(L::unsigned(bytes), shift), 15);
    L::subtract(L::multiply(d, L::float(codes)), m)
}

impl Block for Q4K {
    const BYTES: usize = 144;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let d = L::splat(half::<L>(block, 0) * scale);
        let m = L::splat(half::<L>(block, 2) * minimum);
        // Two groups lie in the same bytes, the second in the high nibbles.
        let codes = 16 + group / 2 * 32;
        let shift = 4 * (group as u32 % 2);
        [
            weights::<L>(lane_bytes(block, codes), shift, d, m),
            weights::<L>(lane_bytes(block, codes + 16), shift, d, m),
        ]
    }
}
