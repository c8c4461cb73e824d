//! How the time of one layer grows with the prompt, fitted to lengths that were timed.

use serde::Serialize;

use crate::model::decoder::PREFILL_RUN;
use crate::model::operations::pairs_seen;

/// Numbers of a fit at most.
const TERMS: usize = 3;

/// Seconds of one layer over a prompt, none of them negative.
///
/// Paper: none: house definition. Differs: the quadratic term counts pairs of a query and a key that it sees, so that
/// layers with a window grow linearly where their window is full; every run of [`PREFILL_RUN`] tokens unpacks all
/// weights again, whatever its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LayerGrowth {
    /// Of every run.
    pub per_run: f64,
    /// Of every token.
    pub per_token: f64,
    /// Of every query and key that it sees.
    pub per_pair: f64,
}

impl LayerGrowth {
    /// The fit to lengths and their seconds that has the least squares of relative errors; `None` without a length, or with
    /// seconds that are no time.
    ///
    /// One length tells seconds per token alone; two or three tell of pairs or of runs as well, whether they grow faster or
    /// slower than tokens. `window` is the layer's.
    pub fn fit(window: Option<usize>, measured: &[(usize, f64)]) -> Option<Self> {
        let is_time =
            |&(tokens, seconds): &(usize, f64)| tokens > 0 && seconds > 0.0 && seconds.is_finite();
        if measured.is_empty() || !measured.iter().all(is_time) {
            return None;
        }
        // Ties go to the first.
        let sets: &[&[usize]] = match measured.len() {
            1 => &[&[1]],
            2 | 3 => &[&[1, 2], &[0, 1], &[1], &[2]],
            _ => &[&[0, 1, 2], &[1, 2], &[0, 1], &[0, 2], &[1], &[2], &[0]],
        };
        let rows: Vec<[f64; TERMS]> = (measured.iter())
            .map(|&(tokens, seconds)| terms(window, tokens).map(|term| term / seconds))
            .collect();
        let fits = sets.iter().filter_map(|set| least_squares(&rows, set));
        let error = |fit: &[f64; TERMS]| -> f64 {
            let errors = rows.iter().map(|row| (dot(row, fit) - 1.0).powi(2));
            errors.sum()
        };
        let [per_run, per_token, per_pair] = fits.min_by(|a, b| error(a).total_cmp(&error(b)))?;
        Some(Self {
            per_run,
            per_token,
            per_pair,
        })
    }

    /// What else the seconds of one length could be: all of runs, of tokens or of pairs.
    pub fn possible(window: Option<usize>, (tokens, seconds): (usize, f64)) -> [Self; TERMS] {
        let of = terms(window, tokens).map(|term| seconds / term.max(1.0));
        let none = Self::default();
        [
            Self {
                per_run: of[0],
                ..none
            },
            Self {
                per_token: of[1],
                ..none
            },
            Self {
                per_pair: of[2],
                ..none
            },
        ]
    }

    /// Seconds of a prompt in a layer with this window.
    pub fn seconds(&self, window: Option<usize>, tokens: usize) -> f64 {
        let fit = [self.per_run, self.per_token, self.per_pair];
        dot(&terms(window, tokens), &fit)
    }
}

/// Runs, tokens, pairs.
fn terms(window: Option<usize>, tokens: usize) -> [f64; TERMS] {
    [
        tokens.div_ceil(PREFILL_RUN) as f64,
        tokens as f64,
        pairs_seen(window, tokens),
    ]
}

fn dot(a: &[f64; TERMS], b: &[f64; TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The factors of the terms in `set`, the others 0, that bring all rows nearest to 1; `None` if any is negative or none can
/// be told.
fn least_squares(rows: &[[f64; TERMS]], set: &[usize]) -> Option<[f64; TERMS]> {
    // Columns of one size: runs and pairs are many orders of magnitude apart.
    let size = |term: usize| {
        let squares: f64 = rows.iter().map(|row| row[term] * row[term]).sum();
        squares.sqrt()
    };
    let sizes: Vec<f64> = set.iter().map(|&term| size(term)).collect();
    let mut system: Vec<Vec<f64>> = (set.iter().zip(&sizes))
        .map(|(&i, a)| {
            let products = set.iter().zip(&sizes).map(|(&j, b)| {
                let sum: f64 = rows.iter().map(|row| row[i] * row[j]).sum();
                sum / (a * b)
            });
            let ones: f64 = rows.iter().map(|row| row[i]).sum();
            products.chain([ones / a]).collect()
        })
        .collect();
    let solved = solve(&mut system)?;
    let mut fit = [0.0; TERMS];
    for ((&term, size), value) in set.iter().zip(&sizes).zip(solved) {
        fit[term] = value / size;
    }
    let possible = fit.iter().all(|value| value.is_finite() && *value >= 0.0);
    possible.then_some(fit)
}

/// Solves a symmetric positive system with its right side as the last column; `None` where columns say the same.
fn solve(system: &mut [Vec<f64>]) -> Option<Vec<f64>> {
    const SAME: f64 = 1e-9;
    let n = system.len();
    for pivot in 0..n {
        let (above, below) = system.split_at_mut(pivot + 1);
        let own = &above[pivot];
        if !(own[pivot].is_finite() && own[pivot] > SAME) {
            return None;
        }
        for row in below {
            let factor = row[pivot] / own[pivot];
            for (value, of_pivot) in row.iter_mut().zip(own) {
                *value -= factor * of_pivot;
            }
        }
    }
    let mut solved = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| system[i][j] * solved[j]).sum();
        solved[i] = (system[i][n] - known) / system[i][i];
    }
    Some(solved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        let apart = (found - wanted).abs();
        assert!(apart <= 1e-6 * wanted.abs(), "{found}, not {wanted}");
    }

    fn measured(
        growth: LayerGrowth,
        window: Option<usize>,
        lengths: &[usize],
    ) -> Vec<(usize, f64)> {
        let seconds = |&tokens: &usize| (tokens, growth.seconds(window, tokens));
        lengths.iter().map(seconds).collect()
    }

    #[test]
    fn what_made_the_seconds_is_found_again() {
        let made = LayerGrowth {
            per_run: 0.004,
            per_token: 2e-4,
            per_pair: 3e-8,
        };
        for window in [None, Some(300)] {
            let lengths = [254, 509, 1019, 2038];
            let fit = LayerGrowth::fit(window, &measured(made, window, &lengths)).unwrap();
            near(fit.per_run, made.per_run);
            near(fit.per_token, made.per_token);
            near(fit.per_pair, made.per_pair);
        }
        let without_runs = LayerGrowth {
            per_run: 0.0,
            ..made
        };
        let two = measured(without_runs, None, &[500, 1000]);
        let fit = LayerGrowth::fit(None, &two).unwrap();
        near(fit.per_token, made.per_token);
        near(fit.per_pair, made.per_pair);
        near(fit.seconds(None, 4000), without_runs.seconds(None, 4000));
        // What two lengths of one run share is its fixed cost.
        let fit = LayerGrowth::fit(None, &[(63, 1.4), (126, 1.8)]).unwrap();
        near(fit.per_run, 1.0);
        near(fit.seconds(None, 252), 2.6);
    }

    #[test]
    fn nothing_is_ever_negative() {
        // Falling seconds, a step, growth slower than any term: whatever a busy machine makes of it.
        let odd: [&[(usize, f64)]; 5] = [
            &[(64, 3.0), (128, 2.0), (256, 1.0), (512, 0.5)],
            &[(64, 1.0), (128, 1.0), (256, 9.0), (512, 9.0)],
            &[(64, 1.0), (128, 1.1), (256, 1.2)],
            &[(100, 1.0), (200, 8.0)],
            &[(100, 1.0), (100, 2.0)],
        ];
        for measured in odd {
            for window in [None, Some(80)] {
                let fit = LayerGrowth::fit(window, measured).unwrap();
                let terms = [fit.per_run, fit.per_token, fit.per_pair];
                assert!(terms.iter().all(|term| *term >= 0.0), "{fit:?}");
                assert!(fit.seconds(window, 1000) > 0.0, "{fit:?}");
            }
        }
    }

    #[test]
    fn one_length_tells_seconds_per_token_and_none_nothing() {
        let fit = LayerGrowth::fit(None, &[(50, 1.0)]).unwrap();
        near(fit.seconds(None, 100), 2.0);
        // Or nothing, or four times as many, within a run.
        let possible = LayerGrowth::possible(Some(1000), (50, 1.0));
        let seconds = possible.map(|growth| growth.seconds(Some(1000), 100));
        near(seconds[0], 1.0);
        near(seconds[1], 2.0);
        near(seconds[2], 100.0 * 101.0 / (50.0 * 51.0));
        assert_eq!(LayerGrowth::fit(None, &[]), None);
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(LayerGrowth::fit(None, &[(50, seconds)]), None);
        }
        assert_eq!(LayerGrowth::fit(None, &[(0, 1.0)]), None);
    }
}
