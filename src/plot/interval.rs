//! How sure a mean over prompts is: the interval that charts of results draw.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::spread::mean;

/// Means of resamples that an interval is read from.
const RESAMPLES: usize = 4000;

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
    /// Mean and percentile bootstrap interval of one value per prompt; seeded, so equal input gives equal ends.
    pub(super) fn of_mean(values: &[f64]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let count = values.len() as u64;
        let mut draw = || values[((u64::from(random.next_u32()) * count) >> 32) as usize];
        let mut means: Vec<f64> = match values.len() {
            0 | 1 => vec![mean(values)],
            n => (0..RESAMPLES)
                .map(|_| (0..n).map(|_| draw()).sum::<f64>() / n as f64)
                .collect(),
        };
        means.sort_by(f64::total_cmp);
        let outer = means.len() / 40;
        Self {
            mean: mean(values),
            low: means[outer],
            high: means[means.len() - 1 - outer],
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
