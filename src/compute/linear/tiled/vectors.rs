//! What integer kernels share on AVX2: sums of a panel with six activations in twelve registers.

use std::arch::x86_64::*;

use super::super::blocks::Codes;
use super::{PANEL, Sums, TOGETHER};

/// Vectors of a panel's row.
pub(super) const VECTORS: usize = PANEL / 8;

/// Sums of integers, of every activation with every row.
pub(super) type Integers = [[__m256i; VECTORS]; TOGETHER];

/// Adds integer sums times both scales.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[inline(always)]
pub(super) unsafe fn scaled(
    dots: Integers,
    scales: &[f32; PANEL],
    of: &[f32; TOGETHER],
    sums: &mut Sums,
) {
    // SAFETY: as the caller promises; vectors are whole halves of arrays of sixteen.
    unsafe {
        for (v, scales) in scales.as_chunks::<8>().0.iter().enumerate() {
            let scales = _mm256_loadu_ps(scales.as_ptr());
            for (t, sums) in sums.iter_mut().enumerate() {
                let place = sums.as_mut_ptr().add(8 * v);
                let product = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t][v]), scales);
                let scale = _mm256_set1_ps(of[t]);
                let sum = _mm256_fmadd_ps(product, scale, _mm256_loadu_ps(place));
                _mm256_storeu_ps(place, sum);
            }
        }
    }
}

/// Adds the minima of a format that has them times the sums of activations, which are those of both halves and of all.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[inline(always)]
pub(super) unsafe fn add_minima<C: Codes>(
    minima: &[[f32; PANEL]; 2],
    halves: &[[f32; TOGETHER]; 2],
    whole: &[f32; TOGETHER],
    sums: &mut Sums,
) {
    if !C::HAS_MINIMUM {
        return;
    }
    // SAFETY: as the caller promises.
    unsafe {
        if C::HALVES {
            shifted(&minima[0], &halves[0], sums);
            shifted(&minima[1], &halves[1], sums);
        } else {
            shifted(&minima[0], whole, sums);
        }
    }
}

/// Adds minima times the sums of activations.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[inline(always)]
unsafe fn shifted(minima: &[f32; PANEL], of: &[f32; TOGETHER], sums: &mut Sums) {
    // SAFETY: as above.
    unsafe {
        for (v, minima) in minima.as_chunks::<8>().0.iter().enumerate() {
            let minima = _mm256_loadu_ps(minima.as_ptr());
            for (t, sums) in sums.iter_mut().enumerate() {
                let place = sums.as_mut_ptr().add(8 * v);
                let by = _mm256_set1_ps(of[t]);
                let sum = _mm256_fmadd_ps(minima, by, _mm256_loadu_ps(place));
                _mm256_storeu_ps(place, sum);
            }
        }
    }
}
