//! The formats of GGUF's tensors that stay as they are, one file each: quantised blocks, and numbers of half the
//! bytes of float32.
//!
//! A format says how many bytes a block takes and how 32 of its weights become float32. Everything
//! else (matrix products, embedding look-ups, checks) is written once over the [`Block`] trait.

mod bf16;
mod block;
mod codes;
mod f16;
mod k_scales;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use candle_core::quantized::GgmlDType;

pub(in crate::compute) use block::{Block, GROUP};
use codes::Affine;
pub(super) use codes::Codes;
pub(in crate::compute) use {q4_0::Q4_0, q4_1::Q4_1, q5_0::Q5_0, q5_1::Q5_1, q8_0::Q8_0};

use super::kernels::Kernels;
use crate::compute::lanes::{LANES, Lanes};

/// The one table of formats: `$codes` with `$code` as the type of a format of integer codes, `$numbers` with `$number` as
/// that of a format of plain numbers, or `None` for those that are kept dense.
macro_rules! with_block_of {
    ($format:expr, $code:ident => $codes:expr, $number:ident => $numbers:expr) => {
        with_block_of!($format, $code => $codes, $number => $numbers;
            Q4_0 q4_0::Q4_0, Q4_1 q4_1::Q4_1, Q5_0 q5_0::Q5_0, Q5_1 q5_1::Q5_1, Q8_0 q8_0::Q8_0,
            Q2K q2_k::Q2K, Q3K q3_k::Q3K, Q4K q4_k::Q4K, Q5K q5_k::Q5K, Q6K q6_k::Q6K;
            F16 f16::F16, BF16 bf16::BF16)
    };
    ($format:expr, $code:ident => $codes:expr, $number:ident => $numbers:expr;
        $($quantised:ident $block:ty),*; $($plain:ident $half:ty),*) => {
        match $format {
            $(GgmlDType::$quantised => {
                type $code = $block;
                Some($codes)
            })*
            $(GgmlDType::$plain => {
                type $number = $half;
                Some($numbers)
            })*
            // Float32, or never found in files.
            GgmlDType::F32 | GgmlDType::Q8_1 | GgmlDType::Q8K => None,
        }
    };
}

/// The kernels of a format for this processor; `None` for formats that are kept dense.
pub(super) fn kernels_of(format: GgmlDType) -> Option<Kernels> {
    with_block_of!(format, C => Kernels::of_codes::<C>(), B => Kernels::of::<B>())
}

/// Kernels for every instruction set of this processor.
#[cfg(test)]
pub(super) fn kernels_at_every_level(format: GgmlDType) -> Vec<Kernels> {
    let levels = with_block_of!(
        format,
        C => Kernels::at_every_level::<C>(),
        B => Kernels::at_every_level::<B>()
    );
    levels.unwrap_or_default()
}

/// Kernels of a format's codes that every processor runs.
#[cfg(test)]
pub(super) fn portable_integers(format: GgmlDType) -> Option<super::tiled::IntegerKernels> {
    use super::tiled::IntegerKernels;
    let found = with_block_of!(
        format,
        C => Some(IntegerKernels::portable::<C>()),
        B => {
            let _: Option<B> = None;
            None
        }
    );
    found.flatten()
}

/// A little-endian float16 at `at`.
#[inline(always)]
fn half<L: Lanes>(block: &[u8], at: usize) -> f32 {
    L::half(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// A little-endian word at `at`.
#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Consecutive bytes from `at` on, one a lane.
#[inline(always)]
fn lane_bytes(block: &[u8], at: usize) -> &[u8; LANES] {
    let (lanes, _) = block[at..at + LANES].as_chunks::<LANES>();
    &lanes[0]
}

/// Thirty-two codes of four bits in sixteen bytes from `at` on, low nibbles first.
#[inline(always)]
fn nibbles<L: Lanes>(block: &[u8], at: usize) -> [L::Integer; 2] {
    let bytes = L::unsigned(lane_bytes(block, at));
    [L::mask(bytes, 15), L::shift_right(bytes, 4)]
}

/// Thirty-two codes of five bits: a word of fifth bits at `at`, then nibbles.
#[inline(always)]
fn fifth_bits<L: Lanes>(block: &[u8], at: usize) -> [L::Integer; 2] {
    let fifth = word(block, at);
    let [low, high] = nibbles::<L>(block, at + 4);
    [
        L::join(low, L::bits(fifth), 4),
        L::join(high, L::bits(fifth >> 16), 4),
    ]
}
