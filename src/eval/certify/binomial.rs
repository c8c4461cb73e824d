//! The binomial distribution: its lower tail, and the exact interval of a share.

use crate::eval::bootstrap::{Interval, LEVEL};

/// Probability of at most `k` of `n` independent events that each have probability `p`.
///
/// Paper: none: the textbook's sum, taken over the shorter tail and relative to its largest term.
pub fn at_most(k: usize, n: usize, p: f64) -> f64 {
    if k >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    if (k as f64) < n as f64 * p {
        tail(k, n, p)
    } else {
        1.0 - tail(n - k - 1, n, 1.0 - p)
    }
}

/// The same for `k` below the mean n·p.
fn tail(k: usize, n: usize, p: f64) -> f64 {
    // In logarithms, since (1 - p)^n leaves the range of floats.
    let (of_event, of_none) = (p.ln(), (-p).ln_1p());
    let mut largest = k as f64 * of_event + (n - k) as f64 * of_none;
    for j in 0..k {
        largest += ((n - j) as f64 / (j + 1) as f64).ln();
    }
    let odds = (1.0 - p) / p;
    let (mut term, mut sum) = (1.0, 1.0);
    for j in (1..=k).rev() {
        term *= odds * j as f64 / (n - j + 1) as f64;
        sum += term;
    }
    (largest.exp() * sum).min(1.0)
}

/// The exact 95 % interval of a share of which `k` of `n` were seen; none for an n of 0.
///
/// A bootstrap of no violation at all would have no width, this one has.
///
/// Paper: Clopper and Pearson, Biometrika 26 (1934). Differs: as published; the level is [`LEVEL`].
pub fn share_interval(k: usize, n: usize) -> Option<Interval> {
    let beside = (1.0 - LEVEL) / 2.0;
    let low = match k {
        0 => 0.0,
        k => falling_to(1.0 - beside, |p| at_most(k - 1, n, p)),
    };
    let high = if k < n {
        falling_to(beside, |p| at_most(k, n, p))
    } else {
        1.0
    };
    (n > 0).then_some(Interval { low, high })
}

/// The p between 0 and 1 at which a falling function comes down to `value`.
fn falling_to(value: f64, of: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if of(middle) > value {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn tails_by_hand() {
        // 1, 4, 6, 4, 1 sixteenths.
        for (k, sixteenths) in [(0, 1.0), (1, 5.0), (2, 11.0), (3, 15.0), (4, 16.0)] {
            assert_abs_diff_eq!(at_most(k, 4, 0.5), sixteenths / 16.0, epsilon = 1e-15);
        }
        assert_abs_diff_eq!(at_most(0, 3, 0.2), 0.512, epsilon = 1e-15);
        assert_abs_diff_eq!(at_most(1, 3, 0.2), 0.896, epsilon = 1e-15);
        assert_eq!((at_most(0, 5, 0.0), at_most(4, 5, 1.0)), (1.0, 0.0));
        assert_eq!((at_most(5, 5, 1.0), at_most(0, 0, 0.5)), (1.0, 1.0));
    }

    #[test]
    fn long_tails_keep_their_digits() {
        let ratio = at_most(0, 1000, 0.5) / 0.5f64.powi(1000);
        assert_abs_diff_eq!(ratio, 1.0, epsilon = 1e-12);
        // As many events as are expected or fewer come a little more than half of the time.
        let half = at_most(10_000, 100_000, 0.1);
        assert!((0.5..0.51).contains(&half), "{half}");
        let (below, above) = (at_most(399, 1000, 0.4), at_most(600, 1000, 0.6));
        assert_abs_diff_eq!(below + above, 1.0, epsilon = 1e-12);
    }

    #[test]
    fn intervals_of_shares_have_their_tabled_values() {
        for (k, n, low, high) in [
            (0, 10, 0.0, 0.308_497),
            (1, 10, 0.002_529, 0.445_016),
            (5, 10, 0.187_086, 0.812_914),
            (10, 10, 0.691_503, 1.0),
        ] {
            let interval = share_interval(k, n).unwrap();
            assert_abs_diff_eq!(interval.low, low, epsilon = 1e-6);
            assert_abs_diff_eq!(interval.high, high, epsilon = 1e-6);
        }
        assert_eq!(share_interval(0, 0), None);
    }
}
