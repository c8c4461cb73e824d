//! Row softmax in float32 with an exponential that vectorises, chosen for the CPU at run time.

use crate::compute::lanes::{LANES, vectorised};

/// `e^x` for `x <= 0`, within two units in the last place; below -87.3 it gives the smallest normal.
///
/// Paper: range reduction by ln 2 in two parts and a degree-6 polynomial, as in the Cephes library.
#[inline(always)]
fn exp_nonpositive(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = if x > -87.3 { x } else { -87.3 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let fraction = p * (r * r) + r + 1.0;
    f32::from_bits(
        shifted
            .to_bits()
            .wrapping_shl(23)
            .wrapping_add(fraction.to_bits()),
    )
}

#[inline(always)]
fn exponentials_generic(row: &mut [f32], scale: f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let rest = chunks.remainder().iter().copied();
    let max = lanes
        .into_iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = exp_nonpositive((*x - max) * scale);
            *sum += *x;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in chunks.into_remainder() {
        *x = exp_nonpositive((*x - max) * scale);
        sum += *x;
    }
    sum
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // Both signs through e^-|x|, which cannot overflow.
    let e = exp_nonpositive(-x.abs());
    if x >= 0.0 {
        1.0 / (1.0 + e)
    } else {
        e / (1.0 + e)
    }
}

#[inline(always)]
fn silu_product_generic(gate: &mut [f32], up: &[f32]) {
    for (g, &u) in gate.iter_mut().zip(up) {
        *g *= sigmoid(*g) * u;
    }
}

#[inline(always)]
fn gelu_tanh_product_generic(gate: &mut [f32], up: &[f32]) {
    /// Twice the root of 2 / pi.
    const OUTER: f32 = 1.595_769;
    const CUBIC: f32 = 0.044_715;
    for (g, &u) in gate.iter_mut().zip(up) {
        // (1 + tanh(y)) / 2 is the sigmoid of 2y.
        let inner = OUTER * *g * (1.0 + CUBIC * *g * *g);
        *g *= sigmoid(inner) * u;
    }
}

/// Replaces a row of logits by `e^(scale * (x - max))` and returns the sum.
///
/// Differs: not divided by the sum, which the caller applies where it is cheapest.
pub fn exponentials(row: &mut [f32], scale: f32) -> f32 {
    vectorised!(exponentials_generic(row: &mut [f32], scale: f32) -> f32)
}

/// Replaces `gate` by `gelu(gate) * up`, GELU being approximated by a hyperbolic tangent.
///
/// Paper: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
pub fn gelu_tanh_product(gate: &mut [f32], up: &[f32]) {
    vectorised!(gelu_tanh_product_generic(gate: &mut [f32], up: &[f32]))
}

/// Replaces `gate` by `silu(gate) * up`.
pub fn silu_product(gate: &mut [f32], up: &[f32]) {
    vectorised!(silu_product_generic(gate: &mut [f32], up: &[f32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_within_two_ulp() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            let got = f64::from(exp_nonpositive(x));
            assert!(((got - want) / want).abs() < 2.4e-7, "{x}: {got} {want}");
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert!(exp_nonpositive(f32::NEG_INFINITY) < 1.3e-38);
    }

    #[test]
    fn rows_of_every_length_sum_to_one() {
        for n in 1..70 {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
            let mut row = logits.clone();
            let sum = exponentials(&mut row, 0.5);
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            for (got, x) in row.iter().zip(&logits) {
                let want = (f64::from(x - max) * 0.5).exp();
                assert!((f64::from(*got) - want).abs() < 1e-6);
            }
            assert!((row.iter().sum::<f32>() - sum).abs() < 1e-4);
        }
    }

    /// Compares a product with a function of the gate in float64.
    fn check_product(product: fn(&mut [f32], &[f32]), of_gate: fn(f64) -> f64) {
        let gate: Vec<f32> = (-40..40).map(|i| i as f32 * 0.25).collect();
        let gate: Vec<f32> = gate.iter().flat_map(|g| [*g, g * 10.0]).collect();
        let up: Vec<f32> = (0..160).map(|i| i as f32 * 0.05 - 3.0).collect();
        let mut got = gate.clone();
        product(&mut got, &up);
        for ((got, &g), &u) in got.iter().zip(&gate).zip(&up) {
            let want = of_gate(f64::from(g)) * f64::from(u);
            assert!(
                (f64::from(*got) - want).abs() <= 1e-6 * want.abs().max(1e-3),
                "{g} {u}: {got} {want}"
            );
        }
    }

    #[test]
    fn products_match_their_definitions() {
        check_product(silu_product, |g| g / (1.0 + (-g).exp()));
        check_product(gelu_tanh_product, |g| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
            // 1 + tanh(y) without the cancellation far below zero.
            g / (1.0 + (-2.0 * inner).exp())
        });
    }
}
