//! How far a layer's output can move between two budgets: what need not be evaluated.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Room for the rounding of cosines whose outputs are float32.
const ROUNDING: f64 = 1e-5;

/// Room for the rounding of outputs that the bound is held against.
const MARGIN: f64 = 1.0 + 1e-3;

/// A bound on the way of a head's renormalised sum c while keys of probability `mass` are added.
///
/// Each moves it by p·(v − c) / (mass so far): less than (Σ p·‖v‖ + mass·reach) / (mass at the start), `way` being
/// that sum, where no c on the way is longer than `reach`.
pub(super) fn renormalised_way(way: f64, mass: f64, start_mass: f64, reach: f64) -> f64 {
    if start_mass > 0.0 {
        (way + mass * reach) / start_mass
    } else {
        f64::INFINITY
    }
}

/// Whether a cosine can be on both sides of a threshold on a way between two outputs.
///
/// Every point of the way is within half of it from one of its `ends`, given as cosine and norm; an output of
/// norm n that moves by r turns by asin(r / n) at most.
pub(super) fn may_cross(way: f64, ends: [(f64, f64); 2], thresholds: &[f64]) -> bool {
    let mut low = f64::INFINITY;
    let mut high = f64::NEG_INFINITY;
    for (cosine, norm) in ends {
        let turn = way / 2.0 / norm;
        // Written so that NaN and infinity are evaluated, too.
        if !(turn < 1.0 && (-1.0 - ROUNDING..=1.0 + ROUNDING).contains(&cosine)) {
            return true;
        }
        let (angle, turn) = (cosine.clamp(-1.0, 1.0).acos(), turn.asin());
        low = low.min((angle + turn).min(std::f64::consts::PI).cos());
        high = high.max((angle - turn).max(0.0).cos());
    }
    let reached = low - ROUNDING..=high + ROUNDING;
    thresholds
        .iter()
        .any(|threshold| reached.contains(threshold))
}

/// For every head, a bound on ‖W_h x‖ / ‖x‖ over its columns W_h of W_o `(hidden, H_q * D)`.
///
/// The 32-norm of the singular values, from the trace of the Gram matrix's 16th power: at most D^(1/32) times
/// the largest of them. In float64, and each power is scaled to trace 1, so that none leaves its range.
/// Errors: [`crate::error::Error::Candle`].
pub(super) fn spectral_bounds(weight: &Tensor, head_dim: usize) -> Result<Vec<f64>> {
    let heads = weight.dim(1)? / head_dim.max(1);
    (0..heads)
        .map(|h| {
            let columns = weight.narrow(1, h * head_dim, head_dim)?;
            let columns = columns.to_dtype(DType::F64)?.contiguous()?;
            let gram = columns.t()?.matmul(&columns)?;
            let first = trace(&gram)?;
            if first == 0.0 {
                return Ok(0.0);
            }
            let (mut power, mut logarithm) = ((gram / first)?, first.ln());
            for _ in 0..4 {
                power = power.matmul(&power)?;
                let scale = trace(&power)?;
                power = (power / scale)?;
                logarithm = 2.0 * logarithm + scale.ln();
            }
            Ok((logarithm / 32.0).exp() * MARGIN)
        })
        .collect()
}

fn trace(matrix: &Tensor) -> Result<f64> {
    let rows = matrix.to_vec2::<f64>()?;
    Ok(rows.iter().enumerate().map(|(i, row)| row[i]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_way_that_stays_between_thresholds_needs_no_look() {
        // cos 0.95 is an angle of 18.19 degrees, 0.9 of 25.84 and 0.99 of 8.11.
        let ends = [(0.95, 1.0), (0.95, 1.0)];
        assert!(!may_cross(0.2, ends, &[0.9, 0.99]));
        assert!(may_cross(0.3, ends, &[0.9, 0.99]));
        assert!(!may_cross(0.3, ends, &[0.5, 0.999]));
        // A threshold between the ends is crossed, however short the way.
        assert!(may_cross(0.1, [(0.94, 1.0), (0.96, 1.0)], &[0.95]));
        assert!(may_cross(0.0, ends, &[0.95]));
        for (cosine, norm) in [(f64::NAN, 1.0), (0.5, 0.0), (0.5, f64::NAN)] {
            assert!(may_cross(0.1, [(cosine, norm), (0.5, 1.0)], &[0.9]));
        }
        assert!(may_cross(f64::INFINITY, ends, &[0.1]));
    }

    #[test]
    fn stretches_are_bounded_from_above_and_closely() {
        // Two heads of D = 2: diag(3, 1) and a rotation by 30 degrees times 2.
        let (c, s) = (3f32.sqrt(), 1f32);
        let rows = [[3.0, 0.0, c, -s], [0.0, 1.0, s, c]];
        let weight = Tensor::new(&rows, &Device::Cpu).unwrap();
        let bounds = spectral_bounds(&weight, 2).unwrap();
        for (bound, exact) in bounds.iter().zip([3.0, 2.0]) {
            assert!((exact..exact * 2f64.powf(1.0 / 32.0) * 1.001).contains(bound));
        }
        let zero = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(spectral_bounds(&zero, 2).unwrap(), [0.0]);
    }

    /// Every singular value alike, and one alone: the ends of what the 32-norm sees.
    #[test]
    fn wide_heads_and_single_directions_are_bounded() {
        for d in [256, 1024] {
            let flat = (Tensor::eye(d, DType::F32, &Device::Cpu).unwrap() * 1e-3).unwrap();
            let bound = spectral_bounds(&flat, d).unwrap()[0];
            let most = 1e-3 * (d as f64).powf(1.0 / 32.0);
            assert!((1e-3..most * 1.002).contains(&bound), "{d}: {bound}");
        }
        let ones = Tensor::ones((40, 24), DType::F32, &Device::Cpu).unwrap();
        let bound = spectral_bounds(&ones, 24).unwrap()[0];
        let exact = 960f64.sqrt();
        assert!((exact..exact * 1.002).contains(&bound), "{bound}");
    }

    #[test]
    fn ways_by_hand() {
        // Keys of probability 0.1 and 0.05 with values of length 3 and 1, after 0.5 with a mean of length 2.
        assert!((renormalised_way(0.35, 0.15, 0.5, 3.0) - 1.6).abs() < 1e-12);
        assert_eq!(renormalised_way(0.0, 0.0, 0.0, 1.0), f64::INFINITY);
    }
}
