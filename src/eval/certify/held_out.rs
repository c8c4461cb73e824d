//! What a certified budget loses on units that it was not calibrated on.

use serde::Serialize;

use super::binomial::share_interval;
use super::goal::Goal;
use super::within;
use crate::eval::bootstrap::{Bootstrap, Interval};

/// A certified budget on other units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// Number of units.
    pub units: usize,
    /// Mean loss, or share of units that lose more than the bound; of one unit that alone.
    pub seen: f64,
    /// Units that lose more than the bound.
    pub violations: usize,
    /// 95 % interval of what was seen: exact for a share, a bootstrap for a mean; none for a mean of one unit.
    pub interval: Option<Interval>,
    /// What that says of the bound.
    pub verdict: HeldOutVerdict,
}

/// What held-out units say of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOutVerdict {
    /// The interval lies within the bound.
    Holds,
    /// What was seen is within the bound, and the interval reaches beyond it.
    Within,
    /// What was seen is above the bound, and the interval holds it.
    Above,
    /// The interval lies above the bound.
    Broken,
}

impl HeldOutVerdict {
    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "the bound holds there",
            Self::Within => "within the bound, but the interval reaches beyond it",
            Self::Above => "above the bound, but the interval holds it",
            Self::Broken => "the bound is broken there",
        }
    }
}

impl HeldOut {
    /// Of the losses of held-out units at the certified budget; none without a unit.
    pub fn of(goal: &Goal, losses: &[f64], bootstrap: Bootstrap) -> Option<Self> {
        if losses.is_empty() {
            return None;
        }
        let (seen, violations) = goal.seen(losses);
        let (bound, interval) = match goal.except {
            None => (goal.at_most, bootstrap.interval(losses)),
            Some(share) => (share, share_interval(violations, losses.len())),
        };
        let verdict = match (within(seen, bound), interval) {
            (true, Some(interval)) if within(interval.high, bound) => HeldOutVerdict::Holds,
            (true, _) => HeldOutVerdict::Within,
            (false, Some(interval)) if interval.low > bound => HeldOutVerdict::Broken,
            (false, _) => HeldOutVerdict::Above,
        };
        Some(Self {
            units: losses.len(),
            seen,
            violations,
            interval,
            verdict,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(losses: &[f64], at_most: f64, except: Option<f64>) -> HeldOutVerdict {
        let goal = Goal {
            at_most,
            except,
            most: 1.0,
            confidence: None,
        };
        HeldOut::of(&goal, losses, Bootstrap::default())
            .unwrap()
            .verdict
    }

    #[test]
    fn verdicts_say_where_the_interval_lies() {
        let losses: Vec<f64> = (0..40).map(|i| f64::from(i % 4) / 10.0).collect();
        // The mean is 0.15, its interval about 0.11 to 0.19.
        for (at_most, expected) in [
            (0.25, HeldOutVerdict::Holds),
            (0.16, HeldOutVerdict::Within),
            (0.14, HeldOutVerdict::Above),
            (0.05, HeldOutVerdict::Broken),
        ] {
            assert_eq!(verdict(&losses, at_most, None), expected, "{at_most}");
        }
        assert_eq!(verdict(&[0.1], 0.2, None), HeldOutVerdict::Within);
        assert_eq!(verdict(&[0.3], 0.2, None), HeldOutVerdict::Above);
    }

    #[test]
    fn a_share_that_was_never_seen_still_has_an_interval() {
        // None of 40 above: at most 8.8 %.
        assert_eq!(verdict(&[0.0; 40], 0.5, Some(0.1)), HeldOutVerdict::Holds);
        assert_eq!(verdict(&[0.0; 20], 0.5, Some(0.1)), HeldOutVerdict::Within);
        assert_eq!(verdict(&[0.9; 20], 0.5, Some(0.1)), HeldOutVerdict::Broken);
        let goal = Goal {
            at_most: 0.5,
            except: Some(0.1),
            most: 1.0,
            confidence: None,
        };
        assert_eq!(HeldOut::of(&goal, &[], Bootstrap::default()), None);
    }
}
