//! What keeping more of a KV head is worth: the attention that the full cache's own continuation pays to the tokens that a scorer ranks
//! first.

use super::case::Case;
use super::sweep::Sweep;
use crate::budget::Floor;
use crate::error::{Error, Result};
use crate::profile::{Points, budget_grid};

/// Utility curves of all KV heads, means over prompts.
pub struct Utilities {
    /// Sums over prompts at the budgets of the grid, `[L·H_kv][budget]`.
    sums: Vec<Vec<f64>>,
    /// Budgets of the reference length.
    grid: Vec<usize>,
    tokens: usize,
    prompts: usize,
}

impl Utilities {
    /// Nothing yet, for a reference length of `tokens`.
    pub fn new(tokens: usize) -> Self {
        Self {
            sums: Vec::new(),
            grid: budget_grid(tokens),
            tokens,
            prompts: 0,
        }
    }

    /// Adds a prompt: ranked by the first method's scorer, valued by the second one's, which looks ahead.
    ///
    /// Whether the model said anything after it: a prompt without a continuation adds nothing.
    /// Paper: arXiv:2602.08585 (LU-KV), long-horizon utility. Differs: the value of a token is the attention that it receives from
    /// the continuation, in the mean over rows and query heads of the group.
    /// Errors: those of prefill and of the scorers; [`Error::Invalid`] for a sweep of fewer than two methods.
    pub fn add(&mut self, sweep: &Sweep<'_>, case: &Case) -> Result<bool> {
        let stand = sweep.prepare(&[case])?;
        let rows = stand
            .references
            .iter()
            .map(|r| r.said.ids.len())
            .sum::<usize>();
        let rows = rows + case.question().len();
        if rows == 0 {
            return Ok(false);
        }
        let [ranked, valued] = sweep.methods else {
            let bound = "one that ranks and one that looks ahead are needed";
            return Err(Error::invalid("methods", sweep.methods.len(), bound));
        };
        let ranks = stand.observed.token_scores(ranked)?;
        let values = stand.observed.token_scores(valued)?;
        let floor = sweep.floor();
        let heads = ranks.iter().flatten().zip(values.iter().flatten());
        for (head, (ranks, values)) in heads.enumerate() {
            let kept = prefix_sums(ranks, values, &floor);
            if self.sums.len() <= head {
                self.sums.push(vec![0.0; self.grid.len()]);
            }
            for (sum, budget) in self.sums[head].iter_mut().zip(&self.grid) {
                let own = *budget as f64 * ranks.len() as f64 / self.tokens as f64;
                *sum += between(&kept, own) / rows as f64;
            }
        }
        self.prompts += 1;
        Ok(true)
    }

    /// Prompts that were added.
    pub fn prompts(&self) -> usize {
        self.prompts
    }

    /// The reference length.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The mean curves.
    ///
    /// Shapes: `[L·H_kv]` of points at the budgets of the grid.
    pub fn curves(&self) -> Vec<Points> {
        let mean = |sums: &Vec<f64>| {
            let values = sums.iter().map(|sum| sum / self.prompts.max(1) as f64);
            self.grid.iter().copied().zip(values).collect()
        };
        self.sums.iter().map(mean).collect()
    }
}

/// What the first n tokens are worth together, from none on: sinks and window first, then by falling rank, ties to the later.
fn prefix_sums(ranks: &[f64], values: &[f64], floor: &Floor) -> Vec<f64> {
    let tokens = ranks.len();
    let stays = |t: usize| t < floor.sinks || t + floor.window >= tokens;
    let mut order: Vec<usize> = (0..tokens).collect();
    order.sort_by(|a, b| {
        let by_rank = ranks[*b].total_cmp(&ranks[*a]);
        stays(*b).cmp(&stays(*a)).then(by_rank).then(b.cmp(a))
    });
    let sums = order.into_iter().scan(0.0, |sum, token| {
        *sum += values[token];
        Some(*sum)
    });
    std::iter::once(0.0).chain(sums).collect()
}

/// A value between two whole places.
fn between(sums: &[f64], place: f64) -> f64 {
    let last = sums.len() - 1;
    let low = (place as usize).min(last);
    let (a, b) = (sums[low], sums[(low + 1).min(last)]);
    a + (b - a) * (place - low as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_anyway_comes_first_then_the_ranking() {
        let ranks = [0.0, 3.0, 9.0, 3.0, 1.0];
        let values = [0.5, 0.1, 0.2, 0.05, 0.15];
        let sums = prefix_sums(&ranks, &values, &Floor::of(1, 1));
        // The last, the first, then 2, 3 (the later of equals) and 1.
        let want = [0.0, 0.15, 0.65, 0.85, 0.9, 1.0];
        assert!(
            sums.iter().zip(want).all(|(s, w)| (s - w).abs() < 1e-12),
            "{sums:?}"
        );
        assert!((between(&sums, 1.5) - 0.4).abs() < 1e-12);
        assert!((between(&sums, 9.0) - 1.0).abs() < 1e-12);
    }
}
