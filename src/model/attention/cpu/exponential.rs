//! The exponential of attention weights, sixteen at a time.

use crate::compute::lanes::Lanes;

/// Exponents up to which the exponential is zero, that of a key out of sight among them.
pub(super) const SMALLEST: f32 = -87.3;

/// `e^x` for `x <= 0`, within two units in the last place; zero up to [`SMALLEST`].
///
/// Paper: range reduction by ln 2 in two parts and a degree-6 polynomial, as in the Cephes library.
#[inline(always)]
pub(super) fn exponential<L: Lanes>(x: L::Float) -> L::Float {
    let c = L::splat;
    let round = c(12_582_912.0); // 1.5 * 2^23: adding it rounds to an integer
    let shifted = L::multiply_add(x, c(std::f32::consts::LOG2_E), round);
    let n = L::subtract(shifted, round);
    let r = L::multiply_add(n, c(-0.693_359_4), x);
    let r = L::multiply_add(n, c(2.121_944_4e-4), r);
    let p = L::multiply_add(c(1.987_569_1e-4), r, c(1.398_199_9e-3));
    let p = L::multiply_add(p, r, c(8.333_452e-3));
    let p = L::multiply_add(p, r, c(4.166_579_6e-2));
    let p = L::multiply_add(p, r, c(1.666_666_5e-1));
    let p = L::multiply_add(p, r, c(0.5));
    let fraction = L::add(L::multiply_add(p, L::multiply(r, r), r), c(1.0));
    L::scale_above(fraction, shifted, x, c(SMALLEST))
}
