//! How sure a mean over prompts is: the interval that charts of results draw.

use super::spread::mean;
use crate::eval::Bootstrap;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// Arithmetic mean.
    pub(super) mean: f64,
    /// Lower end.
    pub(super) low: f64,
    /// Upper end.
    pub(super) high: f64,
}

impl Interval {
    /// Mean and bootstrap interval of one value per prompt; seeded, so equal input gives equal ends.
    pub(super) fn of_mean(values: &[f64]) -> Self {
        let mean = mean(values);
        let interval = Bootstrap::default().interval(values);
        Self {
            mean,
            low: interval.map_or(mean, |i| i.low),
            high: interval.map_or(mean, |i| i.high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_enclose_the_mean_at_two_standard_errors() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let interval = Interval::of_mean(&values);
        assert_eq!(interval.mean, 49.5);
        let half = 1.96 * 28.866 / 10.0;
        assert!((interval.low - (49.5 - half)).abs() < 0.5, "{interval:?}");
        assert!((interval.high - (49.5 + half)).abs() < 0.5, "{interval:?}");
        assert_eq!(interval, Interval::of_mean(&values));
    }

    #[test]
    fn equal_values_and_single_ones_leave_no_doubt() {
        for values in [&[3.0; 7][..], &[3.0]] {
            let interval = Interval::of_mean(values);
            assert_eq!(
                (interval.low, interval.mean, interval.high),
                (3.0, 3.0, 3.0)
            );
        }
    }
}
