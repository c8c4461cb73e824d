//! What is to be certified, and the smallest budget that it holds for.

use serde::Serialize;

use super::units::UnitLosses;
use super::{conformal, tested, within};
use crate::error::{Error, Result};

/// A bound on what a new unit loses.
///
/// Paper: with a confidence learn then test (arXiv 2110.01052), fixed-sequence testing from the largest budget down; without
/// one conformal risk control (arXiv 2208.02814). Differs: as published; losses at a budget are raised to the largest at any
/// larger one before conformal risk control sees them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// Bound on the loss, in its unit.
    pub at_most: f64,
    /// Share of units that may lose more; without it the mean loss is bounded.
    pub except: Option<f64>,
    /// The largest loss there is, by nature or by clipping; read where the mean is bounded.
    pub most: f64,
    /// Share of calibrations in which the bound has to hold; without it, it holds in the mean over calibrations.
    pub confidence: Option<f64>,
}

/// What was found at one budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// As it was asked for.
    pub budget: String,
    /// Mean loss, or share of units that lose more than the bound.
    pub seen: f64,
    /// Units that lose more than the bound.
    pub violations: usize,
    /// What is compared with [`Decision::limit`]: the corrected mean over losses of which none falls as the budget does, or a p
    /// value; none after the budget at which testing stopped.
    pub statistic: Option<f64>,
    /// Whether the bound is certified at it.
    pub passes: bool,
}

/// The budgets for which a bound was certified.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// What every statistic may be at most: the bound, or one less the confidence.
    pub limit: f64,
    /// What was found at every budget, largest first.
    pub steps: Vec<Step>,
    /// The smallest budget that passes, counted from the smallest; none where no budget does.
    #[serde(skip)]
    pub smallest: Option<usize>,
    /// The largest mean loss, or share of violations, that passes; none where so few units let nothing pass.
    pub allowed: Option<f64>,
    /// The most violations that pass, where they are what is bounded.
    pub violations_allowed: Option<usize>,
    /// The fewest units with which anything passes, at no loss at all.
    pub fewest_units: usize,
}

impl Goal {
    /// Refuses bounds that say nothing, or that nothing could meet.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check(&self) -> Result<()> {
        let refuse =
            |what: &str, value: f64, bound: String| Err(Error::invalid(what, value, bound));
        let share = |value: f64| value > 0.0 && value < 1.0;
        if let Some(confidence) = self.confidence.filter(|c| !share(*c)) {
            let bound = "it is between 0 and 1, such as 0.95".to_owned();
            return refuse("confidence", confidence, bound);
        }
        match self.except {
            Some(except) if !share(except) => {
                let bound = "it is a share between 0 and 1, such as 10%".to_owned();
                refuse("share of exceptions", except, bound)
            }
            Some(_) if !(self.at_most >= 0.0 && self.at_most < self.most) => {
                let bound = format!("a loss is at least 0, and at most {}", self.most);
                refuse("bound on the loss", self.at_most, bound)
            }
            None if !(self.at_most > 0.0 && self.at_most < self.most && self.most.is_finite()) => {
                let bound = format!(
                    "a mean can be bounded above 0 and below the largest loss of {}: take another bound, or another --clip",
                    self.most
                );
                refuse("bound on the mean loss", self.at_most, bound)
            }
            _ => Ok(()),
        }
    }

    /// What a loss counts: itself, or whether it is above the bound.
    fn counted(&self, loss: f64) -> f64 {
        match self.except {
            None => loss,
            Some(_) => f64::from(u8::from(loss > self.at_most)),
        }
    }

    /// The bound on the mean of what is counted, and the largest that can be counted.
    fn bound(&self) -> (f64, f64) {
        match self.except {
            None => (self.at_most, self.most),
            Some(share) => (share, 1.0),
        }
    }

    /// Mean of what is counted over units, and the number of those that lose more than the bound.
    pub fn seen(&self, losses: &[f64]) -> (f64, usize) {
        let sum: f64 = losses.iter().map(|&loss| self.counted(loss)).sum();
        let violations = losses.iter().filter(|loss| **loss > self.at_most).count();
        (sum / losses.len() as f64, violations)
    }

    /// The smallest budget for which the bound is certified, by the rule that the confidence says.
    ///
    /// Errors: as [`Goal::check`].
    pub fn decide(&self, losses: &UnitLosses) -> Result<Decision> {
        self.check()?;
        let n = losses.units.len();
        let (bound, most) = self.bound();
        let p = self.confidence.map(|confidence| 1.0 - confidence);
        let steps = match p {
            None => self.conformal_steps(losses),
            Some(p) => self.tested_steps(losses, p),
        };
        let violations_allowed = self.except.and_then(|share| match p {
            None => conformal::violations_allowed(share, n),
            Some(p) => tested::violations_allowed(share, n, p),
        });
        let allowed = match (self.except, p) {
            (Some(_), _) => violations_allowed.map(|k| k as f64 / n as f64),
            (None, None) => conformal::mean_allowed(bound, n, most),
            (None, Some(p)) => tested::mean_allowed(bound / most, n, p).map(|mean| mean * most),
        };
        // Those that pass are the first of the steps.
        let passed = steps.iter().take_while(|step| step.passes).count();
        Ok(Decision {
            limit: p.unwrap_or(bound),
            smallest: (passed > 0).then(|| steps.len() - passed),
            steps,
            allowed,
            violations_allowed,
            fewest_units: match p {
                None => conformal::fewest_units(bound, most),
                Some(p) => tested::fewest_units(bound / most, p),
            },
        })
    }

    fn conformal_steps(&self, losses: &UnitLosses) -> Vec<Step> {
        let n = losses.units.len();
        let (bound, most) = self.bound();
        let mut worst = vec![0.0; n];
        let step = |budget: usize| {
            let own = losses.at(budget);
            for (worst, loss) in worst.iter_mut().zip(&own) {
                *worst = f64::max(*worst, self.counted(*loss));
            }
            let mean = worst.iter().sum::<f64>() / n as f64;
            let statistic = conformal::corrected_mean(mean, n, most);
            self.step(losses, budget, Some(statistic), within(statistic, bound))
        };
        (0..losses.budgets.len()).rev().map(step).collect()
    }

    fn tested_steps(&self, losses: &UnitLosses, limit: f64) -> Vec<Step> {
        let n = losses.units.len();
        let (bound, most) = self.bound();
        let mut stopped = false;
        let step = |budget: usize| {
            if stopped {
                return self.step(losses, budget, None, false);
            }
            let (mean, violations) = self.seen(&losses.at(budget));
            let p = match self.except {
                Some(share) => tested::share_p(violations, n, share),
                None => tested::mean_p(mean / most, n, bound / most),
            };
            stopped = !within(p, limit);
            self.step(losses, budget, Some(p), !stopped)
        };
        (0..losses.budgets.len()).rev().map(step).collect()
    }

    fn step(
        &self,
        losses: &UnitLosses,
        budget: usize,
        statistic: Option<f64>,
        passes: bool,
    ) -> Step {
        let (seen, violations) = self.seen(&losses.at(budget));
        Step {
            budget: losses.budgets[budget].clone(),
            seen,
            violations,
            statistic,
            passes,
        }
    }
}

impl Decision {
    /// What was found at the smallest budget that passes.
    pub fn certified(&self) -> Option<&Step> {
        let smallest = self.smallest?;
        self.steps.iter().nth_back(smallest)
    }

    /// Whether the smallest budget that was tried passes: a smaller one may do.
    pub fn smallest_tried_passes(&self) -> bool {
        self.smallest == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::units::Unit;
    use super::*;
    use approx::assert_abs_diff_eq;

    /// Units of one prompt; losses by budget, smallest budget first.
    fn units(losses: &[Vec<f64>]) -> UnitLosses {
        let count = losses[0].len();
        let unit = |i: usize| Unit {
            prompts: 1,
            tokens: [100, 100],
            losses: losses.iter().map(|of_budget| of_budget[i]).collect(),
            failed: vec![0; losses.len()],
        };
        UnitLosses {
            budgets: (0..losses.len()).map(|b| (64 << b).to_string()).collect(),
            units: (0..count).map(unit).collect(),
            undefined: 0,
            kv_bytes: vec![0.0; losses.len()],
        }
    }

    /// `ones` losses of 1 among `n`.
    fn ones(ones: usize, n: usize) -> Vec<f64> {
        (0..n).map(|i| f64::from(u8::from(i < ones))).collect()
    }

    const MEAN: Goal = Goal {
        at_most: 0.1,
        except: None,
        most: 1.0,
        confidence: None,
    };

    #[test]
    fn nine_violations_of_a_hundred_pass_in_the_mean_and_five_with_confidence() {
        let losses = units(&[ones(10, 100), ones(9, 100), ones(6, 100), ones(5, 100)]);
        let share = Goal {
            at_most: 0.5,
            except: Some(0.1),
            most: f64::INFINITY,
            confidence: None,
        };
        for (goal, allowed) in [(MEAN, 0.091), (share, 0.09)] {
            let found = goal.decide(&losses).unwrap();
            assert_eq!(found.certified().unwrap().budget, "128");
            assert_eq!((found.limit, found.fewest_units), (0.1, 9));
            assert_abs_diff_eq!(found.allowed.unwrap(), allowed, epsilon = 1e-9);
        }
        let found = share.decide(&losses).unwrap();
        assert_eq!(
            (
                found.violations_allowed,
                found.certified().unwrap().violations
            ),
            (Some(9), 9)
        );
        let sure = Goal {
            confidence: Some(0.9),
            ..share
        };
        let found = sure.decide(&losses).unwrap();
        assert_eq!(found.certified().unwrap().budget, "512");
        assert_eq!(
            (found.violations_allowed, found.fewest_units),
            (Some(5), 22)
        );
        // Testing stopped at 256; 128 and 64 were not looked at.
        let tested: Vec<bool> = found.steps.iter().map(|s| s.statistic.is_some()).collect();
        assert_eq!(tested, [true, true, false, false]);
    }

    #[test]
    fn a_loss_at_a_larger_budget_counts_at_smaller_ones() {
        // Each budget alone would pass: (0 + 1)/20 and (1 + 1)/20 are at most 0.1; together the largest loses 1 on one
        // unit and the smaller one on another.
        let mut other = ones(0, 19);
        other[18] = 1.0;
        let losses = units(&[ones(1, 19), other]);
        let found = MEAN.decide(&losses).unwrap();
        assert_eq!(found.certified().unwrap().budget, "128");
        let statistics: Vec<f64> = found.steps.iter().map(|s| s.statistic.unwrap()).collect();
        assert_abs_diff_eq!(statistics[0], 0.1, epsilon = 1e-15);
        assert_abs_diff_eq!(statistics[1], 0.15, epsilon = 1e-15);
        assert!(!found.smallest_tried_passes());
    }

    #[test]
    fn testing_stops_at_the_first_budget_that_fails() {
        let losses = units(&[ones(0, 50), ones(20, 50), ones(0, 50)]);
        let sure = Goal {
            confidence: Some(0.95),
            ..MEAN
        };
        let found = sure.decide(&losses).unwrap();
        assert_eq!(found.certified().unwrap().budget, "256");
        assert_abs_diff_eq!(
            found.steps[0].statistic.unwrap(),
            0.9f64.powi(50),
            epsilon = 1e-12
        );
        assert_eq!(
            (found.steps[2].statistic, found.steps[2].passes),
            (None, false)
        );
    }

    #[test]
    fn none_passes_where_units_are_too_few_or_lose_too_much() {
        let few = MEAN.decide(&units(&[ones(0, 8)])).unwrap();
        assert_eq!(
            (few.smallest, few.allowed, few.fewest_units),
            (None, None, 9)
        );
        let bad = MEAN.decide(&units(&[ones(50, 99)])).unwrap();
        assert!(bad.smallest.is_none() && bad.certified().is_none());
        assert_abs_diff_eq!(bad.allowed.unwrap(), 9.0 / 99.0, epsilon = 1e-9);
        let good = MEAN.decide(&units(&[ones(0, 9)])).unwrap();
        assert!(good.smallest_tried_passes());
    }

    #[test]
    fn bounds_that_say_nothing_are_refused() {
        for goal in [
            Goal {
                at_most: 0.0,
                ..MEAN
            },
            Goal {
                at_most: 1.0,
                ..MEAN
            },
            Goal {
                at_most: f64::NAN,
                ..MEAN
            },
            Goal {
                most: f64::INFINITY,
                ..MEAN
            },
            Goal {
                except: Some(1.0),
                ..MEAN
            },
            Goal {
                except: Some(0.1),
                at_most: -1.0,
                ..MEAN
            },
            Goal {
                except: Some(0.1),
                at_most: 1.0,
                ..MEAN
            },
            Goal {
                confidence: Some(1.0),
                ..MEAN
            },
            Goal {
                confidence: Some(95.0),
                ..MEAN
            },
        ] {
            assert!(goal.check().is_err(), "{goal:?}");
        }
        let zero = Goal {
            at_most: 0.0,
            except: Some(0.1),
            ..MEAN
        };
        assert!(zero.check().is_ok(), "no loss at all, but for some");
    }
}
