//! What both register widths of x86 share, and which of them a processor has.

use std::arch::x86_64::*;

/// The value of a float16 given by its bits.
#[inline(always)]
pub(super) fn half(bits: u16) -> f32 {
    // SAFETY: both types below are only named by functions compiled with F16C.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
}

/// The sum of a register.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(eight: __m256) -> f32 {
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
pub(super) unsafe fn sums_of_eight(x: [__m256; 4]) -> [f32; 4] {
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

/// Whether the processor runs [`super::Avx2`].
pub(crate) fn has_256() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("popcnt")
}

/// Whether the processor runs [`super::Avx512`].
pub(crate) fn has_512() -> bool {
    has_256()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
}

/// Whether the processor also multiplies pairs of bfloat16 numbers, sixteen at a time.
pub(crate) fn has_bf16_products() -> bool {
    has_512() && is_x86_feature_detected!("avx512bf16")
}
