//! ClusterKV: every token stays, and each step recalls those whose clusters fit its queries.

mod head;
mod living;
mod measures;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FirstCache, ResidencyRule};
use crate::budget::{Budget, CacheBudget, Floor, Geometry};
use crate::error::{Error, Result};
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};

use living::Recall;

/// Keys are clustered by direction, and a step sees the clusters that its queries point to, up to a budget.
///
/// Paper: arXiv:2412.03213 (ClusterKV), section 3. Differs: a KV head chooses by the mean of its group's queries, where
/// the paper chooses for every query head; of the last cluster that has room for a part only, the earliest tokens are
/// taken; a budget of the whole prompt is no bound, so that it is the full cache however long the answer. As published,
/// generated tokens that belong to no cluster yet are seen on top of the budget.
///
/// Units: tokens of a KV head, where not said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClusterKv {
    /// Sinks and recalled tokens together; the run's own budget if absent.
    pub budget: Option<RecallBudget>,
    /// First tokens of the text that are always seen and belong to no cluster.
    pub sinks: usize,
    /// Prompt tokens for every cluster.
    pub tokens_per_cluster: usize,
    /// Most rounds of the k-means.
    pub iterations: usize,
    /// Generated tokens that become clusters together.
    pub every: usize,
    /// Clusters that they become.
    pub new: usize,
    /// First layers that see everything.
    pub full_layers: usize,
    /// Seed of the k-means.
    pub seed: u64,
}

impl Default for ClusterKv {
    fn default() -> Self {
        Self {
            budget: None,
            sinks: 16,
            tokens_per_cluster: 80,
            iterations: 20,
            every: 320,
            new: 8,
            full_layers: 2,
            seed: 0,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "clusterkv",
    paper: "arXiv:2412.03213 (ClusterKV), section 3",
    about: "nothing leaves; a step recalls the clusters of keys that its queries point to",
    differs: "by the mean query of the group, not per query head; of the last cluster the earliest tokens are taken",
    build: |p| Ok(Box::new(parse::<ClusterKv>(p)?)),
};

impl ClusterKv {
    /// Clusters that a prompt's keys become, if there are as many: T / tokens per cluster, rounded, half of one up.
    fn clusters(&self, tokens: usize) -> usize {
        let half_up = tokens
            .saturating_mul(2)
            .saturating_add(self.tokens_per_cluster);
        (half_up / self.tokens_per_cluster.saturating_mul(2).max(1)).max(1)
    }

    /// What a KV head may see: its own budget, or the one that the run spends.
    fn spent(&self, spent: Option<CacheBudget>) -> Result<CacheBudget> {
        let own = self
            .budget
            .map(|RecallBudget(own)| CacheBudget::Tokens(own));
        let budget = own.or(spent);
        let budget = budget.ok_or_else(|| {
            let bound =
                "a step recalls up to one: write full+clusterkv(budget=256), or give the run a budget";
            Error::invalid("budget of clusterkv", "absent", bound)
        })?;
        budget.check()?;
        Ok(budget)
    }

    fn check_counts(&self) -> Result<()> {
        for (what, count) in [
            ("tokens per cluster", self.tokens_per_cluster),
            ("iterations of the clustering", self.iterations),
            ("generated tokens that are clustered together", self.every),
            ("clusters of generated tokens", self.new),
        ] {
            if count == 0 {
                return Err(Error::invalid(what, 0, "at least one is needed"));
            }
        }
        Ok(())
    }
}

impl ResidencyRule for ClusterKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        true
    }

    fn spends_budget(&self) -> bool {
        self.budget.is_none()
    }

    fn recalls(&self) -> bool {
        true
    }

    fn check(&self, tokens: usize, _: &Floor, budget: Option<CacheBudget>) -> Result<()> {
        self.check_counts()?;
        // How many rows bytes hold is known once there are clusters.
        let Some(rows) = self.spent(budget)?.tokens() else {
            return Ok(());
        };
        let rows = rows.per_head(tokens) as usize;
        if rows > self.sinks {
            return Ok(());
        }
        let bound = format!(
            "the {} sinks that are always seen leave nothing to recall: allow more, or lower sinks",
            self.sinks
        );
        let given = format!("{rows} tokens of a KV head");
        Err(Error::invalid("budget of clusterkv", given, bound))
    }

    fn check_geometry(&self, model: &Geometry) -> Result<()> {
        let recalls = |layer: usize| model.windows.get(layer).copied().flatten().is_none();
        if (self.full_layers..model.layers).any(recalls) {
            return Ok(());
        }
        let bound = if (0..model.layers).any(recalls) {
            format!(
                "no layer behind them would recall: fewer of the {} layers are needed",
                model.layers
            )
        } else {
            "every layer of the model has a window, and none would recall".to_owned()
        };
        Err(Error::invalid(
            "full_layers of clusterkv",
            self.full_layers,
            bound,
        ))
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        let tokens = first.prompt_tokens;
        self.check(tokens, &first.floor, first.budget)?;
        let budget = self.spent(first.budget)?;
        let rows = budget
            .tokens()
            .map(|budget| budget.per_head(tokens) as usize);
        let rows = rows.filter(|rows| *rows < tokens).unwrap_or(usize::MAX);
        let limit = budget.bytes(first.full_bytes);
        let limit = limit.filter(|limit| *limit < first.full_bytes);
        Ok(Box::new(Recall::of(self.clone(), tokens, rows, limit)))
    }
}

/// What a KV head may see, written `256` or `12%` of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub(super) struct RecallBudget(pub Budget);

impl TryFrom<Value> for RecallBudget {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Budget::from_str(&text).map(Self)
    }
}

impl From<RecallBudget> for Value {
    fn from(RecallBudget(budget): RecallBudget) -> Self {
        match budget {
            Budget::TokensPerHead(tokens) => tokens.into(),
            Budget::RetainedFraction(_) => budget.to_string().into(),
        }
    }
}
