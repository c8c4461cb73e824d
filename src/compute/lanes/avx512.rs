//! Lanes in one register of 512 bits.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::x86::{half, sum_of_eight, sums_of_eight};
use super::{LANES, Lanes, Nibble, Vector};

/// The upper half added to the lower.
///
/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn folded(x: __m512) -> __m256 {
    // SAFETY: as the caller promises.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
}

/// AVX-512 with FMA and F16C.
pub(crate) struct Avx512;

// SAFETY, for every block below: only functions compiled for these instructions name the type, and
// they are only called where the processor has them; references are to whole arrays.
impl Lanes for Avx512 {
    type Float = __m512;
    type Integer = __m512i;
    const MANY: bool = true;

    #[inline(always)]
    fn half(bits: u16) -> f32 {
        half(bits)
    }
    #[inline(always)]
    fn splat(x: f32) -> Self::Float {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(x: &Vector) -> Self::Float {
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(x: Self::Float, to: &mut Vector) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn load_f16(x: &[f16; LANES]) -> Self::Float {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(x: &[bf16; LANES]) -> Self::Float {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn unsigned(bytes: &[u8; LANES]) -> Self::Integer {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }
    #[inline(always)]
    fn signed(bytes: &[u8; LANES]) -> Self::Integer {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }
    #[inline(always)]
    fn bits(word: u32) -> Self::Integer {
        unsafe { _mm512_maskz_set1_epi32(word as u16, 1) }
    }
    #[inline(always)]
    fn nibbles(words: [u32; 2]) -> Self::Integer {
        unsafe {
            let by = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
            let first = _mm512_set1_epi32(words[0] as i32);
            let both = _mm512_mask_set1_epi32(first, 0xff00, words[1] as i32);
            _mm512_and_si512(_mm512_srlv_epi32(both, by), _mm512_set1_epi32(15))
        }
    }
    #[inline(always)]
    fn pairs(word: u32) -> Self::Integer {
        unsafe {
            let by = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let word = _mm512_set1_epi32(word as i32);
            _mm512_and_si512(_mm512_srlv_epi32(word, by), _mm512_set1_epi32(3))
        }
    }
    #[inline(always)]
    fn shift_right(x: Self::Integer, by: u32) -> Self::Integer {
        unsafe { _mm512_srl_epi32(x, _mm_cvtsi32_si128(by as i32)) }
    }
    #[inline(always)]
    fn join(low: Self::Integer, high: Self::Integer, by: u32) -> Self::Integer {
        unsafe { _mm512_or_si512(low, _mm512_sll_epi32(high, _mm_cvtsi32_si128(by as i32))) }
    }
    #[inline(always)]
    fn mask(x: Self::Integer, mask: i32) -> Self::Integer {
        unsafe { _mm512_and_si512(x, _mm512_set1_epi32(mask)) }
    }
    #[inline(always)]
    fn float(x: Self::Integer) -> Self::Float {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    /// By a table of all sixteen, which is cheaper than the arithmetic for each lane.
    #[inline(always)]
    fn of_nibbles<N: Nibble>(
        codes: Self::Integer,
        scale: Self::Float,
        minimum: Self::Float,
    ) -> Self::Float {
        const CODES: [f32; LANES] = {
            let mut codes = [0f32; LANES];
            let mut code = 0;
            while code < LANES {
                codes[code] = code as f32;
                code += 1;
            }
            codes
        };
        let weights = N::weights::<Self>(Self::load(&CODES), scale, minimum);
        unsafe { _mm512_permutexvar_ps(codes, weights) }
    }
    #[inline(always)]
    fn store_short(x: Self::Integer, less: i32, to: &mut [i16; LANES]) {
        unsafe {
            let short = _mm512_cvtepi32_epi16(_mm512_sub_epi32(x, _mm512_set1_epi32(less)));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), short);
        }
    }
    #[inline(always)]
    fn add(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn subtract(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn multiply(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn maximum(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn transpose(x: [Self::Float; LANES]) -> [Self::Float; LANES] {
        let (mut fours, mut turned) = (x, x);
        unsafe {
            // Four numbers of four vectors each, within every quarter of a register.
            for at in (0..LANES).step_by(4) {
                let low = _mm512_castps_pd(_mm512_unpacklo_ps(x[at], x[at + 1]));
                let high = _mm512_castps_pd(_mm512_unpackhi_ps(x[at], x[at + 1]));
                let next_low = _mm512_castps_pd(_mm512_unpacklo_ps(x[at + 2], x[at + 3]));
                let next_high = _mm512_castps_pd(_mm512_unpackhi_ps(x[at + 2], x[at + 3]));
                fours[at] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, next_low));
                fours[at + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, next_low));
                fours[at + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, next_high));
                fours[at + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, next_high));
            }
            // Then the quarters themselves.
            for j in 0..4 {
                let (a, b) = (fours[j], fours[4 + j]);
                let (c, d) = (fours[8 + j], fours[12 + j]);
                let (even, next_even) = (
                    _mm512_shuffle_f32x4::<0x88>(a, b),
                    _mm512_shuffle_f32x4::<0x88>(c, d),
                );
                let (odd, next_odd) = (
                    _mm512_shuffle_f32x4::<0xdd>(a, b),
                    _mm512_shuffle_f32x4::<0xdd>(c, d),
                );
                turned[j] = _mm512_shuffle_f32x4::<0x88>(even, next_even);
                turned[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, next_odd);
                turned[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, next_even);
                turned[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, next_odd);
            }
        }
        turned
    }
    #[inline(always)]
    fn at_least(x: Self::Float, least: Self::Float) -> u32 {
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, least)) }
    }
    #[inline(always)]
    fn pack(x: Self::Float, mask: u32, to: &mut Vector) {
        // Packed in a register first: packing into memory is slow on some processors.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_maskz_compress_ps(mask as u16, x)) }
    }
    #[inline(always)]
    fn scale_above(
        x: Self::Float,
        n: Self::Float,
        at: Self::Float,
        least: Self::Float,
    ) -> Self::Float {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(n));
            let sum = _mm512_add_epi32(exponent, _mm512_castps_si512(x));
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(at, least);
            _mm512_maskz_mov_ps(above, _mm512_castsi512_ps(sum))
        }
    }
    #[inline(always)]
    fn sum(x: Self::Float) -> f32 {
        unsafe { sum_of_eight(folded(x)) }
    }
    #[inline(always)]
    fn sums(x: [Self::Float; 4]) -> [f32; 4] {
        unsafe { sums_of_eight([folded(x[0]), folded(x[1]), folded(x[2]), folded(x[3])]) }
    }
    #[inline(always)]
    fn largest(x: Self::Float) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }
}
