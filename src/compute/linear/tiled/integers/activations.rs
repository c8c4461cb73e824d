//! Activations as integers: a code each, and a scale for 32 of one activation.

use super::super::super::blocks::GROUP;
use super::super::TOGETHER;
use super::Levels;
use crate::compute::lanes::vectorised;

/// Thirty-two numbers each of [`TOGETHER`] activations.
#[derive(Clone, Copy, Default)]
pub(in crate::compute) struct GroupInputs {
    /// Two codes of each, the first in the lower bits.
    pub(super) pairs: [[i32; TOGETHER]; GROUP / 2],
    /// What their codes are multiplied by.
    pub(super) scales: [f32; TOGETHER],
    /// Sums of both halves, for weights whose halves have minima of their own.
    pub(super) halves: [[f32; TOGETHER]; 2],
    /// Sums of all, for weights with one minimum.
    pub(super) whole: [f32; TOGETHER],
}

/// Rounds up to [`TOGETHER`] activations; those that are missing are zero.
pub(super) fn round(x: &[f32], width: usize, levels: Levels, inputs: &mut [GroupInputs]) {
    vectorised!(round_with(x: &[f32], width: usize, levels: Levels, inputs: &mut [GroupInputs]))
}

#[inline(always)]
fn round_with(x: &[f32], width: usize, levels: Levels, inputs: &mut [GroupInputs]) {
    if x.len() < TOGETHER * width {
        inputs.fill(GroupInputs::default());
    }
    for (t, x) in x.chunks_exact(width).enumerate() {
        for (x, inputs) in x.as_chunks::<GROUP>().0.iter().zip(&mut *inputs) {
            let (codes, scale) = codes_of(x, levels);
            let pairs = codes.as_chunks::<2>().0;
            for (to, [lower, upper]) in inputs.pairs.iter_mut().zip(pairs) {
                to[t] = i32::from(*lower as u16) | i32::from(*upper) << 16;
            }
            inputs.scales[t] = scale;
            let mut sums = [0i32; 2];
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<{ GROUP / 2 }>().0) {
                for code in codes {
                    *sum += i32::from(*code);
                }
            }
            inputs.halves[0][t] = sums[0] as f32 * scale;
            inputs.halves[1][t] = sums[1] as f32 * scale;
            inputs.whole[t] = (sums[0] + sums[1]) as f32 * scale;
        }
    }
}

/// Codes to the nearest level, ties to even, and their scale; a number that is not finite makes the scale no number.
///
/// Differs: a group whose largest is below `f32::MIN_POSITIVE` times the levels, 3.9e-34 for 16 bits, is zero.
#[inline(always)]
pub(in crate::compute::linear::tiled) fn codes_of(
    x: &[f32; GROUP],
    levels: Levels,
) -> ([i16; GROUP], f32) {
    /// Added to a number of up to 22 bits, it leaves the nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // Magnitudes are ordered as their bits are, and what is not finite has the largest.
    let mut largest = 0;
    for x in x {
        largest = u32::max(largest, x.to_bits() & (u32::MAX >> 1));
    }
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return ([0; GROUP], f32::NAN);
    }
    let scale = largest / f32::from(levels.0);
    if scale < f32::MIN_POSITIVE {
        return ([0; GROUP], 0.0);
    }
    let mut codes = [0; GROUP];
    for (code, x) in codes.iter_mut().zip(x) {
        let rounded = x / scale + ROUND;
        *code = (rounded.to_bits() as i32 - ROUND.to_bits() as i32) as i16;
    }
    (codes, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_nearest_levels() {
        for levels in [Levels(32767), Levels(127)] {
            let x: [f32; GROUP] = std::array::from_fn(|i| (i as f32 * 0.37 - 5.0) * 1e-3);
            let (codes, scale) = codes_of(&x, levels);
            assert_eq!(scale, x[31].abs().max(x[0].abs()) / f32::from(levels.0));
            assert!(codes.contains(&(levels.0 as i16)) || codes.contains(&-(levels.0 as i16)));
            for (code, x) in codes.into_iter().zip(x) {
                let want = (f64::from(x) / f64::from(scale)).round_ties_even();
                let off = (f64::from(code) - want).abs();
                let between = (f64::from(x) / f64::from(scale)).fract().abs();
                assert!(off == 0.0 || (between - 0.5).abs() < 1e-2, "{code} {want}");
            }
        }
    }

    #[test]
    fn zeros_and_what_is_not_finite_stay_what_they_are() {
        let mut x = [0.0; GROUP];
        assert_eq!(codes_of(&x, Levels(127)), ([0; GROUP], 0.0));
        x[3] = f32::from_bits(1);
        assert_eq!(codes_of(&x, Levels(127)).1, 0.0);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[31] = wrong;
            assert!(codes_of(&x, Levels(32767)).1.is_nan());
        }
        x[31] = f32::MAX;
        assert_eq!(codes_of(&x, Levels(127)).0[31], 127);
    }

    #[test]
    fn missing_activations_are_zero() {
        let x = [1.0; 2 * GROUP];
        let mut inputs = [GroupInputs {
            scales: [9.0; TOGETHER],
            ..GroupInputs::default()
        }];
        round(&x, GROUP, Levels(127), &mut inputs);
        let [inputs] = inputs;
        assert_eq!(
            inputs.pairs[15],
            [127 | 127 << 16, 127 | 127 << 16, 0, 0, 0, 0]
        );
        assert_eq!(inputs.scales[2..], [0.0; 4]);
        assert!((inputs.halves[1][1] - 16.0).abs() < 1e-5 && inputs.halves[0][2] == 0.0);
        assert!((inputs.whole[1] - 32.0).abs() < 1e-5 && inputs.whole[2] == 0.0);
    }
}
