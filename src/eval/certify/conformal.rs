//! Conformal risk control: a bound on the expected loss of a new unit, over what is calibrated on and the new one.

use super::typed;

/// The mean loss that is held against the bound: that of the units and one more that loses `most`.
///
/// The smallest budget at which this is at most the bound, for losses that no larger budget raises, has an expected loss
/// within the bound on a new unit that is exchangeable with these.
///
/// Paper: conformal risk control (arXiv 2208.02814), Eq. 4 and theorem 1. Differs: as published.
/// Units: those of the losses, each between 0 and `most`.
pub fn corrected_mean(mean: f64, units: usize, most: f64) -> f64 {
    let n = units as f64;
    (n * mean + most) / (n + 1.0)
}

/// The largest mean loss of `units` that passes; none where even no loss at all would not.
pub fn mean_allowed(at_most: f64, units: usize, most: f64) -> Option<f64> {
    let n = units as f64;
    let allowed = typed(at_most * (n + 1.0)) - most;
    (units > 0 && allowed >= 0.0).then(|| (allowed / n).min(most))
}

/// The most of `units` that may violate a bound which a `share` of all may violate: ⌊share·(n + 1) − 1⌋.
///
/// The same rule on losses that are 0 or 1.
pub fn violations_allowed(share: f64, units: usize) -> Option<usize> {
    let allowed = typed(share * (units as f64 + 1.0)) - 1.0;
    (units > 0 && allowed >= 0.0).then(|| (allowed.floor() as usize).min(units))
}

/// The fewest units with which anything passes, at no loss at all: ⌈most / at_most − 1⌉.
pub fn fewest_units(at_most: f64, most: f64) -> usize {
    let exact = most / typed(at_most) - 1.0;
    exact.ceil().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn violations_by_hand() {
        for (share, units, allowed) in [
            (0.1, 100, Some(9)),
            (0.05, 100, Some(4)),
            (0.1, 99, Some(9)),
            (0.1, 98, Some(8)),
            (0.1, 9, Some(0)),
            (0.1, 8, None),
            (0.29, 99, Some(28)),
            (0.1, 0, None),
        ] {
            assert_eq!(
                violations_allowed(share, units),
                allowed,
                "{share} of {units}"
            );
        }
    }

    #[test]
    fn means_by_hand() {
        // Losses 0, 1, 0.5 and one more of 2: 3.5 / 4.
        assert_eq!(corrected_mean(0.5, 3, 2.0), 0.875);
        assert_abs_diff_eq!(mean_allowed(0.875, 3, 2.0).unwrap(), 0.5, epsilon = 1e-11);
        assert_eq!(mean_allowed(0.4, 3, 2.0), None);
        assert!(mean_allowed(0.5, 3, 2.0).unwrap().abs() < 1e-11);
        assert_eq!(mean_allowed(1.0, 0, 2.0), None);
    }

    #[test]
    fn as_many_units_are_needed_as_let_no_loss_pass() {
        for (at_most, most, units) in [
            (0.1, 1.0, 9),
            (0.05, 1.0, 19),
            (0.05, 2.0, 39),
            (0.9, 1.0, 1),
        ] {
            assert_eq!(fewest_units(at_most, most), units, "{at_most} of {most}");
            assert!(mean_allowed(at_most, units, most).is_some());
            assert!(units == 1 || mean_allowed(at_most, units - 1, most).is_none());
        }
    }
}
