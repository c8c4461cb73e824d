//! Packed weights as panels of bfloat16 pairs: consecutive rows lie across the lanes, pairs of the width one after
//! another.

use std::arch::x86_64::*;

use super::blocks::Block;
use crate::compute::lanes::{Avx512, LANES, Lanes, has_bf16_products};

/// A pair of bfloat16 numbers of each of sixteen rows; the first of the two in the lower bits.
pub(super) type Pairs = [u32; LANES];

/// Vectors of a panel.
pub(super) const VECTORS: usize = 4;
/// Rows of a panel.
pub(super) const PANEL: usize = VECTORS * LANES;
/// That this processor has the instructions.
#[derive(Clone, Copy)]
pub(super) struct PairProducts(());

impl PairProducts {
    /// `None` where it has not.
    pub(super) fn of_this_processor() -> Option<Self> {
        has_bf16_products().then_some(Self(()))
    }
}

/// Thirty-two numbers in bfloat16.
///
/// # Safety
/// The processor must have AVX-512 and its bfloat16 instructions.
#[inline(always)]
pub(super) unsafe fn joined(lower: __m512, upper: __m512) -> __m512i {
    // SAFETY: as the caller promises; both types are 512 bits without a meaning of their own.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(upper, lower)) }
}

/// The weights of up to [`PANEL`] packed rows as one panel; rows that are missing are zero.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma,f16c,popcnt")]
pub(super) fn unpack_panel<B: Block>(rows: &[u8], row_bytes: usize, panel: &mut [Pairs]) {
    let (pairs, _) = panel.as_chunks_mut::<VECTORS>();
    let (groups, _) = pairs.as_chunks_mut::<LANES>();
    for (g, group) in groups.iter_mut().enumerate() {
        let start = g / B::GROUPS * B::BYTES;
        for vector in 0..VECTORS {
            let mut lines = [Avx512::splat(0.0); LANES];
            let of_vector = rows.chunks_exact(row_bytes).skip(vector * LANES);
            for (line, row) in lines.iter_mut().zip(of_vector) {
                let block = &row[start..start + B::BYTES];
                let [lower, upper] = B::unpack::<Avx512>(block, g % B::GROUPS);
                // SAFETY: this function is compiled for the instructions.
                *line = _mm512_castsi512_ps(unsafe { joined(lower, upper) });
            }
            for (pair, line) in group.iter_mut().zip(Avx512::transpose(lines)) {
                // SAFETY: the whole array is written.
                unsafe { _mm512_storeu_ps(pair[vector].as_mut_ptr().cast(), line) };
            }
        }
    }
}
