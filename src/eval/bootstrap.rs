//! The interval of a mean: a percentile bootstrap with tails for small samples.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::student::{normal_below, two_sided};

/// Share of intervals that should hold the true mean.
pub const LEVEL: f64 = 0.95;

/// How a bootstrap draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Seed of the draws; samples of equal size draw the same places.
    pub seed: u64,
    /// Number of samples drawn with replacement.
    pub resamples: usize,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            seed: 0,
            resamples: 10_000,
        }
    }
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in the interval, ends included.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl Bootstrap {
    /// The interval of the mean of `values`, all finite; none for fewer than two values or no resample.
    ///
    /// The percentiles of the resampled means at Φ(±√(n/(n-1))·t), t being Student's 97.5 % point with n - 1
    /// degrees of freedom; for large n these are 2.5 % and 97.5 %. The plain percentiles are those of a
    /// sample whose variance is too small by (n-1)/n and taken for known: at n = 8 they cover 88 % of the
    /// time instead of 95 %. An end within rounding of 0 is 0.
    ///
    /// Paper: Hesterberg, arXiv 1411.5279, "expanded percentile".
    /// Differs: as published.
    pub fn interval(self, values: &[f64]) -> Option<Interval> {
        let n = values.len();
        if n < 2 || self.resamples == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let deviations: Vec<f64> = values.iter().map(|value| value - mean).collect();
        let means = self.resampled(&deviations);
        let widening = (n as f64 / (n - 1) as f64).sqrt();
        let tail = normal_below(-widening * two_sided(LEVEL, n - 1));
        let scale = values.iter().fold(0.0, |most, v| f64::max(most, v.abs()));
        let end = |share| {
            let end = mean + percentile(&means, share);
            // Sums of the same numbers in another order differ by their rounding, which is no difference.
            if end.abs() <= 1e-12 * scale { 0.0 } else { end }
        };
        Some(Interval {
            low: end(tail),
            high: end(1.0 - tail),
        })
    }

    /// Means of resamples of `deviations`, in ascending order.
    fn resampled(self, deviations: &[f64]) -> Vec<f64> {
        let n = deviations.len();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // The high half of the product is uniform to within n / 2^32, without a division.
        let mut draw = || (u64::from(rng.next_u32()) * n as u64) >> 32;
        let mut means: Vec<f64> = (0..self.resamples)
            .map(|_| (0..n).map(|_| deviations[draw() as usize]).sum::<f64>() / n as f64)
            .collect();
        means.sort_unstable_by(f64::total_cmp);
        means
    }
}

/// The value below which a share of `sorted` lies, interpolated between neighbours; `sorted` is not empty.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len() - 1;
    let place = share * last as f64;
    let below = (place.floor() as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    low + (place - below as f64) * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(percentile(&sorted, 0.0), 1.0);
        assert_eq!(percentile(&sorted, 0.5), 3.0);
        assert_abs_diff_eq!(percentile(&sorted, 0.9), 6.8, epsilon = 1e-12);
        assert_eq!(percentile(&sorted, 1.0), 8.0);
        assert_eq!(percentile(&[5.0], 0.3), 5.0);
    }

    /// Of two values a mean is their lower one, their middle or their upper one; t is so wide (tail below
    /// 10⁻¹⁶) that the interval is the whole range.
    #[test]
    fn two_values_give_their_range() {
        let interval = Bootstrap::default().interval(&[1.0, 3.0]).unwrap();
        assert_eq!((interval.low, interval.high), (1.0, 3.0));
    }

    #[test]
    fn what_does_not_vary_has_no_width() {
        let interval = Bootstrap::default().interval(&[0.25; 9]).unwrap();
        assert_eq!((interval.low, interval.high), (0.25, 0.25));
        let none = Bootstrap::default().interval(&[0.0; 9]).unwrap();
        assert_eq!((none.low, none.high), (0.0, 0.0));
    }

    #[test]
    fn too_little_has_no_interval() {
        assert_eq!(Bootstrap::default().interval(&[]), None);
        assert_eq!(Bootstrap::default().interval(&[1.0]), None);
        let no_draw = Bootstrap {
            seed: 1,
            resamples: 0,
        };
        assert_eq!(no_draw.interval(&[1.0, 2.0]), None);
    }

    #[test]
    fn a_seed_repeats_and_large_samples_agree_with_the_normal_approximation() {
        let values: Vec<f64> = (0..400).map(|i| f64::from((i * 37) % 101)).collect();
        let first = Bootstrap::default().interval(&values).unwrap();
        assert_eq!(Bootstrap::default().interval(&values), Some(first));
        let other = Bootstrap {
            seed: 1,
            ..Bootstrap::default()
        };
        assert_ne!(other.interval(&values), Some(first));
        let mean = values.iter().sum::<f64>() / 400.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 399.0;
        let half = 1.966 * (variance / 400.0).sqrt();
        assert_abs_diff_eq!(first.low, mean - half, epsilon = 0.06 * half);
        assert_abs_diff_eq!(first.high, mean + half, epsilon = 0.06 * half);
    }

    /// Most resamples hold only zeros, whose deviations from the mean add up to it but for rounding.
    #[test]
    fn rounding_does_not_move_an_end_past_zero() {
        for value in [0.1, 0.3, 0.7, -0.1, -0.3, -0.7] {
            for zeros in 5..30 {
                let mut values = vec![0.0; zeros];
                values.push(value);
                let interval = Bootstrap::default().interval(&values).unwrap();
                let nearest = if value > 0.0 {
                    interval.low
                } else {
                    interval.high
                };
                assert_eq!(nearest, 0.0, "{value} and {zeros} zeros");
            }
        }
    }
}
