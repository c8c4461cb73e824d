//! H2O while decoding: the token with the least accumulated attention leaves.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eviction::{EvictionOptions, HeadRows, Importance};
use super::{DecodeBudget, FirstCache, ResidencyRule};
use crate::budget::{BudgetPlan, CacheBudget, Floor};
use crate::error::Result;
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};
use crate::select::{H2o, Scorer};

/// Over the budget, the token that has received the least attention since it came leaves its KV head.
///
/// Paper: arXiv:2306.14048 (H2O), algorithm 1. Differs: per KV head, with the mean over its query heads; first tokens
/// never leave; the budget counts the new token, and may differ by head; `from=decode` forgets what the prompt paid, so that
/// what leaves at once after it leaves by age.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EvictH2o {
    budget: DecodeBudget,
    every: usize,
    sinks: Option<usize>,
    window: Option<usize>,
    from: Since,
}

/// From where attention is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Since {
    /// From the prompt's first row, as published.
    Prompt,
    /// From the first generated token.
    Decode,
}

impl Default for EvictH2o {
    fn default() -> Self {
        let EvictionOptions {
            budget,
            every,
            sinks,
            window,
            ..
        } = EvictionOptions::default();
        Self {
            budget,
            every,
            sinks,
            window,
            from: Since::Prompt,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "evict-h2o",
    paper: "arXiv:2306.14048 (H2O), algorithm 1",
    about: "while decoding, the token with the least accumulated attention leaves its KV head",
    differs: "per KV head with the mean over its query heads; first tokens never leave; the budget counts the new token \
              and may differ by head",
    build: |p| Ok(Box::new(parse::<EvictH2o>(p)?)),
};

/// What a prompt's own rows have paid, added up as steps add to it.
static PROMPT: H2o = H2o::SUM;

impl EvictH2o {
    fn options(&self) -> EvictionOptions {
        EvictionOptions {
            sinks: self.sinks,
            window: self.window,
            ..EvictionOptions::of(&self.budget, self.every)
        }
    }
}

impl ResidencyRule for EvictH2o {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn prompt_scorer(&self) -> Option<(&'static str, &'static dyn Scorer)> {
        (self.from == Since::Prompt).then_some(("h2o", &PROMPT))
    }

    fn plan(&self) -> Option<&BudgetPlan> {
        self.budget.plan()
    }

    fn check(&self, tokens: usize, floor: &Floor, _: Option<CacheBudget>) -> Result<()> {
        self.options().check(tokens, floor)
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        self.options().start(first, Box::new(Accumulated))
    }
}

/// All attention that a token has received.
#[derive(Debug)]
struct Accumulated;

impl Importance for Accumulated {
    fn reads_rows(&self) -> bool {
        true
    }

    fn update(&self, importance: &mut [f64], _: &[u32], rows: Option<&HeadRows<'_>>) {
        let Some(rows) = rows else { return };
        for (slot, importance) in importance.iter_mut().enumerate() {
            *importance += rows.received(slot).sum::<f64>();
        }
    }
}
