//! How many rows a KV head may hold while decoding.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::{Budget, BudgetPlan, TokenBudgets};
use crate::error::{Error, Result};

/// The most rows that a KV head holds at any step, its new token's included.
///
/// Differs: written `128` or `12%` (of the prompt) for every KV head alike, `kept` for what the cut left to each, a
/// `kept+256` for so many more than that, a file `plan.json` for a plan's tokens, `none` for no bound. Never a mean: other
/// tools mean five other things.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum DecodeBudget {
    /// As many as the KV head held after the cut.
    #[default]
    Kept,
    /// So many more than the KV head held after the cut.
    KeptAnd(usize),
    /// The same for every KV head.
    Alike(Budget),
    /// Those of a plan, and the file that it was read from.
    Plan(String, Box<BudgetPlan>),
    /// As many as come.
    Unbounded,
}

impl DecodeBudget {
    /// Rows of every KV head for a prompt of `tokens`, of which the cut left `kept`.
    ///
    /// Shapes: `[layer][kv_head]`. Errors: [`Error::Invalid`] for a plan of another geometry.
    pub(super) fn rows(&self, tokens: usize, kept: &[Vec<Vec<u32>>]) -> Result<TokenBudgets> {
        let each = |rows: &dyn Fn(&Vec<u32>) -> usize| {
            let layers = kept.iter().map(|layer| layer.iter().map(rows).collect());
            Ok(layers.collect())
        };
        match self {
            Self::Kept => each(&|slots| slots.len()),
            Self::KeptAnd(more) => each(&|slots| slots.len().saturating_add(*more)),
            Self::Unbounded => each(&|_| usize::MAX),
            Self::Alike(budget) => each(&|_| budget.per_head(tokens) as usize),
            Self::Plan(file, plan) => {
                let rows = plan.tokens_at(tokens)?;
                let shape =
                    |heads: usize, layers: usize| format!("{layers} layers of {heads} KV heads");
                let heads = |layers: usize, first: Option<usize>| shape(first.unwrap_or(0), layers);
                let theirs = heads(rows.len(), rows.first().map(Vec::len));
                let ours = heads(kept.len(), kept.first().map(Vec::len));
                if theirs != ours {
                    let bound = format!("{file} has {theirs}: allocate for this model");
                    return Err(Error::invalid("geometry of the cache", ours, bound));
                }
                Ok(rows)
            }
        }
    }

    /// The plan that it is, if it is one.
    pub(super) fn plan(&self) -> Option<&BudgetPlan> {
        match self {
            Self::Plan(_, plan) => Some(plan),
            _ => None,
        }
    }

    /// The fewest rows that any KV head gets for a prompt of `tokens`; `None` where that depends on the cut.
    pub(super) fn fewest(&self, tokens: usize) -> Result<Option<usize>> {
        Ok(match self {
            Self::Kept | Self::KeptAnd(_) => None,
            Self::Unbounded => Some(usize::MAX),
            Self::Alike(budget) => Some(budget.per_head(tokens) as usize),
            Self::Plan(_, plan) => plan.tokens_at(tokens)?.into_iter().flatten().min(),
        })
    }
}

impl fmt::Display for DecodeBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("kept"),
            Self::KeptAnd(more) => write!(f, "kept+{more}"),
            Self::Unbounded => f.write_str("none"),
            Self::Alike(budget) => budget.fmt(f),
            Self::Plan(file, _) => f.write_str(file),
        }
    }
}

impl FromStr for DecodeBudget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "kept" => Ok(Self::Kept),
            "none" => Ok(Self::Unbounded),
            file if file.ends_with(".json") => {
                let plan = BudgetPlan::read(Path::new(file))?;
                Ok(Self::Plan(file.to_owned(), Box::new(plan)))
            }
            more if more.starts_with("kept+") => {
                let rows = more["kept+".len()..].parse().map_err(|_| {
                    let bound = "expected rows beside what the cut left, such as kept+256";
                    Error::invalid("decode budget", format!("'{more}'"), bound)
                });
                rows.map(Self::KeptAnd)
            }
            number => {
                let numeric = number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
                let budget = number.parse::<Budget>();
                let budget = budget.and_then(|b| b.check().map(|()| b));
                budget.map(Self::Alike).map_err(|problem| {
                    if numeric {
                        return problem;
                    }
                    let bound = "expected rows of every KV head (128), a share of the prompt (12%), kept, kept+256, \
                                 none, or a plan's file (plan.json)";
                    Error::invalid("decode budget", format!("'{number}'"), bound)
                })
            }
        }
    }
}

impl TryFrom<Value> for DecodeBudget {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl From<DecodeBudget> for Value {
    fn from(budget: DecodeBudget) -> Self {
        match budget {
            DecodeBudget::Alike(Budget::TokensPerHead(rows)) => rows.into(),
            other => other.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_every_head() {
        let kept = vec![vec![vec![0, 1, 2], vec![5]], vec![vec![], vec![7, 8]]];
        let rows = |text: &str| {
            text.parse::<DecodeBudget>()
                .unwrap()
                .rows(200, &kept)
                .unwrap()
        };
        assert_eq!(rows("kept"), [[3, 1], [0, 2]]);
        assert_eq!(rows("kept+5"), [[8, 6], [5, 7]]);
        assert_eq!(rows("64"), [[64; 2]; 2]);
        assert_eq!(rows("12%"), [[24; 2]; 2]);
        assert_eq!(rows("none"), [[usize::MAX; 2]; 2]);
    }

    #[test]
    fn spellings_go_through_json_and_others_are_refused() {
        for text in ["kept", "kept+5", "none", "64", "12%"] {
            let budget: DecodeBudget = text.parse().unwrap();
            let json = serde_json::to_value(&budget).unwrap();
            assert_eq!(
                serde_json::from_value::<DecodeBudget>(json).unwrap(),
                budget
            );
        }
        let said = |text: &str| text.parse::<DecodeBudget>().unwrap_err().to_string();
        assert!(said("many").contains("kept"), "{}", said("many"));
        assert!(said("nowhere.json").contains("nowhere.json"));
        assert!(said("kept+many").contains("kept+256"));
        assert!("-3".parse::<DecodeBudget>().is_err());
    }
}
