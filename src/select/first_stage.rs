//! Selection in two stages: some tokens by one score, the rest of a budget by another.

use candle_core::{DType, Device, Tensor};

use super::slots::{Slots, slots_of};
use crate::compute::device::{Quotas, largest_entries};
use crate::error::Result;

/// How many tokens of a head the first stage takes.
#[derive(Clone, Debug, PartialEq)]
pub enum FirstCount {
    /// A share of all that the head keeps, sinks and window among them.
    ///
    /// Paper: arXiv:2502.03805 (CriticalKV), algorithm 1. Differs: where heads compete, they do so by the first stage's
    /// scores, and each spends what it won in two stages of its own, as kvpress has it.
    Share(f64),
    /// So many of each head beside sinks and window, as far as its budget reaches; where heads compete, they do so for
    /// what is then left.
    Tokens(Vec<usize>),
}

/// What a first stage chooses by, and how much.
///
/// Shapes: scores `(H_kv, T)`, float64, all finite.
#[derive(Clone, Debug)]
pub struct FirstStage {
    /// Larger is chosen first.
    pub scores: Tensor,
    /// How many.
    pub count: FirstCount,
}

/// A head's lowest number of tokens, and its largest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Sinks and window.
    pub(super) forced: usize,
    /// Its budget, as far as there are tokens.
    pub(super) budget: usize,
}

impl FirstStage {
    /// The numbers that the second stage ranks by, and what each head keeps of them.
    ///
    /// Tokens of the first stage are above all others there, and every head keeps at least as many. `quotas` is what
    /// selection in one stage would be.
    /// Differs: the first stage's slots come from the device, and what ranks next goes back to it.
    /// Errors: as [`super::select_layers`].
    pub(super) fn settle(
        &self,
        second: &Tensor,
        mut quotas: Quotas,
        heads: &[Bounds],
    ) -> Result<(Tensor, Quotas)> {
        let first: Vec<usize> = match &self.count {
            FirstCount::Share(share) => {
                // What a head of a pool cannot lose is chosen by the first stage, too.
                let guarded = quotas.own.clone();
                let pooled = quotas.shared > 0;
                if pooled {
                    let won = self.chosen(&quotas)?;
                    quotas.own = won.iter().map(Vec::len).collect();
                    quotas.shared = 0;
                }
                let shares = quotas.own.iter().zip(&guarded).zip(heads);
                let first = |((&own, &guarded), head): ((&usize, &usize), &Bounds)| {
                    let least = if pooled { guarded } else { head.forced };
                    let share = (own as f64 * share).floor() as usize;
                    share.clamp(least.min(own), own)
                };
                shares.map(first).collect()
            }
            FirstCount::Tokens(counts) => {
                let first: Vec<usize> = (counts.iter().zip(heads))
                    .map(|(count, head)| (head.forced + count).min(head.budget))
                    .collect();
                let before: usize = quotas.own.iter().sum();
                let own = quotas.own.iter().zip(&first);
                quotas.own = own.map(|(own, first)| *own.max(first)).collect();
                quotas.shared = (quotas.shared + before) - quotas.own.iter().sum::<usize>();
                first
            }
        };
        let first = self.chosen(&Quotas {
            own: first,
            shared: 0,
            sinks: quotas.sinks,
            window: quotas.window,
        })?;
        let (rows, tokens) = second.dims2()?;
        let mut numbers = second
            .to_device(&Device::Cpu)?
            .flatten_all()?
            .to_vec1::<f64>()?;
        for (slots, numbers) in first.iter().zip(numbers.chunks_mut(tokens.max(1))) {
            for &slot in slots {
                // What is no number must still be found by who ranks.
                let number = &mut numbers[slot as usize];
                if number.is_finite() {
                    *number = f64::MAX;
                }
            }
        }
        let raised = Tensor::from_vec(numbers, (rows, tokens), second.device())?;
        Ok((raised, quotas))
    }

    fn chosen(&self, quotas: &Quotas) -> Result<Slots> {
        let found = largest_entries(&self.scores, quotas)?.to_vec1()?;
        slots_of(&found, quotas.own.len(), 0)
    }

    /// The same of the tokens from `first` on.
    ///
    /// Errors: [`crate::error::Error::Candle`] for a token that there is not.
    pub(super) fn starting_at(&self, first: usize) -> Result<Self> {
        let (_, tokens) = self.scores.dims2()?;
        let rest = self.scores.narrow(1, first, tokens.saturating_sub(first))?;
        Ok(Self {
            scores: rest.contiguous()?,
            count: self.count.clone(),
        })
    }

    /// Whether its scores are those of `(H_kv, T)`.
    pub(super) fn fits(&self, shape: (usize, usize)) -> Result<bool> {
        let counted = match &self.count {
            FirstCount::Share(share) => (0.0..=1.0).contains(share),
            FirstCount::Tokens(counts) => counts.len() == shape.0,
        };
        Ok(counted && self.scores.dtype() == DType::F64 && self.scores.dims2()? == shape)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HeadSplit, LayerScores, select};
    use super::*;
    use proptest::prelude::*;

    fn staged(first: &[Vec<f64>], second: &[Vec<f64>], count: FirstCount) -> LayerScores {
        let tensor = |rows: &[Vec<f64>]| Tensor::new(rows.to_vec(), &Device::Cpu).unwrap();
        let stage = FirstStage {
            scores: tensor(first),
            count,
        };
        LayerScores::in_two_stages(stage, tensor(second)).unwrap()
    }

    const POOLED: HeadSplit = HeadSplit::Pooled { safeguard: 0.0 };

    #[test]
    fn a_share_goes_by_the_first_score_and_the_rest_by_the_second() {
        let first = [vec![9.0, 8.0, 1.0, 2.0, 3.0, 0.0]];
        let second = [vec![0.0, 0.0, 7.0, 6.0, 5.0, 9.0]];
        let kept = |share, budget, sinks, window| {
            let scores = staged(&first, &second, FirstCount::Share(share));
            select(&scores, &[budget], sinks, window, HeadSplit::PerHead).unwrap()
        };
        assert_eq!(kept(0.5, 4, 0, 0), [[0, 1, 2, 5]]);
        assert_eq!(kept(1.0, 3, 0, 0), [[0, 1, 4]]);
        assert_eq!(kept(0.0, 3, 0, 0), [[2, 3, 5]]);
        // The window counts in the first stage: of two tokens it is one.
        assert_eq!(kept(0.5, 4, 0, 1), [[0, 2, 3, 5]]);
        // What always stays may be more than the share.
        assert_eq!(kept(0.5, 4, 2, 1), [[0, 1, 2, 5]]);
    }

    #[test]
    fn heads_win_their_budgets_by_the_first_score_and_spend_them_in_two_stages() {
        // By the first score head 0 wins three of four tokens.
        let first = [vec![9.0, 8.0, 7.0, 1.0, 0.0], vec![6.0, 2.0, 3.0, 0.0, 0.0]];
        let second = [vec![0.0, 0.0, 1.0, 5.0, 6.0], vec![0.0, 9.0, 0.0, 9.5, 0.0]];
        let scores = staged(&first, &second, FirstCount::Share(0.4));
        let kept = select(&scores, &[2, 2], 0, 0, POOLED).unwrap();
        // Head 0: one of three by the first score, two by the second; head 1: none and one.
        assert_eq!(kept, [vec![0, 3, 4], vec![3]]);
        let guarded = HeadSplit::Pooled { safeguard: 0.5 };
        let kept = select(&scores, &[2, 2], 0, 0, guarded).unwrap();
        assert_eq!(kept, [vec![0, 3, 4], vec![0]]);
    }

    #[test]
    fn counted_tokens_stay_and_heads_compete_for_the_rest() {
        let first = [vec![0.0, 1.0, 2.0, 3.0], vec![3.0, 2.0, 1.0, 0.0]];
        let second = [vec![9.0, 8.0, 0.0, 0.0], vec![0.0, 0.0, 7.0, 6.0]];
        let scores = staged(&first, &second, FirstCount::Tokens(vec![1, 5]));
        let kept = select(&scores, &[2, 2], 0, 0, POOLED).unwrap();
        assert_eq!(kept, [vec![0, 3], vec![0, 1]]);
        let kept = select(&scores, &[3, 2], 0, 0, HeadSplit::PerHead).unwrap();
        assert_eq!(kept, [vec![0, 1, 3], vec![0, 1]]);
    }

    #[test]
    fn stages_that_cannot_be_are_refused() {
        let scores = |rows: usize| Tensor::zeros((rows, 3), DType::F64, &Device::Cpu).unwrap();
        for (rows, count) in [
            (1, FirstCount::Share(0.5)),
            (2, FirstCount::Share(1.5)),
            (2, FirstCount::Tokens(vec![1])),
        ] {
            let stage = FirstStage {
                scores: scores(rows),
                count,
            };
            assert!(LayerScores::in_two_stages(stage, scores(2)).is_err());
        }
        let wrong = [vec![f64::NAN, 1.0]];
        let fine = [vec![0.0, 1.0]];
        for (first, second) in [(&wrong, &fine), (&fine, &wrong)] {
            let scores = staged(first, second, FirstCount::Share(0.5));
            assert!(select(&scores, &[1], 0, 0, HeadSplit::PerHead).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn budgets_are_spent_to_the_token_in_two_stages(
            heads in 1usize..4,
            tokens in 1usize..40,
            seed in any::<u64>(),
            (sinks, window) in (0usize..5, 0usize..8),
            (safeguard, share) in (0.0f64..=1.0, 0.0f64..=1.0),
        ) {
            let mut state = seed;
            let mut draw = |n: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % n
            };
            let mut rows = || -> Vec<Vec<f64>> {
                (0..heads).map(|_| (0..tokens).map(|_| draw(9) as f64).collect()).collect()
            };
            let (first, second) = (rows(), rows());
            let least = (sinks + window).min(tokens);
            let budgets: Vec<usize> =
                (0..heads).map(|_| least + draw(tokens - least + 1)).collect();
            let counts = (0..heads).map(|_| draw(tokens + 3)).collect();
            for count in [FirstCount::Share(share), FirstCount::Tokens(counts)] {
                let scores = staged(&first, &second, count);
                for split in [HeadSplit::PerHead, HeadSplit::Pooled { safeguard }] {
                    let kept = select(&scores, &budgets, sinks, window, split).unwrap();
                    let total: usize = kept.iter().map(Vec::len).sum();
                    prop_assert_eq!(total, budgets.iter().sum::<usize>());
                    for slots in &kept {
                        prop_assert!(slots.windows(2).all(|w| w[0] < w[1]));
                        let stays = |i: usize| i < sinks || i + window >= tokens;
                        let mut forced = (0..tokens).filter(|i| stays(*i));
                        prop_assert!(forced.all(|i| slots.contains(&(i as u32))));
                    }
                }
            }
        }
    }
}
