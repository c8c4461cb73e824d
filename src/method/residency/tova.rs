//! TOVA while decoding: the token that the newest query attends to least leaves.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eviction::{EvictionOptions, HeadRows, Importance};
use super::{FirstCache, ResidencyRule};
use crate::budget::{BudgetPlan, CacheBudget, Floor};
use crate::error::Result;
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};
use crate::select::{Scorer, Tova};

/// Over the budget, the token that the last query attends to least leaves its KV head.
///
/// Paper: arXiv:2401.06104 (TOVA), section 3. Differs: per KV head with the mean over its query heads, where the paper
/// averages over all heads of the layer; what leaves at once after the prompt is what its last row, averaged over all
/// heads, sees least of; sinks and window of the method are kept, which `sinks=0,window=0` leaves out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct EvictTova(EvictionOptions);

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "evict-tova",
    paper: "arXiv:2401.06104 (TOVA), section 3",
    about: "while decoding, the token that the last query attends to least leaves its KV head",
    differs: "per KV head with the mean over its query heads, not over all heads of the layer; sinks and window stay",
    build: |p| Ok(Box::new(parse::<EvictTova>(p)?)),
};

/// What the prompt's last row pays.
static PROMPT: Tova = Tova {};

impl ResidencyRule for EvictTova {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn prompt_scorer(&self) -> Option<(&'static str, &'static dyn Scorer)> {
        Some(("tova", &PROMPT))
    }

    fn plan(&self) -> Option<&BudgetPlan> {
        self.0.budget.plan()
    }

    fn check(&self, tokens: usize, floor: &Floor, _: Option<CacheBudget>) -> Result<()> {
        self.0.check(tokens, floor)
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        self.0.start(first, Box::new(LastQuery))
    }
}

/// What the last query pays.
#[derive(Debug)]
struct LastQuery;

impl Importance for LastQuery {
    fn reads_rows(&self) -> bool {
        true
    }

    fn update(&self, importance: &mut [f64], _: &[u32], rows: Option<&HeadRows<'_>>) {
        let Some(rows) = rows else { return };
        for (slot, importance) in importance.iter_mut().enumerate() {
            *importance = rows.received(slot).last().unwrap_or(0.0);
        }
    }
}
