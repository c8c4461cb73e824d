//! From scores and budgets to the slots that stay.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Slots to keep, ascending.
///
/// Shapes: `[kv_head][kept]`.
pub type Slots = Vec<Vec<u32>>;

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
}

/// Ada-KV's share of a head's budget that no other head can take.
const SAFEGUARD: f64 = 0.2;

impl fmt::Display for HeadSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerHead => f.write_str("per-head"),
            Self::Pooled { safeguard } => write!(f, "pooled:{safeguard}"),
        }
    }
}

impl FromStr for HeadSplit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let safeguard = match text {
            "per-head" => return Ok(Self::PerHead),
            "pooled" => Some(SAFEGUARD),
            _ => text.strip_prefix("pooled:").and_then(|s| s.parse().ok()),
        };
        match safeguard.filter(|s| (0.0..=1.0).contains(s)) {
            Some(safeguard) => Ok(Self::Pooled { safeguard }),
            None => Err(Error::invalid(
                "head split",
                text,
                "expected per-head, pooled, or pooled:SAFEGUARD with a share from 0 to 1",
            )),
        }
    }
}

/// Chooses the slots of every layer; see [`select`].
///
/// Shapes: scores and budgets `[layer][kv_head]` -> `[layer][kv_head][slot]`.
/// Errors: [`Error::Invalid`] for budgets of another shape or below what always stays.
pub fn select_layers(
    scores: &[Vec<Vec<f64>>],
    budgets: &[Vec<usize>],
    sinks: usize,
    window: usize,
    split: HeadSplit,
) -> Result<Vec<Slots>> {
    if scores.len() != budgets.len() {
        let bound = format!("the prompt was scored in {} layers", scores.len());
        return Err(Error::invalid(
            "number of layers with a budget",
            budgets.len(),
            bound,
        ));
    }
    let heads = scores.first().map_or(0, Vec::len);
    if let Some(other) = budgets.iter().find(|b| b.len() != heads) {
        let bound = format!("every layer has {heads} KV heads");
        return Err(Error::invalid(
            "number of KV heads with a budget",
            other.len(),
            bound,
        ));
    }
    let layers = scores.iter().zip(budgets);
    layers
        .map(|(scores, budgets)| select(scores, budgets, sinks, window, split))
        .collect()
}

/// Chooses the slots that each KV head keeps.
///
/// The first `sinks` and the last `window` tokens always stay; the best-scored of the rest fill the
/// budget to the token. Ties go to the later token.
/// Paper: none: house definition; kvpress hides what must stay in the scores.
/// Shapes: scores `[kv_head][token]`, budgets `[kv_head]`.
/// Errors: [`Error::Invalid`] for a budget below sinks + window, or scores that are not finite.
pub fn select(
    scores: &[Vec<f64>],
    budgets: &[usize],
    sinks: usize,
    window: usize,
    split: HeadSplit,
) -> Result<Slots> {
    let ranked: Vec<Ranking> = scores
        .iter()
        .map(|scores| Ranking::new(scores, sinks, window))
        .collect::<Result<_>>()?;
    for (ranking, &budget) in ranked.iter().zip(budgets) {
        let least = ranking.forced.len();
        if budget < least {
            return Err(Error::invalid(
                "budget of a KV head",
                format!("{budget} tokens"),
                format!(
                    "sinks ({sinks}) and window ({window}) alone take {least}: allow more, or lower them"
                ),
            ));
        }
    }
    let free: Vec<usize> = match split {
        HeadSplit::PerHead => budgets.to_vec(),
        HeadSplit::Pooled { safeguard } => pooled(&ranked, scores, budgets, safeguard)?,
    };
    Ok(ranked
        .iter()
        .zip(free)
        .map(|(ranking, budget)| ranking.keep(budget))
        .collect())
}

/// The tokens of one head: those that stay anyway, and the others, best first.
struct Ranking {
    forced: Vec<u32>,
    others: Vec<u32>,
}

impl Ranking {
    fn new(scores: &[f64], sinks: usize, window: usize) -> Result<Self> {
        if scores.iter().any(|s| !s.is_finite()) {
            return Err(Error::NotFinite {
                place: "a token's score".into(),
                advice: "attention or keys hold NaN; the weights may be damaged".into(),
            });
        }
        let tokens = scores.len();
        let stays = |i: &u32| (*i as usize) < sinks || *i as usize + window >= tokens;
        let (forced, mut others): (Vec<u32>, Vec<u32>) = (0..tokens as u32).partition(stays);
        others.sort_unstable_by(|&a, &b| {
            let (x, y) = (scores[a as usize], scores[b as usize]);
            y.total_cmp(&x).then(b.cmp(&a))
        });
        Ok(Self { forced, others })
    }

    fn keep(&self, budget: usize) -> Vec<u32> {
        let free = (budget - self.forced.len()).min(self.others.len());
        let mut kept = [&self.forced, &self.others[..free]].concat();
        kept.sort_unstable();
        kept
    }
}

/// Budgets after the heads of a layer have competed for its total.
fn pooled(
    ranked: &[Ranking],
    scores: &[Vec<f64>],
    budgets: &[usize],
    safeguard: f64,
) -> Result<Vec<usize>> {
    if !(0.0..=1.0).contains(&safeguard) {
        let bound = "a share between 0 and 1 of each head's budget is its own";
        return Err(Error::invalid("safeguard", safeguard, bound));
    }
    let total: usize = budgets.iter().sum();
    let mut spent: Vec<usize> = ranked
        .iter()
        .zip(budgets)
        .map(|(ranking, &budget)| {
            let own = (budget as f64 * safeguard).floor() as usize;
            let all = ranking.forced.len() + ranking.others.len();
            own.max(ranking.forced.len()).min(all)
        })
        .collect();
    let mut rest: Vec<(usize, u32)> = ranked
        .iter()
        .enumerate()
        .flat_map(|(h, ranking)| {
            let taken = spent[h] - ranking.forced.len();
            ranking.others[taken..].iter().map(move |&slot| (h, slot))
        })
        .collect();
    rest.sort_by(|&(g, a), &(h, b)| {
        let (x, y) = (scores[g][a as usize], scores[h][b as usize]);
        y.total_cmp(&x).then(b.cmp(&a)).then(g.cmp(&h))
    });
    let left = total - spent.iter().sum::<usize>().min(total);
    for (h, _) in rest.into_iter().take(left) {
        spent[h] += 1;
    }
    Ok(spent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        assert!(select(&[vec![f64::NAN]], &[1], 0, 0, HeadSplit::PerHead).is_err());
    }

    proptest! {
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
