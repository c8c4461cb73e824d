//! StreamingLLM while decoding: the oldest token behind the sinks leaves.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eviction::{EvictionOptions, HeadRows, Importance};
use super::{FirstCache, ResidencyRule};
use crate::budget::{BudgetPlan, CacheBudget, Floor};
use crate::error::Result;
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};

/// Over the budget, the oldest token behind the sinks leaves its KV head: a window that moves.
///
/// Paper: arXiv:2309.17453 (StreamingLLM), section 3.2. Differs: positions stay those of the text, where the paper
/// numbers what is in the cache; what a prompt's cut kept beyond the window leaves from its oldest on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct EvictStreaming(EvictionOptions);

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "evict-streaming",
    paper: "arXiv:2309.17453 (StreamingLLM), section 3.2",
    about: "while decoding, the oldest token behind the sinks leaves its KV head",
    differs: "positions stay those of the text, where the paper numbers what is in the cache",
    build: |p| Ok(Box::new(parse::<EvictStreaming>(p)?)),
};

impl ResidencyRule for EvictStreaming {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn plan(&self) -> Option<&BudgetPlan> {
        self.0.budget.plan()
    }

    fn check(&self, tokens: usize, floor: &Floor, _: Option<CacheBudget>) -> Result<()> {
        self.0.check(tokens, floor)
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        self.0.start(first, Box::new(Age))
    }
}

/// The later, the more important.
#[derive(Debug)]
struct Age;

impl Importance for Age {
    fn reads_rows(&self) -> bool {
        false
    }

    fn update(&self, importance: &mut [f64], positions: &[u32], _: Option<&HeadRows<'_>>) {
        for (importance, position) in importance.iter_mut().zip(positions) {
            *importance = f64::from(*position);
        }
    }
}
