//! Means and paired differences of measured values, with intervals and a verdict.

use serde::Serialize;

use super::bootstrap::{Bootstrap, Interval};
use super::metric::Direction;
use super::sign_test::sign_test;

/// Fewest pairs that a verdict is given for: below, intervals of skewed samples cover too seldom.
pub const FEWEST_PAIRS: usize = 8;

/// Fewest pairs that must differ for a difference to be called shown: with five, the sign test cannot reach 5 %.
pub const FEWEST_DIFFERENT: usize = 6;

/// A sample's mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// Number of values.
    pub n: usize,
    /// Values left out because they are not finite.
    pub dropped: usize,
    /// The mean; NaN (JSON: null) where n is 0.
    pub mean: f64,
    /// 95 % interval of the mean; none where n is below 2.
    pub interval: Option<Interval>,
}

/// A paired comparison of a method with a baseline over the same prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Number of pairs.
    pub n: usize,
    /// Pairs left out because one value or both are not finite.
    pub dropped: usize,
    /// Mean of the method over the pairs.
    pub mean: f64,
    /// Mean of the baseline over the pairs.
    pub baseline: f64,
    /// Mean of method − baseline over the pairs; NaN (JSON: null) where n is 0.
    pub difference: f64,
    /// 95 % interval of the difference; none where n is below 2.
    pub interval: Option<Interval>,
    /// Pairs in which the method's value is the higher one.
    pub above: usize,
    /// Pairs in which the method's value is the lower one.
    pub below: usize,
    /// Pairs of equal values, which the sign test leaves out.
    pub ties: usize,
    /// Exact two-sided p value of the sign test over the pairs that differ; 1 where none does.
    pub sign_test_p: f64,
}

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval lies on the good side of 0.
    Better,
    /// The interval lies on the bad side of 0.
    Worse,
    /// The interval holds 0.
    NoDifferenceShown,
    /// Fewer than [`FEWEST_PAIRS`] pairs, or an interval without 0 that rests on fewer than
    /// [`FEWEST_DIFFERENT`] pairs that differ.
    TooFewPrompts,
}

impl Verdict {
    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceShown => "no difference shown",
            Self::TooFewPrompts => "too few prompts",
        }
    }
}

/// The mean of the finite `values` with its interval.
pub fn mean(values: &[f64], bootstrap: Bootstrap) -> Mean {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    Mean {
        n: finite.len(),
        dropped: values.len() - finite.len(),
        mean: average(&finite),
        interval: bootstrap.interval(&finite),
    }
}

/// Compares method and baseline over `pairs` of (method, baseline), each of one prompt.
///
/// The differences are resampled, not the two samples: what makes a prompt hard for both cancels.
pub fn paired(pairs: &[(f64, f64)], bootstrap: Bootstrap) -> Paired {
    let finite = |(method, baseline): &(f64, f64)| method.is_finite() && baseline.is_finite();
    let kept: Vec<(f64, f64)> = pairs.iter().copied().filter(finite).collect();
    let (methods, baselines): (Vec<f64>, Vec<f64>) = kept.iter().copied().unzip();
    let differences: Vec<f64> = kept.iter().map(|(m, b)| m - b).collect();
    let above = kept.iter().filter(|(m, b)| m > b).count();
    let below = kept.iter().filter(|(m, b)| m < b).count();
    Paired {
        n: kept.len(),
        dropped: pairs.len() - kept.len(),
        mean: average(&methods),
        baseline: average(&baselines),
        difference: average(&differences),
        interval: bootstrap.interval(&differences),
        above,
        below,
        ties: kept.len() - above - below,
        sign_test_p: sign_test(above, below),
    }
}

impl Paired {
    /// What the comparison shows of a metric; none for one that is neither good nor bad.
    pub fn verdict(&self, direction: Direction) -> Option<Verdict> {
        let higher_is_better = match direction {
            Direction::Higher => true,
            Direction::Lower => false,
            Direction::Neutral => return None,
        };
        let interval = match self.interval {
            Some(interval) if self.n >= FEWEST_PAIRS => interval,
            _ => return Some(Verdict::TooFewPrompts),
        };
        Some(if interval.holds(0.0) {
            Verdict::NoDifferenceShown
        } else if self.above + self.below < FEWEST_DIFFERENT {
            Verdict::TooFewPrompts
        } else if (interval.low > 0.0) == higher_is_better {
            Verdict::Better
        } else {
            Verdict::Worse
        })
    }
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    const DRAWS: Bootstrap = Bootstrap {
        seed: 5,
        resamples: 2000,
    };

    fn verdict(differences: &[f64], direction: Direction) -> Option<Verdict> {
        let pairs: Vec<_> = differences.iter().map(|d| (0.5 + d, 0.5)).collect();
        paired(&pairs, DRAWS).verdict(direction)
    }

    #[test]
    fn a_mean_leaves_out_and_counts_what_is_not_finite() {
        let sample = mean(&[1.0, f64::NAN, 3.0, f64::INFINITY], DRAWS);
        assert_eq!((sample.n, sample.dropped, sample.mean), (2, 2, 2.0));
        let interval = sample.interval.unwrap();
        assert_eq!((interval.low, interval.high), (1.0, 3.0));
        let one = mean(&[4.0], DRAWS);
        assert_eq!((one.n, one.mean, one.interval), (1, 4.0, None));
        let none = mean(&[f64::NAN], DRAWS);
        assert_eq!((none.n, none.dropped, none.interval), (0, 1, None));
        assert!(none.mean.is_nan());
    }

    #[test]
    fn a_comparison_counts_pairs_ties_and_what_it_drops() {
        let nan = f64::NAN;
        let pairs = [
            (0.75, 0.25),
            (0.5, 0.5),
            (nan, 0.5),
            (0.5, nan),
            (nan, nan),
            (0.0, 0.5),
            (1.0, 0.25),
        ];
        let result = paired(&pairs, DRAWS);
        assert_eq!((result.n, result.dropped), (4, 3));
        assert_eq!((result.above, result.below, result.ties), (2, 1, 1));
        assert_abs_diff_eq!(result.mean, 2.25 / 4.0);
        assert_abs_diff_eq!(result.baseline, 1.5 / 4.0);
        assert_abs_diff_eq!(result.difference, 0.75 / 4.0);
        assert_eq!(result.sign_test_p, 1.0);
    }

    #[test]
    fn equal_samples_show_no_difference() {
        let result = paired(&[(0.3, 0.3); 12], DRAWS);
        assert_eq!((result.difference, result.ties), (0.0, 12));
        assert_eq!(result.sign_test_p, 1.0);
        assert!(result.interval.unwrap().holds(0.0));
        let verdict = result.verdict(Direction::Higher);
        assert_eq!(verdict, Some(Verdict::NoDifferenceShown));
    }

    #[test]
    fn few_prompts_show_nothing() {
        for n in 0..FEWEST_PAIRS {
            let verdict = verdict(&vec![0.25; n], Direction::Higher);
            assert_eq!(verdict, Some(Verdict::TooFewPrompts), "{n} pairs");
        }
        assert_eq!(
            verdict(&[0.25; FEWEST_PAIRS], Direction::Higher),
            Some(Verdict::Better)
        );
        // Five of twelve differ, all in one direction: the interval lies above 0, the sign test has p = 1/16.
        let mut five = [0.0; 12];
        five[..5].fill(0.5);
        assert_eq!(
            verdict(&five, Direction::Higher),
            Some(Verdict::TooFewPrompts)
        );
        let mut six = [0.0; 12];
        six[..6].fill(0.5);
        assert_eq!(verdict(&six, Direction::Higher), Some(Verdict::Better));
    }

    #[test]
    fn the_direction_of_a_metric_decides_what_is_better() {
        let up: Vec<f64> = (0..10).map(|i| 0.1 + 0.01 * f64::from(i)).collect();
        let down: Vec<f64> = up.iter().map(|d| -d).collect();
        for (differences, direction, expected) in [
            (&up, Direction::Higher, Some(Verdict::Better)),
            (&up, Direction::Lower, Some(Verdict::Worse)),
            (&down, Direction::Higher, Some(Verdict::Worse)),
            (&down, Direction::Lower, Some(Verdict::Better)),
            (&up, Direction::Neutral, None),
        ] {
            assert_eq!(verdict(differences, direction), expected);
        }
    }

    /// Prompts differ by 100, the method by 1 on each: two separate intervals overlap almost entirely.
    #[test]
    fn a_small_gain_on_every_prompt_is_seen_through_their_differences() {
        let pairs: Vec<(f64, f64)> = (0..16)
            .map(|i| {
                let (hardness, noise) = (f64::from(i * 100), 0.2 * f64::from(i % 3));
                (hardness + 1.0 + noise, hardness)
            })
            .collect();
        let result = paired(&pairs, DRAWS);
        assert_abs_diff_eq!(result.difference, 1.1875, epsilon = 1e-9);
        let interval = result.interval.unwrap();
        assert!(interval.low > 1.0 && interval.high < 1.4, "{interval:?}");
        assert_eq!(result.verdict(Direction::Higher), Some(Verdict::Better));
        // The same numbers with the baselines in another order: the pairing is what showed it.
        let shifted: Vec<_> = (0..16)
            .map(|i| (pairs[i].0, pairs[(i + 5) % 16].1))
            .collect();
        let unpaired = paired(&shifted, DRAWS);
        assert_abs_diff_eq!(unpaired.difference, result.difference, epsilon = 1e-9);
        assert_eq!(
            unpaired.verdict(Direction::Higher),
            Some(Verdict::NoDifferenceShown)
        );
    }
}
