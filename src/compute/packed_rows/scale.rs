//! Scale and zero point of a group of numbers, and the codes between them.

use half::f16;

use crate::error::{Error, Result};

/// Bits of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 256 levels.
    Eight,
    /// 16 levels.
    Four,
    /// 4 levels.
    Two,
}

impl Bits {
    /// All of them, most first.
    pub const ALL: [Self; 3] = [Self::Eight, Self::Four, Self::Two];

    /// How many.
    pub fn count(self) -> usize {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
            Self::Two => 2,
        }
    }

    /// The largest code.
    pub fn largest(self) -> u8 {
        u8::MAX >> (8 - self.count())
    }
}

/// What codes of a group are multiplied by, and what is added then.
///
/// Differs: both are float16 and rounded outwards, so that they span the group whatever they lose; no number is then
/// further from its level than half a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    pub scale: f16,
    pub least: f16,
}

/// Bytes of the scale and the zero point.
pub(super) const LEVELS_BYTES: usize = 4;

impl Levels {
    /// The levels that span some numbers.
    ///
    /// Errors: [`Error::NotFinite`] where a number is not finite or out of float16's reach.
    pub(super) fn spanning(numbers: impl Iterator<Item = f32>, bits: Bits) -> Result<Self> {
        let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
        let mut finite = true;
        for x in numbers {
            finite &= x.is_finite();
            least = least.min(x);
            most = most.max(x);
        }
        let levels = f32::from(bits.largest());
        let least = rounded_down(least);
        let mut scale = rounded_up((most - f32::from(least)) / levels);
        // The quotient may have been rounded below what reaches the largest number.
        while finite && f32::from(least) + f32::from(scale) * levels < most && scale.is_finite() {
            scale = next_up(scale);
        }
        if finite && least.is_finite() && scale.is_finite() {
            return Ok(Self { scale, least });
        }
        Err(Error::NotFinite {
            place: "a row to be held in few bits".into(),
            advice:
                "its scales are float16, which ends at 65504: hold keys and values in bf16 or f32"
                    .into(),
        })
    }

    /// The code of the nearest level.
    #[inline(always)]
    pub(super) fn code(self, x: f32, bits: Bits) -> u8 {
        let scale = f32::from(self.scale);
        if scale == 0.0 {
            return 0;
        }
        let code = ((x - f32::from(self.least)) / scale).round_ties_even();
        code.clamp(0.0, f32::from(bits.largest())) as u8
    }

    /// The number that a code stands for: exact but for the rounding of one sum.
    #[cfg(test)]
    pub(super) fn number(self, code: u8) -> f32 {
        f32::from(code) * f32::from(self.scale) + f32::from(self.least)
    }
}

/// The next float16 above a number that is not negative.
fn next_up(x: f16) -> f16 {
    f16::from_bits(x.to_bits() + 1)
}

/// The largest float16 that is not above `x`.
fn rounded_down(x: f32) -> f16 {
    let near = f16::from_f32(x);
    if f32::from(near) <= x {
        return near;
    }
    match near.to_bits() {
        // Below zero of either sign comes the smallest negative number.
        0 | 0x8000 => f16::from_bits(0x8001),
        negative if near.is_sign_negative() => f16::from_bits(negative + 1),
        positive => f16::from_bits(positive - 1),
    }
}

/// The smallest float16 that is not below `x`, which is not negative.
fn rounded_up(x: f32) -> f16 {
    let near = f16::from_f32(x);
    if f32::from(near) >= x {
        near
    } else {
        next_up(near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn float16_is_rounded_outwards() {
        assert_eq!(f32::from(rounded_down(1.0)), 1.0);
        assert!(f32::from(rounded_down(1.0001)) <= 1.0001);
        assert_eq!(rounded_down(1e-9).to_bits(), 0);
        assert_eq!(rounded_down(-1e-9).to_bits(), 0x8001);
        assert!(f32::from(rounded_down(-1.0001)) <= -1.0001);
        assert_eq!(f32::from(rounded_up(0.0)), 0.0);
        assert_eq!(rounded_up(1e-9).to_bits(), 1);
        assert!(!rounded_up(70_000.0).is_finite() && !rounded_down(-70_000.0).is_finite());
    }

    #[test]
    fn levels_of_a_hand_made_group() {
        let levels = Levels::spanning([0.0, 1.0, 3.0].into_iter(), Bits::Two).unwrap();
        assert_eq!(
            (f32::from(levels.scale), f32::from(levels.least)),
            (1.0, 0.0)
        );
        let codes = [0.0, 0.49, 0.5, 1.5, 2.51, 3.0].map(|x| levels.code(x, Bits::Two));
        assert_eq!(codes, [0, 0, 0, 2, 3, 3]);
        let same = Levels::spanning([2.5; 4].into_iter(), Bits::Eight).unwrap();
        assert_eq!(same.number(same.code(2.5, Bits::Eight)), 2.5);
    }

    #[test]
    fn what_float16_does_not_reach_is_refused() {
        for wide in [
            [0.0, 1e6],
            [f32::NAN, 0.0],
            [-7e4, 0.0],
            [f32::INFINITY, 1.0],
        ] {
            let said = Levels::spanning(wide.into_iter(), Bits::Two).unwrap_err();
            assert!(said.to_string().contains("65504"), "{wide:?}: {said}");
        }
        // A wide group may still have a scale that fits.
        assert!(Levels::spanning([-6e4, 6e4].into_iter(), Bits::Two).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// No number is further from its level than half a scale, but for the rounding of the last sum.
        #[test]
        fn half_a_scale_bounds_the_error(
            numbers in prop::collection::vec(-1.0f32..1.0, 1..40),
            magnitude in -20i32..15,
            offset in -2.0f32..2.0,
        ) {
            let factor = 2f32.powi(magnitude);
            let numbers: Vec<f32> = numbers.iter().map(|x| (x + offset) * factor).collect();
            for bits in Bits::ALL {
                let levels = Levels::spanning(numbers.iter().copied(), bits).unwrap();
                for &x in &numbers {
                    let error = (f64::from(levels.number(levels.code(x, bits))) - f64::from(x)).abs();
                    let rounding = f64::from(x.abs() + f32::from(levels.scale)) * 2f64.powi(-22);
                    prop_assert!(error <= f64::from(levels.scale) / 2.0 + rounding, "{x}: {error}");
                }
            }
        }
    }
}
