//! Formats whose weights are integers times a scale, and a minimum where they have one.

use super::Block;
use crate::compute::lanes::{Lanes, Nibble};

/// Scale, and minimum that is added, of sixteen weights.
pub(in crate::compute) type Affine = [f32; 2];

/// How a format of quantised blocks stores consecutive weights of a row: `(code - ZERO) * scale + minimum`.
pub(in crate::compute) trait Codes {
    /// Bytes of a block.
    const BYTES: usize;
    /// Groups of [`super::GROUP`] weights in a block.
    const GROUPS: usize;
    /// The largest code of a format whose codes have no sign; none where they have one. Products of several codes are summed
    /// in as few bits as it allows.
    const LARGEST: Option<i32>;
    /// What is taken from every code.
    const ZERO: i32 = 0;
    /// Whether codes have four bits, so that sixteen weights say what all of a scale can be.
    const NIBBLES: bool = false;
    /// Whether the two halves of a group have scales of their own.
    const HALVES: bool = false;
    /// Whether there is a minimum that is not zero.
    const HAS_MINIMUM: bool = false;

    /// The codes of one group, half by half.
    fn codes<L: Lanes>(block: &[u8], group: usize) -> [L::Integer; 2];

    /// Scale and minimum of both halves of a group.
    fn affine<L: Lanes>(block: &[u8], group: usize) -> [Affine; 2];
}

/// Weights of sixteen codes.
#[inline(always)]
fn half_weights<C: Codes, L: Lanes>(codes: L::Integer, affine: Affine) -> L::Float {
    let (scale, minimum) = (L::splat(affine[0]), L::splat(affine[1]));
    if C::NIBBLES {
        L::of_nibbles::<OfFourBits<C>>(codes, scale, minimum)
    } else {
        weights::<C, L>(L::float(codes), scale, minimum)
    }
}

/// Weights of codes as floats, in the order of candle's `to_float`.
#[inline(always)]
fn weights<C: Codes, L: Lanes>(codes: L::Float, scale: L::Float, minimum: L::Float) -> L::Float {
    let centred = match C::ZERO {
        0 => codes,
        zero => L::subtract(codes, L::splat(zero as f32)),
    };
    let scaled = L::multiply(centred, scale);
    if C::HAS_MINIMUM {
        L::add(scaled, minimum)
    } else {
        scaled
    }
}

/// A format of four bits, for lanes that look weights up instead of computing them.
struct OfFourBits<C>(std::marker::PhantomData<C>);

impl<C: Codes> Nibble for OfFourBits<C> {
    #[inline(always)]
    fn weights<L: Lanes>(codes: L::Float, scale: L::Float, minimum: L::Float) -> L::Float {
        weights::<C, L>(codes, scale, minimum)
    }
}

impl<C: Codes> Block for C {
    const BYTES: usize = C::BYTES;
    const GROUPS: usize = C::GROUPS;

    #[inline(always)]
    fn unpack<L: Lanes>(block: &[u8], group: usize) -> [L::Float; 2] {
        let [first, second] = C::codes::<L>(block, group);
        let affine = C::affine::<L>(block, group);
        [
            half_weights::<C, L>(first, affine[0]),
            half_weights::<C, L>(second, affine[1]),
        ]
    }
}
