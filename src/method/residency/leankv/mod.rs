//! LeanKV: every token of a KV head is held in more bits, in fewer bits, or not at all.

mod levels;
mod living;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FirstCache, LevelCut, ResidencyRule};
use crate::budget::{CacheBudget, Floor};
use crate::compute::device::GroupReduce;
use crate::error::{Error, Result};
use crate::model::cache::{Elements, Levels, Representation, TokenBits};
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};
use crate::select::{H2o, Scorer};
use levels::{LevelBits, PromptLevels};
use living::Living;

/// Tokens of little attention are held in fewer bits, those of least not at all; dynamic per KV head.
///
/// Paper: arXiv:2412.03131 (LeanKV), and the code of DiffKV, which continues it. Differs: a token's score is its mean
/// attention from all prompt rows that see it, not from the newest alone; thresholds are scaled to a budget of bytes
/// unless `fixed`; a token that loses precision is coded from what its high level says, the prompt's from the numbers
/// themselves.
/// Units: thresholds in units of 1 / tokens so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LeanKv {
    /// Below it a token leaves.
    pub prune: f64,
    /// Below it a token is held in fewer bits.
    pub demote: f64,
    /// Whether the thresholds are as given, whatever bytes that takes.
    pub fixed: bool,
    /// Newest tokens that are always held in more bits.
    pub window: usize,
    /// Bits of keys and of values that matter.
    pub high: LevelBits,
    /// Bits of the others.
    pub low: LevelBits,
}

impl Default for LeanKv {
    fn default() -> Self {
        Self {
            prune: 0.02,
            demote: 1.0,
            fixed: false,
            window: 64,
            high: LevelBits::K8V4,
            low: LevelBits::K4V2,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "leankv",
    paper: "arXiv:2412.03131 (LeanKV), continued as DiffKV",
    about: "tokens of little attention are held in fewer bits, those of least leave; per KV head and step",
    differs: "scores are means over all rows of the prompt; thresholds are scaled to the budget unless fixed",
    build: |p| Ok(Box::new(parse::<LeanKv>(p)?)),
};

/// Mean attention from the rows that see a token, the most of its group's query heads.
static PROMPT: H2o = H2o {
    normalise: true,
    group: GroupReduce::Max,
};

impl LeanKv {
    /// What keys and values are held in.
    fn held_as(&self) -> Representation {
        let side = |high, low| Elements::Levels(Levels { high, low });
        Representation {
            keys: side(self.high.keys, self.low.keys),
            values: side(self.high.values, self.low.values),
        }
    }

    /// What the thresholds are multiplied by, and the levels of the prompt's tokens that come of it.
    fn levels_of(&self, first: &FirstCache<'_>) -> Result<PromptLevels> {
        let prompt = levels::Prompt::of(self, first)?;
        if self.fixed {
            return Ok(prompt.levels(1.0));
        }
        let budget = self.spent(first.budget)?;
        let heads = first.kept.iter().map(Vec::len).sum();
        let limit = budget.comes_to(first.full_bytes, first.prompt_tokens, heads);
        prompt.levels_within(limit)
    }

    fn spent(&self, budget: Option<CacheBudget>) -> Result<CacheBudget> {
        let budget = budget.ok_or_else(|| {
            let bound =
                "thresholds are scaled to one: give the run a budget, or write leankv(fixed=true)";
            Error::invalid("budget of leankv", "absent", bound)
        })?;
        budget.check()?;
        Ok(budget)
    }
}

impl ResidencyRule for LeanKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn prompt_scorer(&self) -> Option<(&'static str, &'static dyn Scorer)> {
        Some(("h2o", &PROMPT))
    }

    fn spends_budget(&self) -> bool {
        !self.fixed
    }

    fn holds_as(&self) -> Option<Representation> {
        Some(self.held_as())
    }

    fn check(&self, _: usize, _: &Floor, budget: Option<CacheBudget>) -> Result<()> {
        let is_threshold = |x: f64| x >= 0.0 && x.is_finite();
        if !is_threshold(self.prune) || !is_threshold(self.demote) || self.prune > self.demote {
            let bound = "they are numbers of at least 0, and prune is at most demote";
            let given = format!("prune={}, demote={}", self.prune, self.demote);
            return Err(Error::invalid("thresholds of leankv", given, bound));
        }
        if !self.fixed && self.demote == 0.0 {
            let bound =
                "thresholds of 0 cannot be scaled to a budget: raise them, or write fixed=true";
            return Err(Error::invalid("thresholds of leankv", 0, bound));
        }
        let is_more = |low: TokenBits, high: TokenBits| low.count() > high.count();
        if is_more(self.low.keys, self.high.keys) || is_more(self.low.values, self.high.values) {
            let bound = format!(
                "the high level, {}, must have as many bits of both",
                self.high
            );
            return Err(Error::invalid("low level of leankv", self.low, bound));
        }
        if self.window == 0 {
            let bound = "a new token must stay at least until it was seen: 1 or more";
            return Err(Error::invalid("window of leankv", 0, bound));
        }
        if self.fixed {
            return Ok(());
        }
        self.spent(budget).map(drop)
    }

    fn levels(&self, first: &FirstCache<'_>) -> Result<Option<LevelCut>> {
        self.check(first.prompt_tokens, &first.floor, first.budget)?;
        let kept = self.levels_of(first)?.kept;
        Ok(Some(LevelCut {
            kept,
            held_as: self.held_as(),
        }))
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        let levels = self.levels_of(first)?;
        Ok(Box::new(Living::of(self, first, levels)?))
    }
}
