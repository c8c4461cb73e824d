//! Random tokens while decoding: what a rule with the same protection must beat.

use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eviction::EvictionOptions;
use super::judgement::{CrowdedHead, Judgement};
use super::{DecodeBudget, FirstCache, ResidencyRule};
use crate::budget::{BudgetPlan, CacheBudget, Floor};
use crate::error::{Error, Result};
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};

/// Over the budget, tokens leave by lot; the prompt, as the cut left it, and the newest tokens stay.
///
/// Paper: arXiv:2609.03430 (Random Attention). Differs: the budget is the most rows at any step, the prompt's among
/// them, where the paper counts what is drawn alone: with `kept+N`, N − `window` − `every` tokens are; `pinned=false` lets
/// the prompt take part in the draw. Draws are ChaCha8's, a stream for every eviction and KV head, so that a seed gives
/// the same tokens again.
///
/// Units: tokens, where not said otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EvictRandom {
    /// The most rows of a KV head at any step.
    budget: DecodeBudget,
    /// Steps from one eviction to the next.
    every: usize,
    /// First tokens of the text that never leave, where the prompt is not pinned.
    sinks: usize,
    /// Newest tokens that do not leave.
    window: usize,
    /// Whether what was prefilled never leaves.
    pinned: bool,
    /// Seed of the draws.
    seed: u64,
}

impl Default for EvictRandom {
    fn default() -> Self {
        Self {
            budget: DecodeBudget::KeptAnd(256),
            every: 64,
            sinks: 0,
            window: 64,
            pinned: true,
            seed: 0,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "evict-random",
    paper: "arXiv:2609.03430 (Random Attention)",
    about: "every 64 tokens, generated ones leave by lot; the prompt and the newest 64 stay: what a rule must beat",
    differs: "the budget holds at every step and counts the prompt (kept+256 is 256 more than the cut left); seeded",
    build: |p| Ok(Box::new(parse::<EvictRandom>(p)?)),
};

impl EvictRandom {
    /// With the first so many tokens pinned.
    fn options(&self, pinned: usize) -> EvictionOptions {
        EvictionOptions {
            sinks: Some(if self.pinned { pinned } else { self.sinks }),
            window: Some(self.window),
            ..EvictionOptions::of(&self.budget, self.every)
        }
    }

    /// Refuses a bound that the pinned prompt alone takes up.
    fn check_pinned(&self, first: &FirstCache<'_>) -> Result<()> {
        let budgets = self.budget.rows(first.prompt_tokens, first.kept)?;
        let heads = first.kept.iter().flatten().zip(budgets.iter().flatten());
        for (kept, &rows) in heads {
            let newer = self.window.saturating_add(self.every);
            let least = kept.len().saturating_add(newer);
            if rows < least {
                let bound = format!(
                    "the pinned prompt ({} rows), window ({}) and what comes between two evictions ({}) alone take \
                     {least}: allow more, such as budget=kept+{}, or let the prompt go with pinned=false",
                    kept.len(),
                    self.window,
                    self.every,
                    newer.saturating_mul(2)
                );
                let given = format!("{rows} rows of a KV head");
                return Err(Error::invalid("decode budget", given, bound));
            }
        }
        Ok(())
    }
}

impl ResidencyRule for EvictRandom {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn has_own_floor(&self) -> bool {
        true
    }

    fn plan(&self) -> Option<&BudgetPlan> {
        self.budget.plan()
    }

    /// How much of a prompt is pinned is known once it is cut.
    fn check(&self, tokens: usize, floor: &Floor, _: Option<CacheBudget>) -> Result<()> {
        self.options(0).check(tokens, floor)
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        if self.pinned {
            self.check_pinned(first)?;
        }
        let options = self.options(first.prompt_tokens);
        options.start_judging(first, Box::new(Lot { seed: self.seed }))
    }
}

/// A draw in which all have the same chance.
#[derive(Debug)]
struct Lot {
    seed: u64,
}

impl Judgement for Lot {
    fn worth(&self, head: &CrowdedHead<'_>) -> Result<Vec<f64>> {
        let mut generator = head.generator(self.seed);
        let mut draw = || (generator.next_u64() >> 11) as f64;
        Ok((0..head.tokens()).map(|_| draw()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::judgement::tests::crowded;
    use super::*;

    #[test]
    fn a_seed_gives_the_same_draw_again_and_another_gives_another() {
        let draw = |seed, now| {
            let keys = vec![0f32; now];
            crowded(&keys, &keys, &[], (0, 1), 1, |head| {
                Lot { seed }.worth(head).unwrap()
            })
        };
        assert_eq!(draw(3, 9), draw(3, 9));
        assert_ne!(draw(3, 9), draw(4, 9));
        // Later evictions draw anew.
        assert_ne!(draw(3, 9)[..], draw(3, 10)[..9]);
    }

    #[test]
    fn a_prompt_that_does_not_fit_is_refused_with_the_way_out() {
        let kept = vec![vec![(0..100).collect(), (0..40).collect()]];
        let first = FirstCache::new(&kept, 120, Floor::of(4, 32));
        let start = |budget: &str, pinned| {
            let rule = EvictRandom {
                budget: budget.parse().unwrap(),
                every: 8,
                window: 16,
                pinned,
                ..EvictRandom::default()
            };
            rule.check(120, &Floor::of(4, 32), None)?;
            rule.start(&first).map(drop)
        };
        let said = start("123", true).unwrap_err().to_string();
        let parts = ["123 rows", "(100 rows)", "124", "kept+48", "pinned=false"];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        start("124", true).unwrap();
        start("kept+24", true).unwrap();
        start("24", false).unwrap();
        assert!(start("kept", true).is_err() && start("23", false).is_err());
    }
}
