//! Residencies: how the set of tokens that attention sees changes while a cache lives; one file each.
//!
//! A [`ResidencyRule`] is what a method names; it starts a [`Residency`] for every cache. A new one is one file and
//! one line of [`RESIDENCIES`].

mod clusterkv;
mod compress_every;
mod decode_budget;
mod eviction;
#[cfg(test)]
mod eviction_tests;
mod h2o;
mod judgement;
mod keep;
mod leankv;
mod r_kv;
mod random;
mod recent_queries;
#[cfg(test)]
mod reference_tests;
mod streaming;
mod tova;
mod vase;

pub use decode_budget::DecodeBudget;
pub use keep::Keep;
pub(super) use recent_queries::PromptQueries;
pub use recent_queries::RecentQueries;

use std::fmt;

use serde_json::Value;

use crate::budget::{BudgetPlan, CacheBudget, Floor, Geometry};
use crate::error::Result;
use crate::model::cache::{LevelSlots, Representation};
use crate::model::residency::Residency;
use crate::registry::Entry;
use crate::select::Scorer;

/// What a cache looks like when a residency takes it over.
#[derive(Clone, Debug)]
pub struct FirstCache<'a> {
    /// Slots of the prompt that every KV head holds, `[layer][kv_head][slot]`.
    pub kept: &'a [Vec<Vec<u32>>],
    /// T.
    pub prompt_tokens: usize,
    /// Sinks and window of the method.
    pub floor: Floor,
    /// What the run spends, where it spends anything.
    pub budget: Option<CacheBudget>,
    /// Bytes of the full cache as it was prefilled.
    pub full_bytes: usize,
    /// D.
    pub head_dim: usize,
    /// Scores of all prompt tokens by [`ResidencyRule::prompt_scorer`], `[layer][kv_head][token]`; empty without one.
    pub prompt_scores: Vec<Vec<Vec<f64>>>,
    /// The prompt's last queries, as many as [`ResidencyRule::looks_back`] says, `[layer]`; empty where none are known,
    /// and what leaves at once then leaves by age wherever it is attention that counts.
    pub last_queries: Vec<RecentQueries>,
}

impl<'a> FirstCache<'a> {
    /// Of a cut that spends no budget and whose tokens were not scored.
    pub fn new(kept: &'a [Vec<Vec<u32>>], prompt_tokens: usize, floor: Floor) -> Self {
        Self {
            kept,
            prompt_tokens,
            floor,
            budget: None,
            full_bytes: 0,
            head_dim: 0,
            prompt_scores: Vec::new(),
            last_queries: Vec::new(),
        }
    }
}

/// A cut at two levels of precision.
#[derive(Clone, Debug)]
pub struct LevelCut {
    /// `[layer][kv_head]`.
    pub kept: Vec<Vec<LevelSlots>>,
    /// What the levels are.
    pub held_as: Representation,
}

/// The residency of a method, before there is a cache.
pub trait ResidencyRule: fmt::Debug + Send + Sync {
    /// The parameters in full, defaults included.
    fn parameters(&self) -> Value;

    /// Whether a cache can be rewound while it lives; one that cannot is evaluated step by step.
    fn can_rewind(&self) -> bool;

    /// What must be known of the prompt's tokens when decoding begins.
    fn prompt_scorer(&self) -> Option<(&'static str, &'static dyn Scorer)> {
        None
    }

    /// How many of the prompt's last queries must be known when decoding begins.
    fn looks_back(&self, _floor: &Floor) -> usize {
        0
    }

    /// Whether sinks and window are its own parameters, not those of the method.
    fn has_own_floor(&self) -> bool {
        self.recalls() || self.holds_as().is_some()
    }

    /// The plan that bounds its rows, where there is one.
    fn plan(&self) -> Option<&BudgetPlan> {
        None
    }

    /// What keys and values are held in, where that is its own doing; no other type can be asked for then.
    fn holds_as(&self) -> Option<Representation> {
        None
    }

    /// Whether it spends the run's budget.
    fn spends_budget(&self) -> bool {
        false
    }

    /// Whether steps bring back what others left out, which can be measured.
    fn recalls(&self) -> bool {
        false
    }

    /// Refuses what no prompt of `tokens` could be served with; `budget` is the run's, where it spends one.
    ///
    /// Errors: [`crate::error::Error::Invalid`] with the value and the bound.
    fn check(&self, tokens: usize, floor: &Floor, budget: Option<CacheBudget>) -> Result<()>;

    /// Refuses a model on which it would do nothing.
    ///
    /// Errors: [`crate::error::Error::Invalid`] with the value and the bound.
    fn check_geometry(&self, _model: &Geometry) -> Result<()> {
        Ok(())
    }

    /// What a cut keeps at two levels of precision, where this residency holds tokens so; `None` where it does not.
    ///
    /// Errors: as [`ResidencyRule::start`].
    fn levels(&self, _first: &FirstCache<'_>) -> Result<Option<LevelCut>> {
        Ok(None)
    }

    /// The residency of a cache.
    ///
    /// Errors: as [`ResidencyRule::check`], for what the cache itself rules out.
    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>>;
}

/// Every residency there is.
pub const RESIDENCIES: &[Entry<dyn ResidencyRule>] = &[
    keep::ENTRY,
    h2o::ENTRY,
    tova::ENTRY,
    streaming::ENTRY,
    r_kv::ENTRY,
    vase::ENTRY,
    random::ENTRY,
    compress_every::ENTRY,
    clusterkv::ENTRY,
    leankv::ENTRY,
];
