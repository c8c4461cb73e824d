//! Products of a panel with a few activations.

use super::super::super::blocks::{Codes, GROUP};
use super::super::Sums;
use super::activations::GroupInputs;
use super::panel::GroupPanel;

/// Adds the products of some groups, in the order and with the roundings of the kernels for processors.
pub(super) fn add_portable<C: Codes>(
    panel: &[GroupPanel],
    inputs: &[GroupInputs],
    sums: &mut Sums,
) {
    let halves = if C::HALVES { 2 } else { 1 };
    for (panel, inputs) in panel.iter().zip(inputs) {
        for (t, sums) in sums.iter_mut().enumerate() {
            for (r, sum) in sums.iter_mut().enumerate() {
                for half in 0..halves {
                    let count = GROUP / 2 / halves;
                    let pairs = half * count..(half + 1) * count;
                    let dot: i32 = pairs
                        .map(|p| dot_of_pair(panel.pairs[p][r], inputs.pairs[p][t]))
                        .sum();
                    let product = dot as f32 * panel.scales[half][r];
                    *sum = product.mul_add(inputs.scales[t], *sum);
                }
                if C::HAS_MINIMUM {
                    for half in 0..halves {
                        let of = if C::HALVES {
                            inputs.halves[half]
                        } else {
                            inputs.whole
                        };
                        *sum = panel.minima[half][r].mul_add(of[t], *sum);
                    }
                }
            }
        }
    }
}

/// What two pairs of codes give.
fn dot_of_pair(a: i32, b: i32) -> i32 {
    i32::from(a as i16) * i32::from(b as i16) + (a >> 16) * (b >> 16)
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::add as add_256;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::super::super::TOGETHER;
    use super::super::super::vectors::{Integers, VECTORS, add_minima, scaled};
    use super::{Codes, GROUP, GroupInputs, GroupPanel, Sums};

    /// Adds the products of some groups.
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    pub(in super::super) fn add<C: Codes>(
        panel: &[GroupPanel],
        inputs: &[GroupInputs],
        sums: &mut Sums,
    ) {
        for (panel, inputs) in panel.iter().zip(inputs) {
            let [first, second] = &panel.scales;
            // SAFETY: this function is compiled for the instructions.
            unsafe {
                if C::HALVES {
                    let dots_of_first = dots::<0, { GROUP / 4 }>(panel, inputs);
                    scaled(dots_of_first, first, &inputs.scales, sums);
                    let dots_of_second = dots::<{ GROUP / 4 }, { GROUP / 2 }>(panel, inputs);
                    scaled(dots_of_second, second, &inputs.scales, sums);
                } else {
                    let dots = dots::<0, { GROUP / 2 }>(panel, inputs);
                    scaled(dots, first, &inputs.scales, sums);
                }
                add_minima::<C>(&panel.minima, &inputs.halves, &inputs.whole, sums);
            }
        }
    }

    /// Exact sums of the products of pairs `FROM..TO`.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn dots<const FROM: usize, const TO: usize>(
        panel: &GroupPanel,
        inputs: &GroupInputs,
    ) -> Integers {
        // SAFETY: as the caller promises; vectors are whole halves of arrays of sixteen.
        unsafe {
            let mut dots = [[_mm256_setzero_si256(); VECTORS]; TOGETHER];
            for p in FROM..TO {
                let row = panel.pairs[p].as_ptr();
                let weights = [
                    _mm256_loadu_si256(row.cast()),
                    _mm256_loadu_si256(row.add(8).cast()),
                ];
                for (dots, pair) in dots.iter_mut().zip(&inputs.pairs[p]) {
                    let pair = _mm256_set1_epi32(*pair);
                    for (dot, weights) in dots.iter_mut().zip(weights) {
                        *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(weights, pair));
                    }
                }
            }
            dots
        }
    }
}
