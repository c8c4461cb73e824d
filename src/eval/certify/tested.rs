//! Learn-then-test: p values of "the loss is above the bound", for a bound that holds with a confidence.

use std::f64::consts::E;

use super::binomial::at_most;

/// p value of a mean loss at or above `limit`, where `mean` was seen over `units` independent ones.
///
/// The smaller of Hoeffding's and Bentkus's bounds on the probability of so small a mean.
///
/// Paper: learn then test (arXiv 2110.01052), the Hoeffding-Bentkus p value of section 3.1.1 (after arXiv 2101.02703).
/// Differs: as published. Units: losses and limit as shares of the largest loss, 0 to 1.
pub fn mean_p(mean: f64, units: usize, limit: f64) -> f64 {
    let n = units as f64;
    let hoeffding = (-n * divergence(mean.min(limit), limit)).exp();
    // A sum of whole losses may lie a rounding above its number.
    let sum = (n * mean - 1e-9).ceil().max(0.0) as usize;
    let bentkus = E * at_most(sum, units, limit);
    hoeffding.min(bentkus).min(1.0)
}

/// KL divergence of a coin of `a` from one of `b`, in nats.
fn divergence(a: f64, b: f64) -> f64 {
    let term = |x: f64, y: f64| if x > 0.0 { x * (x / y).ln() } else { 0.0 };
    term(a, b) + term(1.0 - a, 1.0 - b)
}

/// The largest mean loss of `units` with a [`mean_p`] of at most `p`; none where even no loss at all has more.
pub fn mean_allowed(limit: f64, units: usize, p: f64) -> Option<f64> {
    if mean_p(0.0, units, limit) > p {
        return None;
    }
    let (mut passes, mut fails) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (passes + fails);
        if mean_p(middle, units, limit) <= p {
            passes = middle;
        } else {
            fails = middle;
        }
    }
    Some(passes)
}

/// p value of a share of violations at or above `share`, where `violations` of `units` independent ones were seen.
///
/// Paper: learn then test (arXiv 2110.01052), the exact binomial p value of losses that are 0 or 1. Differs: as published.
pub fn share_p(violations: usize, units: usize, share: f64) -> f64 {
    if units == 0 {
        return 1.0;
    }
    at_most(violations, units, share)
}

/// The most violations of `units` with a [`share_p`] of at most `p`; none where even no violation has more.
pub fn violations_allowed(share: f64, units: usize, p: f64) -> Option<usize> {
    (0..units)
        .take_while(|k| share_p(*k, units, share) <= p)
        .last()
}

/// The fewest units with which anything passes, at no loss at all: (1 − limit)^n ≤ p.
pub fn fewest_units(limit: f64, p: f64) -> usize {
    (p.ln() / (-limit).ln_1p()).ceil().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn violations_of_the_binomial_test() {
        for (share, allowed) in [(0.1, [1, 5, 14]), (0.05, [0, 1, 5])] {
            let found = [50, 100, 200].map(|units| violations_allowed(share, units, 0.1));
            assert_eq!(found, allowed.map(Some), "{share}");
        }
        for (share, units) in [(0.1, 22), (0.05, 45), (0.01, 230)] {
            assert_eq!(fewest_units(share, 0.1), units);
            assert_eq!(violations_allowed(share, units, 0.1), Some(0));
            assert_eq!(violations_allowed(share, units - 1, 0.1), None);
        }
        assert_eq!(share_p(0, 0, 0.1), 1.0);
    }

    #[test]
    fn the_p_value_of_a_mean_by_hand() {
        // Nothing lost: Hoeffding's bound is 0.9^50.
        assert_abs_diff_eq!(mean_p(0.0, 50, 0.1), 0.9f64.powi(50), epsilon = 1e-15);
        // 0.1 ln 0.4 + 0.9 ln 1.2 = 0.0724583...
        let by_hand = (-50.0 * (0.1 * 0.4f64.ln() + 0.9 * 1.2f64.ln())).exp();
        let bentkus = E * at_most(5, 50, 0.25);
        assert_abs_diff_eq!(mean_p(0.1, 50, 0.25), by_hand.min(bentkus), epsilon = 1e-15);
        assert!(by_hand > bentkus / E && mean_p(0.1, 50, 0.25) < 0.03);
        // At the limit and above nothing is shown.
        assert_eq!((mean_p(0.25, 50, 0.25), mean_p(0.9, 50, 0.25)), (1.0, 1.0));
    }

    #[test]
    fn the_allowed_mean_is_where_the_p_value_crosses() {
        for (limit, units) in [(0.1, 50), (0.25, 50), (0.05, 200)] {
            let allowed = mean_allowed(limit, units, 0.1).unwrap();
            assert!(mean_p(allowed, units, limit) <= 0.1);
            assert!(
                mean_p(allowed + 1e-6, units, limit) > 0.1,
                "{limit} {units}"
            );
        }
        assert_eq!(mean_allowed(0.1, 21, 0.1), None);
        assert!(mean_allowed(0.1, 22, 0.1).is_some());
    }
}
