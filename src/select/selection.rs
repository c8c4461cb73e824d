//! From scores and budgets to the slots that stay.

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;

use super::LayerScores;
use super::first_stage::Bounds;
use super::global_pool::pooled_budgets;
use super::mixed_heads::mixed_budgets;
use super::slots::{Slots, slots_of};
use crate::compute::device::{Quotas, largest_entries};
use crate::error::{Error, Result};

/// How a layer's budget is spent on its KV heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HeadSplit {
    /// Every head spends its own budget.
    PerHead,
    /// The layer's best tokens over all heads win; `safeguard` of each head's budget is its own.
    ///
    /// Paper: arXiv:2407.11550 (Ada-KV), algorithm 1, safeguard 0.2. Differs: the total is exact.
    Pooled {
        /// Share of a head's budget that no other head can take, 0 to 1.
        safeguard: f64,
    },
    /// What a head wins in its layer, mixed with its own budget.
    ///
    /// Paper: arXiv:2407.11550 (Ada-KV), its code, `floor_alpha` 0.2. Differs: the total is exact.
    Mixed {
        /// Weight of a head's own budget, 0 to 1.
        floor: f64,
    },
    /// The best tokens of all layers and heads win; `safeguard` of each head's budget is its own.
    ///
    /// Paper: arXiv:2505.23416 (KVzip), section 3, without a safeguard. Differs: the total is exact.
    Global {
        /// Share of a head's budget that no other head can take, 0 to 1.
        safeguard: f64,
    },
}

/// Ada-KV's share of a head's budget that no other head can take.
const SAFEGUARD: f64 = 0.2;

impl fmt::Display for HeadSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerHead => f.write_str("per-head"),
            Self::Pooled { safeguard } => write!(f, "pooled:{safeguard}"),
            Self::Mixed { floor } => write!(f, "mixed:{floor}"),
            Self::Global { safeguard: 0.0 } => f.write_str("global"),
            Self::Global { safeguard } => write!(f, "global:{safeguard}"),
        }
    }
}

impl FromStr for HeadSplit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, safeguard) = match text.split_once(':') {
            None => (text, None),
            Some((name, share)) => (name, Some(share.parse().unwrap_or(f64::NAN))),
        };
        let split = match name {
            "per-head" if safeguard.is_none() => Some(Self::PerHead),
            "pooled" => Some(Self::Pooled {
                safeguard: safeguard.unwrap_or(SAFEGUARD),
            }),
            "mixed" => Some(Self::Mixed {
                floor: safeguard.unwrap_or(SAFEGUARD),
            }),
            "global" => Some(Self::Global {
                safeguard: safeguard.unwrap_or(0.0),
            }),
            _ => None,
        };
        let is_share = safeguard.is_none_or(|share| (0.0..=1.0).contains(&share));
        split.filter(|_| is_share).ok_or_else(|| {
            let bound = "expected per-head, pooled, mixed or global, or pooled:SAFEGUARD, mixed:FLOOR or \
                         global:SAFEGUARD with a share from 0 to 1";
            Error::invalid("head split", text, bound)
        })
    }
}

/// Chooses the slots of every layer; see [`select`].
///
/// Scores of two stages choose in both: what the first one takes is kept before anything of the second.
/// Tokens before the first that later ones see, `firsts` `[layer]`, are never kept: sinks that a window has passed are
/// none, and their place in the budget goes to others.
/// Shapes: budgets `[layer][kv_head]` -> `[layer][kv_head][slot]`.
/// Errors: [`Error::Invalid`] for budgets of another shape or below what always stays.
pub fn select_layers(
    scores: &[LayerScores],
    firsts: &[usize],
    budgets: &[Vec<usize>],
    sinks: usize,
    window: usize,
    split: HeadSplit,
) -> Result<Vec<Slots>> {
    if scores.len() != budgets.len() || scores.len() != firsts.len() {
        let bound = format!("the prompt was scored in {} layers", scores.len());
        return Err(Error::invalid(
            "number of layers with a budget",
            budgets.len(),
            bound,
        ));
    }
    let of_pool;
    let budgets = match split {
        HeadSplit::Global { safeguard } => {
            check_safeguard(safeguard)?;
            of_pool = pooled_budgets(scores, firsts, budgets, [sinks, window], safeguard)?;
            &of_pool
        }
        HeadSplit::Mixed { floor } => {
            check_safeguard(floor)?;
            of_pool = mixed_budgets(scores, firsts, budgets, [sinks, window], floor)?;
            &of_pool
        }
        HeadSplit::PerHead | HeadSplit::Pooled { .. } => budgets,
    };
    let layers = scores.iter().zip(firsts).zip(budgets);
    let layers = layers.map(|((scores, &first), budgets)| {
        let scores = scores.starting_at(first)?;
        let (heads, tokens) = scores.tensor().dims2()?;
        if budgets.len() != heads {
            let bound = format!("every layer has {heads} KV heads");
            return Err(Error::invalid(
                "number of KV heads with a budget",
                budgets.len(),
                bound,
            ));
        }
        let sinks = sinks.saturating_sub(first);
        let wanted = wanted(tokens, budgets, sinks, window, split)?;
        let Some(stage) = scores.first_stage() else {
            return largest_entries(scores.tensor(), &wanted);
        };
        let forced = sinks.saturating_add(window).min(tokens);
        let bounds = budgets.iter().map(|b| Bounds {
            forced,
            budget: *b.min(&tokens),
        });
        let bounds: Vec<Bounds> = bounds.collect();
        let (numbers, wanted) = stage.settle(scores.tensor(), wanted, &bounds)?;
        largest_entries(&numbers, &wanted)
    });
    // All layers are under way before the first result is waited for.
    let found: Vec<Tensor> = layers.collect::<Result<_>>()?;
    let Some(first) = found.first() else {
        return Ok(Vec::new());
    };
    let together = match found.len() {
        1 => first.to_vec1()?,
        _ => Tensor::cat(&found, 0)?.to_vec1()?,
    };
    let mut rest = together.as_slice();
    let mut layers = Vec::with_capacity(found.len());
    for ((found, budgets), &first) in found.iter().zip(budgets).zip(firsts) {
        let (own, after) = rest.split_at(found.elem_count());
        layers.push(slots_of(own, budgets.len(), first)?);
        rest = after;
    }
    Ok(layers)
}

/// Chooses the slots that each KV head keeps.
///
/// The first `sinks` and the last `window` tokens always stay; the best-scored of the rest fill the
/// budget to the token. Ties go to the later token.
/// Paper: none: house definition; kvpress hides what must stay in the scores.
/// Differs: chosen where the scores are; only the slots come from a device.
/// Shapes: budgets `[kv_head]`.
/// Errors: [`Error::Invalid`] for a budget below sinks + window, or scores that are not finite.
pub fn select(
    scores: &LayerScores,
    budgets: &[usize],
    sinks: usize,
    window: usize,
    split: HeadSplit,
) -> Result<Slots> {
    let scores = std::slice::from_ref(scores);
    let mut layers = select_layers(scores, &[0], &[budgets.to_vec()], sinks, window, split)?;
    Ok(layers.pop().unwrap_or_default())
}

/// What the heads of a layer keep in any case, and what they compete for.
fn wanted(
    tokens: usize,
    budgets: &[usize],
    sinks: usize,
    window: usize,
    split: HeadSplit,
) -> Result<Quotas> {
    let least = sinks.saturating_add(window).min(tokens);
    if let Some(budget) = budgets.iter().find(|budget| **budget < least) {
        return Err(Error::invalid(
            "budget of a KV head",
            format!("{budget} tokens"),
            format!(
                "sinks ({sinks}) and window ({window}) alone take {least}: allow more, or lower them"
            ),
        ));
    }
    let (own, shared) = match split {
        // What a pool gave a head before is its own.
        HeadSplit::PerHead | HeadSplit::Mixed { .. } | HeadSplit::Global { .. } => {
            (budgets.iter().map(|b| *b.min(&tokens)).collect(), 0)
        }
        HeadSplit::Pooled { safeguard } => {
            let own = guarded(tokens, budgets, least, safeguard)?;
            let (total, most) = (budgets.iter().sum::<usize>(), budgets.len() * tokens);
            let shared = total.min(most) - own.iter().sum::<usize>();
            (own, shared)
        }
    };
    Ok(Quotas {
        own,
        shared,
        sinks,
        window,
    })
}

/// What no other head can take of each head's budget.
fn guarded(tokens: usize, budgets: &[usize], least: usize, safeguard: f64) -> Result<Vec<usize>> {
    check_safeguard(safeguard)?;
    let own = |&budget: &usize| {
        let own = (budget as f64 * safeguard).floor() as usize;
        own.clamp(least, tokens)
    };
    Ok(budgets.iter().map(own).collect())
}

fn check_safeguard(safeguard: f64) -> Result<()> {
    if (0.0..=1.0).contains(&safeguard) {
        return Ok(());
    }
    let bound = "a share between 0 and 1 of each head's budget is its own";
    Err(Error::invalid("safeguard", safeguard, bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    /// [`super::select`] from rows of scores.
    fn select(
        scores: &[Vec<f64>],
        budgets: &[usize],
        sinks: usize,
        window: usize,
        split: HeadSplit,
    ) -> Result<Slots> {
        let scores = LayerScores::of_heads(scores.concat(), scores.len(), &Device::Cpu)?;
        super::select(&scores, budgets, sinks, window, split)
    }

    #[test]
    fn sinks_and_window_stay_whatever_the_scores_say() {
        let scores = [vec![0.0, 9.0, 8.0, 7.0, 0.0, 0.0]];
        let kept = |b| select(&scores, &[b], 1, 2, HeadSplit::PerHead).unwrap();
        assert_eq!(kept(4), [[0, 1, 4, 5]]);
        assert_eq!(kept(3), [[0, 4, 5]]);
        assert_eq!(kept(6), [[0, 1, 2, 3, 4, 5]]);
        assert!(select(&scores, &[2], 1, 2, HeadSplit::PerHead).is_err());
    }

    #[test]
    fn ties_go_to_the_later_token() {
        let scores = [vec![1.0; 5]];
        let kept = select(&scores, &[2], 0, 0, HeadSplit::PerHead).unwrap();
        assert_eq!(kept, [[3, 4]]);
    }

    #[test]
    fn sinks_and_window_may_overlap_in_a_short_prompt() {
        let scores = [vec![1.0; 3]];
        let kept = select(&scores, &[3], 2, 2, HeadSplit::PerHead).unwrap();
        assert_eq!(kept, [[0, 1, 2]]);
    }

    #[test]
    fn heads_compete_for_the_layers_budget_beyond_their_safeguard() {
        let scores = [vec![9.0, 8.0, 7.0, 6.0], vec![1.0, 0.5, 0.2, 0.1]];
        let split = |safeguard| {
            let split = HeadSplit::Pooled { safeguard };
            select(&scores, &[2, 2], 0, 0, split).unwrap()
        };
        assert_eq!(split(0.0), [vec![0, 1, 2, 3], vec![]]);
        assert_eq!(split(0.5), [vec![0, 1, 2], vec![0]]);
        assert_eq!(split(1.0), [vec![0, 1], vec![0, 1]]);
    }

    #[test]
    fn scores_that_are_not_numbers_are_refused() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let scores = [vec![0.5, 0.25], vec![1.0, wrong]];
            let error = select(&scores, &[1, 1], 0, 1, HeadSplit::PerHead).unwrap_err();
            assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        }
    }

    #[test]
    fn a_budget_of_more_than_the_prompt_keeps_all_of_it() {
        let scores = [vec![1.0; 3], vec![2.0; 3]];
        for split in [HeadSplit::PerHead, HeadSplit::Pooled { safeguard: 0.2 }] {
            let kept = select(&scores, &[5, 9], 0, 0, split).unwrap();
            assert_eq!(kept, [[0, 1, 2], [0, 1, 2]]);
        }
    }

    #[test]
    fn layers_are_chosen_together_and_apart() {
        let of = |rows: &[Vec<f64>]| {
            LayerScores::of_heads(rows.concat(), rows.len(), &Device::Cpu).unwrap()
        };
        let layers = [
            of(&[vec![3.0, 1.0, 2.0], vec![1.0, 2.0, 3.0]]),
            of(&[vec![1.0, 3.0], vec![3.0, 1.0]]),
        ];
        let budgets = [vec![2, 1], vec![0, 1]];
        let split = HeadSplit::PerHead;
        let kept = select_layers(&layers, &[0, 0], &budgets, 0, 0, split).unwrap();
        assert_eq!(kept[0], [vec![0, 2], vec![2]]);
        assert_eq!(kept[1], [vec![], vec![0]]);
        let of_window = select_layers(&layers, &[1, 1], &budgets, 0, 0, split).unwrap();
        assert_eq!(of_window[0], [vec![1, 2], vec![2]]);
        assert_eq!(of_window[1], [vec![], vec![1]]);
        // A sink that the window has passed leaves its place to another token.
        let budgets = [vec![2, 1], vec![1, 1]];
        let of_window = select_layers(&layers, &[1, 1], &budgets, 1, 0, split).unwrap();
        assert_eq!(of_window[0], [vec![1, 2], vec![2]]);
        let firsts = [0, 0];
        assert!(select_layers(&layers, &firsts, &budgets[..1], 0, 0, split).is_err());
        let other = [vec![2, 1], vec![0]];
        assert!(select_layers(&layers, &firsts, &other, 0, 0, split).is_err());
        assert!(
            select_layers(&[], &[], &[], 0, 0, split)
                .unwrap()
                .is_empty()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn budgets_are_spent_to_the_token(
            heads in 1usize..5,
            tokens in 1usize..60,
            seed in any::<u64>(),
            (sinks, window) in (0usize..6, 0usize..10),
            safeguard in 0.0f64..=1.0,
        ) {
            let mut state = seed;
            let mut draw = |n: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % n
            };
            let scores: Vec<Vec<f64>> =
                (0..heads).map(|_| (0..tokens).map(|_| draw(9) as f64).collect()).collect();
            let least = (sinks + window).min(tokens);
            let budgets: Vec<usize> =
                (0..heads).map(|_| least + draw(tokens - least + 1)).collect();
            for split in [HeadSplit::PerHead, HeadSplit::Pooled { safeguard }] {
                let kept = select(&scores, &budgets, sinks, window, split).unwrap();
                let total: usize = kept.iter().map(Vec::len).sum();
                prop_assert_eq!(total, budgets.iter().sum::<usize>());
                for slots in &kept {
                    prop_assert!(slots.windows(2).all(|w| w[0] < w[1]));
                    prop_assert!(slots.iter().all(|s| (*s as usize) < tokens));
                    let stays = |i: usize| i < sinks || i + window >= tokens;
                    let forced = (0..tokens).filter(|i| stays(*i));
                    for i in forced {
                        prop_assert!(slots.contains(&(i as u32)));
                    }
                }
            }
        }
    }
}
