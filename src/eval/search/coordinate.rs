//! A seeded search along coordinates: one factor at a time, up and down, in steps that halve where none helps.

use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::Result;
use crate::eval::shuffle::shuffle;

/// How the search goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchOptions {
    /// Most plans that are tried.
    pub most: usize,
    /// First step, in units of ln(factor).
    pub step: f64,
    /// The search ends where a smaller step would be next.
    pub least_step: f64,
    /// Seed of the order in which factors are tried.
    pub seed: u64,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            most: 120,
            step: 0.5,
            least_step: 0.1,
            seed: 0,
        }
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No step of the least size helps.
    Settled,
    /// As many plans were tried as were allowed.
    Spent,
    /// Whoever listened had enough.
    Stopped,
}

/// Where a search came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// ln(factor) of every group.
    pub logs: Vec<f64>,
    /// Score there.
    pub score: f64,
    /// Plans that were tried, the start not among them.
    pub tried: usize,
    /// Why it ended.
    pub ended: Ended,
}

/// What a set of logarithms scores, nothing where another gave the same before; or a break, which ends the search.
pub type Answer = ControlFlow<(), Option<f64>>;

/// Goes from factors of 1, whose score is `start`, to where no single factor lowers the score any more.
///
/// `score` is asked for one set of logarithms at a time; it says none where they give what another set gave before, and
/// breaks off where the search is to end with what it has.
/// Paper: none: house definition, a pattern search after Hooke and Jeeves, J. ACM 8 (1961), without its pattern moves.
/// Errors: those of `score`.
pub fn search(
    groups: usize,
    start: f64,
    options: SearchOptions,
    score: &mut dyn FnMut(&[f64]) -> Result<Answer>,
) -> Result<Found> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut found = Found {
        logs: vec![0.0; groups],
        score: start,
        tried: 0,
        ended: Ended::Settled,
    };
    let mut step = options.step;
    while step >= options.least_step && step > 0.0 {
        let mut better = false;
        for (group, sign) in shuffled(groups, &mut rng) {
            if found.tried == options.most {
                found.ended = Ended::Spent;
                return Ok(found);
            }
            let mut logs = found.logs.clone();
            logs[group] += sign * step;
            let score = match score(&logs)? {
                ControlFlow::Continue(Some(score)) => score,
                ControlFlow::Continue(None) => continue,
                ControlFlow::Break(()) => {
                    found.ended = Ended::Stopped;
                    return Ok(found);
                }
            };
            found.tried += 1;
            if score < found.score {
                (found.logs, found.score, better) = (logs, score, true);
            }
        }
        if !better {
            step /= 2.0;
        }
    }
    Ok(found)
}

/// Every group up and down, in an order of chance.
fn shuffled(groups: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = (0..groups).flat_map(|g| [(g, 1.0), (g, -1.0)]).collect();
    shuffle(&mut all, rng);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bowl(at: [f64; 3]) -> impl FnMut(&[f64]) -> Result<Answer> {
        move |logs| {
            let squares = logs.iter().zip(at).map(|(x, a)| (x - a).powi(2));
            Ok(ControlFlow::Continue(Some(squares.sum())))
        }
    }

    #[test]
    fn a_bowl_is_descended() {
        let options = SearchOptions::default();
        let found = search(3, 0.5 + 1.0, options, &mut bowl([0.5, -1.0, 0.25])).unwrap();
        assert_eq!(found.logs, [0.5, -1.0, 0.25]);
        assert_eq!((found.score, found.ended), (0.0, Ended::Settled));
        let again = search(3, 1.5, options, &mut bowl([0.5, -1.0, 0.25])).unwrap();
        assert_eq!(found, again);
    }

    #[test]
    fn no_more_is_tried_than_allowed_and_nothing_worse_is_taken() {
        let options = SearchOptions {
            most: 5,
            ..SearchOptions::default()
        };
        let mut count = 0;
        let mut bowl = bowl([4.0, 4.0, 4.0]);
        let found = search(3, 48.0, options, &mut |logs| {
            count += 1;
            bowl(logs)
        });
        let found = found.unwrap();
        assert_eq!((count, found.tried, found.ended), (5, 5, Ended::Spent));
        assert!(found.score < 48.0);
        let mut worse = |_: &[f64]| Ok(ControlFlow::Continue(Some(1.0)));
        let worse = search(2, 0.0, options, &mut worse).unwrap();
        assert_eq!((worse.logs, worse.score), (vec![0.0; 2], 0.0));
    }

    #[test]
    fn what_is_known_costs_nothing() {
        let mut known = |_: &[f64]| Ok(ControlFlow::Continue(None));
        let found = search(2, 1.0, SearchOptions::default(), &mut known).unwrap();
        assert_eq!((found.tried, found.ended), (0, Ended::Settled));
    }

    #[test]
    fn a_search_that_is_stopped_keeps_what_it_has() {
        let (mut bowl, mut asked) = (bowl([1.0, 0.0, 0.0]), 0);
        let found = search(3, 1.0, SearchOptions::default(), &mut |logs| {
            asked += 1;
            // Every factor is tried up and down once: the first one, up, is the better.
            if asked > 6 {
                return Ok(ControlFlow::Break(()));
            }
            bowl(logs)
        });
        let found = found.unwrap();
        assert_eq!((found.tried, found.ended), (6, Ended::Stopped));
        assert_eq!((found.logs, found.score), (vec![0.5, 0.0, 0.0], 0.25));
    }
}
