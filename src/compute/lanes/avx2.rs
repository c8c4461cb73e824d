//! Lanes in two registers of 256 bits.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::x86::{half, sum_of_eight, sums_of_eight};
use super::{LANES, Lanes, Vector};

/// For every mask of eight lanes, the lanes whose bit is set, one after another.
static PACKING: [[i32; 8]; 256] = {
    let mut lanes = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut count) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                lanes[mask][count] = lane;
                count += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    lanes
};

/// The lanes whose bit in `mask` is set, first in the register.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn packed(x: __m256, mask: usize) -> __m256 {
    // SAFETY: as the caller promises.
    unsafe { _mm256_permutevar8x32_ps(x, _mm256_loadu_si256(PACKING[mask].as_ptr().cast())) }
}

/// AVX2 with FMA and F16C.
pub(crate) struct Avx2;

// SAFETY, for every block below: as for AVX-512.
impl Lanes for Avx2 {
    type Float = [__m256; 2];
    type Integer = [__m256i; 2];
    const MANY: bool = false;

    #[inline(always)]
    fn half(bits: u16) -> f32 {
        half(bits)
    }
    #[inline(always)]
    fn splat(x: f32) -> Self::Float {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(x: &Vector) -> Self::Float {
        unsafe {
            [
                _mm256_loadu_ps(x.as_ptr()),
                _mm256_loadu_ps(x[8..].as_ptr()),
            ]
        }
    }
    #[inline(always)]
    fn store(x: Self::Float, to: &mut Vector) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn load_f16(x: &[f16; LANES]) -> Self::Float {
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(x[8..].as_ptr().cast())),
            ]
        }
    }
    #[inline(always)]
    fn load_bf16(x: &[bf16; LANES]) -> Self::Float {
        unsafe {
            let lower = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(x[8..].as_ptr().cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(lower)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper)),
            ]
        }
    }
    #[inline(always)]
    fn unsigned(bytes: &[u8; LANES]) -> Self::Integer {
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            [
                _mm256_cvtepu8_epi32(bytes),
                _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)),
            ]
        }
    }
    #[inline(always)]
    fn signed(bytes: &[u8; LANES]) -> Self::Integer {
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            [
                _mm256_cvtepi8_epi32(bytes),
                _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)),
            ]
        }
    }
    #[inline(always)]
    fn bits(word: u32) -> Self::Integer {
        unsafe {
            let lower = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let upper = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            let word = _mm256_set1_epi32(word as i32);
            let one = _mm256_set1_epi32(1);
            [
                _mm256_and_si256(_mm256_srlv_epi32(word, lower), one),
                _mm256_and_si256(_mm256_srlv_epi32(word, upper), one),
            ]
        }
    }
    #[inline(always)]
    fn nibbles(words: [u32; 2]) -> Self::Integer {
        unsafe {
            let by = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
            let low = _mm256_set1_epi32(15);
            words.map(|word| {
                let word = _mm256_set1_epi32(word as i32);
                _mm256_and_si256(_mm256_srlv_epi32(word, by), low)
            })
        }
    }
    #[inline(always)]
    fn pairs(word: u32) -> Self::Integer {
        unsafe {
            let first = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
            let second = _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30);
            let (word, low) = (_mm256_set1_epi32(word as i32), _mm256_set1_epi32(3));
            [first, second].map(|by| _mm256_and_si256(_mm256_srlv_epi32(word, by), low))
        }
    }
    #[inline(always)]
    fn shift_right(x: Self::Integer, by: u32) -> Self::Integer {
        unsafe {
            let by = _mm_cvtsi32_si128(by as i32);
            [_mm256_srl_epi32(x[0], by), _mm256_srl_epi32(x[1], by)]
        }
    }
    #[inline(always)]
    fn join(low: Self::Integer, high: Self::Integer, by: u32) -> Self::Integer {
        unsafe {
            let by = _mm_cvtsi32_si128(by as i32);
            [
                _mm256_or_si256(low[0], _mm256_sll_epi32(high[0], by)),
                _mm256_or_si256(low[1], _mm256_sll_epi32(high[1], by)),
            ]
        }
    }
    #[inline(always)]
    fn mask(x: Self::Integer, mask: i32) -> Self::Integer {
        unsafe {
            let mask = _mm256_set1_epi32(mask);
            [_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask)]
        }
    }
    #[inline(always)]
    fn float(x: Self::Integer) -> Self::Float {
        unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
    }
    #[inline(always)]
    fn store_short(x: Self::Integer, less: i32, to: &mut [i16; LANES]) {
        unsafe {
            let less = _mm256_set1_epi32(less);
            // Packing takes the registers' halves in turns.
            let turned =
                _mm256_packs_epi32(_mm256_sub_epi32(x[0], less), _mm256_sub_epi32(x[1], less));
            let short = _mm256_permute4x64_epi64::<0b11_01_10_00>(turned);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), short);
        }
    }
    #[inline(always)]
    fn add(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn subtract(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn multiply(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        unsafe {
            [
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1]),
            ]
        }
    }
    #[inline(always)]
    fn maximum(a: Self::Float, b: Self::Float) -> Self::Float {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn at_least(x: Self::Float, least: Self::Float) -> u32 {
        unsafe {
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x[0], least[0]));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x[1], least[1]));
            (low | high << 8) as u32
        }
    }
    #[inline(always)]
    fn pack(x: Self::Float, mask: u32, to: &mut Vector) {
        let low = (mask & 255) as usize;
        let first = low.count_ones() as usize;
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), packed(x[0], low));
            // Ends within the sixteen lanes: at most eight come first.
            let upper = packed(x[1], (mask >> 8 & 255) as usize);
            _mm256_storeu_ps(to[first..].as_mut_ptr(), upper);
        }
    }
    #[inline(always)]
    fn scale_above(
        x: Self::Float,
        n: Self::Float,
        at: Self::Float,
        least: Self::Float,
    ) -> Self::Float {
        let mut scaled = x;
        for (half, scaled) in scaled.iter_mut().enumerate() {
            unsafe {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(n[half]));
                let sum = _mm256_add_epi32(exponent, _mm256_castps_si256(*scaled));
                let above = _mm256_cmp_ps::<_CMP_GT_OQ>(at[half], least[half]);
                *scaled = _mm256_and_ps(_mm256_castsi256_ps(sum), above);
            }
        }
        scaled
    }
    #[inline(always)]
    fn sum(x: Self::Float) -> f32 {
        unsafe { sum_of_eight(_mm256_add_ps(x[0], x[1])) }
    }
    #[inline(always)]
    fn sums(x: [Self::Float; 4]) -> [f32; 4] {
        unsafe {
            sums_of_eight([
                _mm256_add_ps(x[0][0], x[0][1]),
                _mm256_add_ps(x[1][0], x[1][1]),
                _mm256_add_ps(x[2][0], x[2][1]),
                _mm256_add_ps(x[3][0], x[3][1]),
            ])
        }
    }
    #[inline(always)]
    fn largest(x: Self::Float) -> f32 {
        let mut all = [0.0; LANES];
        Self::store(x, &mut all);
        all.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
