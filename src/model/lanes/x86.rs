//! Lanes in one 512-bit register, or in two of 256 bits.

use std::arch::x86_64::*;

use super::{LANES, Lanes, Nibble, Vector};

#[inline(always)]
fn half(bits: u16) -> f32 {
    // SAFETY: both types below are only named by functions compiled with F16C.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
}

/// # Safety
/// The processor must have AVX.
#[inline(always)]
unsafe fn sum_of_eight(eight: __m256) -> f32 {
    // SAFETY: as the caller promises.
    unsafe {
        let four = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
        );
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The sums of four registers.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
unsafe fn sums_of_eight(x: [__m256; 4]) -> [f32; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        let pairs = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
        let upper = _mm256_extractf128_ps::<1>(pairs);
        let mut sums = [0.0; 4];
        _mm_storeu_ps(
            sums.as_mut_ptr(),
            _mm_add_ps(_mm256_castps256_ps128(pairs), upper),
        );
        sums
    }
}

/// Whether the processor runs [`Avx2`].
pub(in super::super) fn has_256() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Whether the processor runs [`Avx512`].
pub(in super::super) fn has_512() -> bool {
    has_256()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
}

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
pub(in super::super) struct Avx512;

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

/// AVX2 with FMA and F16C.
pub(in super::super) struct Avx2;

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
