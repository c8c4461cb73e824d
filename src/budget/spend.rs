//! The best way to spend a fixed number of tokens on several curves.

use std::collections::VecDeque;

use super::apportion::spread;
use super::curve::{Curve, concave_hull, slope};

/// How far below its hull a curve may lie and still count as concave: the rounding of a mean.
const CONCAVE: f64 = 1e-12;

/// Steps (curves x points x tokens) up to which curves that are not concave are solved exactly.
const EXACT_STEPS: usize = 1_000_000_000;

/// Entries (curves x tokens) of the exact solution's table.
const EXACT_ENTRIES: usize = 50_000_000;

/// What there is to spend, and between which bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purse {
    /// Tokens for all curves together, at least the sum of the floors and at most that of the caps.
    pub(super) total: usize,
    /// Tokens per KV head that every curve gets at least.
    pub(super) floor: usize,
    /// Tokens per KV head that none gets more than.
    pub(super) cap: usize,
    /// KV heads that share a curve: n tokens given to it are n / `heads` of its budgets.
    pub(super) heads: usize,
}

/// Tokens per curve that together give the largest sum of values; all of them are spent.
///
/// On concave curves, steps are taken by falling gain, which is exact; steps of equal gain share what is
/// left in proportion to their lengths, so that equal curves get equal budgets. Other curves are solved
/// exactly by dynamic programming over the tokens as long as its table has a sensible size, and by the
/// same steps along their concave hulls beyond it: then only the steps that the last tokens were shared
/// over can lie below their hull.
///
/// Paper: greedy on a concave hull is Fox's marginal analysis (1966); LU-KV (arXiv:2602.08585) spends
/// budgets over heads in this way.
pub(super) fn best_amounts(curves: &[Curve], purse: Purse) -> Vec<usize> {
    let Purse {
        floor, cap, heads, ..
    } = purse;
    let points: Vec<Vec<(usize, f64)>> = curves
        .iter()
        .map(|curve| curve.points(floor, cap, heads))
        .collect();
    let rest = purse.total.saturating_sub(curves.len() * floor * heads);
    let entries = curves.len().saturating_mul(rest + 1);
    let most_points = points.iter().map(Vec::len).max().unwrap_or(0);
    let concave = points.iter().all(|p| is_concave(p));
    let affordable = entries <= EXACT_ENTRIES && entries.saturating_mul(most_points) <= EXACT_STEPS;
    let extra = if concave || !affordable {
        by_falling_gain(&points, rest)
    } else {
        by_table(&points, rest)
    };
    extra.into_iter().map(|x| floor * heads + x).collect()
}

fn is_concave(points: &[(usize, f64)]) -> bool {
    let hull = concave_hull(points);
    hull.windows(2).all(|ends| {
        let (a, b) = (points[ends[0]], points[ends[1]]);
        let line = |x: usize| a.1 + slope(a, b) * (x - a.0) as f64;
        points[ends[0]..=ends[1]]
            .iter()
            .all(|p| line(p.0) - p.1 <= CONCAVE)
    })
}

/// One edge of a curve's hull.
struct Step {
    gain: f64,
    length: usize,
    curve: usize,
}

fn by_falling_gain(points: &[Vec<(usize, f64)>], rest: usize) -> Vec<usize> {
    let mut steps: Vec<Step> = Vec::new();
    for (curve, points) in points.iter().enumerate() {
        steps.extend(concave_hull(points).windows(2).map(|ends| {
            let (a, b) = (points[ends[0]], points[ends[1]]);
            Step {
                gain: slope(a, b),
                length: b.0 - a.0,
                curve,
            }
        }));
    }
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.curve.cmp(&b.curve)));
    let mut given = vec![0; points.len()];
    let mut left = rest;
    for equal in steps.chunk_by(|a, b| a.gain == b.gain) {
        let lengths: Vec<u64> = equal.iter().map(|step| step.length as u64).collect();
        let weights: Vec<f64> = equal.iter().map(|step| step.length as f64).collect();
        for (step, tokens) in equal.iter().zip(spread(&weights, left as u64, &lengths)) {
            given[step.curve] += tokens as usize;
            left -= tokens as usize;
        }
    }
    given
}

/// Exact: the best sum of the first k curves for every number of tokens, curve by curve.
fn by_table(points: &[Vec<(usize, f64)>], rest: usize) -> Vec<usize> {
    let mut best = vec![f64::NEG_INFINITY; rest + 1];
    best[0] = 0.0;
    let mut choices: Vec<Vec<u32>> = Vec::with_capacity(points.len());
    for points in points {
        let (with, choice) = with_one_more(&best, points);
        best = with;
        choices.push(choice);
    }
    let mut given = vec![0; points.len()];
    let mut left = rest;
    for (k, choice) in choices.iter().enumerate().rev() {
        given[k] = choice[left] as usize;
        left -= given[k];
    }
    given
}

/// Adds a curve: along each of its straight pieces the best split is the maximum in a sliding window.
fn with_one_more(before: &[f64], points: &[(usize, f64)]) -> (Vec<f64>, Vec<u32>) {
    let start = points[0];
    let mut best: Vec<f64> = before.iter().map(|b| b + start.1).collect();
    let mut choice = vec![0u32; before.len()];
    let mut window: VecDeque<(usize, f64)> = VecDeque::new();
    for ends in points.windows(2) {
        let gain = slope(ends[0], ends[1]);
        let (from, to) = (ends[0].0 - start.0, ends[1].0 - start.0);
        window.clear();
        for total in from..before.len() {
            // `others` tokens go to the curves before, total − others to this one.
            let others = total - from;
            let worth = before[others] - gain * others as f64;
            while window.back().is_some_and(|(_, w)| *w < worth) {
                window.pop_back();
            }
            window.push_back((others, worth));
            while window.front().is_some_and(|(o, _)| total - o > to) {
                window.pop_front();
            }
            if let Some(&(others, worth)) = window.front() {
                let value = worth + ends[0].1 + gain * (total - from) as f64;
                if value > best[total] {
                    best[total] = value;
                    choice[total] = (total - others) as u32;
                }
            }
        }
    }
    (best, choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(curves: &[Curve], tokens: &[usize], heads: usize) -> f64 {
        let budgets = tokens.iter().map(|&n| n as f64 / heads as f64);
        curves.iter().zip(budgets).map(|(c, b)| c.at(b)).sum()
    }

    /// The best value over every way to spend the total.
    fn brute_force(curves: &[Curve], purse: Purse) -> f64 {
        let (low, high) = (purse.floor * purse.heads, purse.cap * purse.heads);
        let Some((first, others)) = curves.split_first() else {
            return if purse.total == 0 {
                0.0
            } else {
                f64::NEG_INFINITY
            };
        };
        let spend = |n: usize| {
            let purse = Purse {
                total: purse.total - n,
                ..purse
            };
            first.at(n as f64 / purse.heads as f64) + brute_force(others, purse)
        };
        (low..=high.min(purse.total))
            .map(spend)
            .fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn steps_by_hand() {
        // Gains per token: 0.5, 0.1 | 0.3, 0.2 from one token each; 4 more: 2 at 0.5, 2 at 0.3.
        let a = Curve::new(0.0, [(1, 0.0), (3, 1.0), (10, 1.7)]).unwrap();
        let b = Curve::new(0.0, [(1, 0.0), (4, 0.9), (10, 2.1)]).unwrap();
        let purse = Purse {
            total: 6,
            floor: 1,
            cap: 10,
            heads: 1,
        };
        assert_eq!(best_amounts(&[a, b], purse), [3, 3]);
    }

    #[test]
    fn equal_curves_get_equal_budgets() {
        let curve = Curve::new(0.0, [(4, 0.5), (10, 0.8), (20, 1.0)]).unwrap();
        let purse = Purse {
            total: 47,
            floor: 2,
            cap: 20,
            heads: 1,
        };
        assert_eq!(best_amounts(&vec![curve; 4], purse), [12, 12, 12, 11]);
    }

    #[test]
    fn a_hull_that_cannot_be_reached_is_not_taken_for_the_curve() {
        // The step to 4 tokens pays only whole; 3 are left after the floor, so b is better.
        let a = Curve::new(0.0, [(3, 0.0), (4, 1.0)]).unwrap();
        let b = Curve::new(0.0, [(4, 0.4)]).unwrap();
        let purse = Purse {
            total: 3,
            floor: 0,
            cap: 4,
            heads: 1,
        };
        assert_eq!(best_amounts(&[a.clone(), b.clone()], purse), [0, 3]);
        assert_eq!(best_amounts(&[a, b], Purse { total: 4, ..purse }), [4, 0]);
    }

    fn curves(concave: bool) -> impl Strategy<Value = Vec<Curve>> {
        let one = (
            prop::collection::vec(0.0f64..1.0, 8),
            prop::collection::btree_set(1usize..8, 1..5),
        )
            .prop_map(move |(mut steps, known)| {
                if concave {
                    steps.sort_by(|a, b| b.total_cmp(a));
                } else {
                    // Losses too: a cosine may fall when a token is added.
                    steps.iter_mut().for_each(|s| *s -= 0.3);
                }
                let value = |b: usize| steps[..b].iter().sum::<f64>();
                let points: Vec<_> = known
                    .into_iter()
                    .chain([8])
                    .map(|b| (b, value(b)))
                    .collect();
                Curve::new(0.0, points).unwrap()
            });
        prop::collection::vec(one, 1..5)
    }

    fn check(
        curves: &[Curve],
        floor: usize,
        heads: usize,
        extra: usize,
    ) -> Result<(), TestCaseError> {
        let room = curves.len() * heads * (8 - floor);
        let total = curves.len() * heads * floor + extra % (room + 1);
        let purse = Purse {
            total,
            floor,
            cap: 8,
            heads,
        };
        let best = best_amounts(curves, purse);
        prop_assert_eq!(best.iter().sum::<usize>(), total);
        prop_assert!(best.iter().all(|n| (floor * heads..=8 * heads).contains(n)));
        let gap = brute_force(curves, purse) - value(curves, &best, heads);
        prop_assert!(gap.abs() < 1e-9, "{gap}");
        // Along the hulls, for what no table can hold: spent as exactly, and never better.
        let points: Vec<_> = curves.iter().map(|c| c.points(floor, 8, heads)).collect();
        let steps = by_falling_gain(&points, total - curves.len() * floor * heads);
        let along: Vec<usize> = steps.iter().map(|n| n + floor * heads).collect();
        prop_assert_eq!(along.iter().sum::<usize>(), total);
        prop_assert!(
            along
                .iter()
                .all(|n| (floor * heads..=8 * heads).contains(n))
        );
        prop_assert!(value(curves, &along, heads) <= value(curves, &best, heads) + 1e-9);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn concave_curves_are_spent_as_well_as_by_brute_force(
            curves in curves(true), floor in 0usize..3, heads in 1usize..3, extra in 0usize..1000,
        ) {
            check(&curves, floor, heads, extra)?;
        }

        #[test]
        fn any_curves_are_spent_as_well_as_by_brute_force(
            curves in curves(false), floor in 0usize..3, heads in 1usize..3, extra in 0usize..1000,
        ) {
            check(&curves, floor, heads, extra)?;
        }
    }
}
