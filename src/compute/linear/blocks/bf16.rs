//! BF16: numbers of half the bytes as they are, 32 at a time.

use half::bf16;

use super::Block;
use crate::compute::lanes::{LANES, Lanes};

pub(super) struct BF16;

impl Block for BF16 {
    const BYTES: usize = 64;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], _: usize) -> [L::Float; 2] {
        let (numbers, _) = block.as_chunks::<2>();
        let mut halves = [[bf16::ZERO; LANES]; 2];
        for (half, numbers) in halves.iter_mut().zip(numbers.chunks_exact(LANES)) {
            for (x, bytes) in half.iter_mut().zip(numbers) {
                *x = bf16::from_le_bytes(*bytes);
            }
        }
        [L::load_bf16(&halves[0]), L::load_bf16(&halves[1])]
    }
}
