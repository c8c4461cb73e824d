//! The vote of a window: the best keys of the prefix by the mean of the window's rows.

use candle_core::Device;

use crate::error::Result;
use crate::select::{HeadSplit, LayerScores, select};

/// The keys that one window names, `[query head][key]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Vote {
    named: Vec<Vec<bool>>,
}

impl Vote {
    /// Whether query head `head` was given `key` by its window.
    pub(super) fn names(&self, head: usize, key: usize) -> bool {
        self.named[head][key]
    }

    /// Share of the keys named here that `other` names too, one per query head.
    pub(super) fn overlap(&self, other: &Self) -> Vec<f64> {
        let heads = self.named.iter().zip(&other.named);
        heads
            .map(|(mine, theirs)| {
                let count = mine.iter().filter(|named| **named).count();
                let both = mine.iter().zip(theirs).filter(|(a, b)| **a && **b).count();
                both as f64 / count.max(1) as f64
            })
            .collect()
    }
}

/// Adds up rows of one layer and lets every full window vote.
///
/// Paper: arXiv:2404.14469 (SnapKV), section 3. Differs: per query head and never pooled over keys; rows are
/// added in their order, in float64; ties go to the later key, as in every selection here.
#[derive(Debug)]
pub(super) struct Voting {
    window: usize,
    named_keys: usize,
    /// `[query head][key of the prefix]`.
    sums: Vec<Vec<f64>>,
    rows: usize,
    votes: Vec<Vote>,
}

impl Voting {
    pub(super) fn new(heads: usize, prefix: usize, window: usize, named_keys: usize) -> Self {
        Self {
            window,
            named_keys,
            sums: vec![vec![0.0; prefix]; heads],
            rows: 0,
            votes: Vec::new(),
        }
    }

    /// Adds one row of every query head, of which only the prefix counts.
    ///
    /// Errors: [`crate::error::Error::NotFinite`].
    pub(super) fn add<'r>(&mut self, row: impl Fn(usize) -> &'r [f32]) -> Result<()> {
        for (head, sums) in self.sums.iter_mut().enumerate() {
            sums.iter_mut()
                .zip(row(head))
                .for_each(|(sum, &p)| *sum += f64::from(p));
        }
        self.rows += 1;
        if self.rows == self.window {
            let vote = self.vote()?;
            self.votes.push(vote);
            self.rows = 0;
            self.sums.iter_mut().for_each(|sums| sums.fill(0.0));
        }
        Ok(())
    }

    /// Sums order keys as means do.
    fn vote(&self) -> Result<Vote> {
        let budgets = vec![self.named_keys; self.sums.len()];
        let sums = LayerScores::of_heads(self.sums.concat(), budgets.len(), &Device::Cpu)?;
        let best = select(&sums, &budgets, 0, 0, HeadSplit::PerHead)?;
        let named = best.iter().zip(&self.sums).map(|(best, sums)| {
            let mut named = vec![false; sums.len()];
            best.iter().for_each(|&key| named[key as usize] = true);
            named
        });
        Ok(Vote {
            named: named.collect(),
        })
    }

    /// The votes of all full windows, in the order of the text.
    pub(super) fn finish(self) -> Vec<Vote> {
        self.votes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_vote_by_the_sum_of_their_rows() {
        // Two rows a window; key 4 is the window's own and does not count.
        let mut voting = Voting::new(1, 4, 2, 2);
        let rows: [[f32; 5]; 5] = [
            [0.5, 0.0, 0.2, 0.2, 0.1],
            [0.0, 0.4, 0.2, 0.2, 0.2],
            [0.1, 0.1, 0.1, 0.1, 0.6],
            [0.1, 0.1, 0.1, 0.1, 0.6],
            [0.9, 0.0, 0.0, 0.0, 0.1],
        ];
        for row in &rows {
            voting.add(|_| row).unwrap();
        }
        let votes = voting.finish();
        assert_eq!(votes.len(), 2, "half a window has no vote");
        // Sums 0.5, 0.4, 0.4, 0.4: the later of the equals; then four equals: the last two.
        assert_eq!(votes[0].named, [[true, false, false, true]]);
        assert_eq!(votes[1].named, [[false, false, true, true]]);
        assert_eq!(votes[0].overlap(&votes[1]), [0.5]);
        assert_eq!(votes[0].overlap(&votes[0]), [1.0]);
        assert!(votes[0].names(0, 3) && !votes[0].names(0, 2));
    }

    #[test]
    fn attention_that_is_not_finite_has_no_vote() {
        let mut voting = Voting::new(1, 2, 1, 1);
        assert!(voting.add(|_| &[f32::NAN, 0.0]).is_err());
    }
}
