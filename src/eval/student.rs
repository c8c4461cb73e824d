//! Tails of the normal and of Student's t distribution.

use std::f64::consts::{FRAC_2_PI, PI};

/// Probability that a standard normal variable lies below `x`.
pub(super) fn normal_below(x: f64) -> f64 {
    // Beyond, a tail is smaller than the rounding of the series.
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    (0.5 + density * sum).clamp(0.0, 1.0)
}

/// Probability that a t variable with `degrees` degrees of freedom lies within ±`t`.
///
/// Paper: Abramowitz and Stegun, 26.7.3 and 26.7.4: finite sums, exact for whole degrees.
fn within(t: f64, degrees: usize) -> f64 {
    let root = (degrees as f64).sqrt();
    let (angle, length) = ((t / root).atan(), t.hypot(root));
    let (sine, cosine) = (t / length, root / length);
    let odd = degrees % 2 == 1;
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if degrees == 1 { 0.0 } else { term };
    let mut step = if odd { 2 } else { 1 };
    while step + 2 < degrees {
        term *= cosine * cosine * step as f64 / (step + 1) as f64;
        sum += term;
        step += 2;
    }
    if odd {
        FRAC_2_PI * (angle + sine * sum)
    } else {
        sine * sum
    }
}

/// The t with which a share `inside` of the distribution with `degrees` degrees of freedom lies within ±t.
///
/// `degrees` is at least 1 and `inside` below 1.
pub(super) fn two_sided(inside: f64, degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while within(high, degrees) < inside && high < 1e6 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if within(middle, degrees) < inside {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn the_normal_distribution_has_its_tabled_values() {
        for (x, below) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (-1.959_963_984_540_054, 0.025),
            (-3.0, 0.001_349_898_031_630_095),
            (6.0, 0.999_999_999_013_412_4),
        ] {
            assert_abs_diff_eq!(normal_below(x), below, epsilon = 1e-14);
        }
        assert_eq!(normal_below(-40.0), 0.0);
        assert_eq!(normal_below(f64::INFINITY), 1.0);
    }

    #[test]
    fn students_t_has_its_tabled_values() {
        for (degrees, t) in [
            (1, 12.706_204_736),
            (2, 4.302_652_730),
            (3, 3.182_446_305),
            (4, 2.776_445_105),
            (7, 2.364_624_252),
            (30, 2.042_272_456),
            (49, 2.009_575_237),
        ] {
            assert_abs_diff_eq!(two_sided(0.95, degrees), t, epsilon = 1e-8);
        }
        assert_abs_diff_eq!(two_sided(0.95, 1_000_000), 1.959_966_357, epsilon = 1e-7);
    }
}
