//! The measures of one head, one layer, and the small formulas behind them.

use super::output_budget::OutputCurves;
use super::quantisation::QuantisedOutput;
use super::query::{Query, Vector};

/// Keys at the start of a prompt that count as sinks.
pub const SINKS: usize = 4;

/// MBA of one attention head, or of the mean over a group of heads.
///
/// Units: keys; one entry per threshold, none where a query was not asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinimumBudgets {
    /// Of the last prompt token's row.
    pub last: Vec<u32>,
    /// Of the mean of the window's rows.
    pub pooled: Vec<u32>,
    /// Mean over the window's rows of each row's own.
    pub rows: Vec<f64>,
}

impl MinimumBudgets {
    /// Of a query, at the threshold of a place; `None` where it was not asked for.
    pub fn of(&self, query: Query, place: usize) -> Option<f64> {
        match query {
            Query::Last => self.last.get(place).map(|&b| f64::from(b)),
            Query::Pooled => self.pooled.get(place).map(|&b| f64::from(b)),
            Query::Rows => self.rows.get(place).copied(),
        }
    }
}

/// Everything measured of one query head.
///
/// Curves are empty where they were not asked for, and single numbers NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadMeasures {
    /// MBA at every threshold.
    pub budgets: MinimumBudgets,
    /// Entropy of the pooled vector, in nats.
    pub entropy: f64,
    /// Share of the pooled vector on the first [`SINKS`] keys.
    pub sink_mass: f64,
    /// Share of the pooled vector on the keys of the window itself.
    pub window_mass: f64,
    /// Retained mass of the `last` row at every budget of the grid.
    pub mass_last: Vec<f64>,
    /// Retained mass of the pooled vector at every budget of the grid.
    pub mass_pooled: Vec<f64>,
}

impl HeadMeasures {
    pub(super) fn mass(&self, vector: Vector) -> &[f64] {
        match vector {
            Vector::Last => &self.mass_last,
            Vector::Pooled => &self.mass_pooled,
        }
    }
}

/// Everything measured of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMeasures {
    /// One per query head.
    pub heads: Vec<HeadMeasures>,
    /// One per KV head: attention averaged over its query heads first.
    pub kv_heads: Vec<MinimumBudgets>,
    /// Output curves of the `last` row.
    pub output_last: OutputCurves,
    /// Output curves of the pooled vector.
    pub output_pooled: OutputCurves,
    /// What holding keys and values in other types does to the pooled output, in the order in which they were asked for.
    pub quantised: Vec<QuantisedOutput>,
    /// The keys that a query sees; `None` is all before it.
    pub window: Option<usize>,
    /// Cosine between the residual stream before attention and after it, in the mean over the prompt's tokens, where it was
    /// asked for.
    pub residual_cosine: Option<f64>,
}

impl LayerMeasures {
    /// MBA of every query head, at the threshold of a place; `None` where it was not asked for.
    pub(super) fn budgets(&self, query: Query, place: usize) -> Option<Vec<f64>> {
        let heads = self.heads.iter();
        heads.map(|head| head.budgets.of(query, place)).collect()
    }

    pub(super) fn output(&self, vector: Vector) -> &OutputCurves {
        match vector {
            Vector::Last => &self.output_last,
            Vector::Pooled => &self.output_pooled,
        }
    }
}

/// Mean over a layer's heads.
pub(super) fn mean(budgets: &[f64]) -> f64 {
    budgets.iter().sum::<f64>() / budgets.len().max(1) as f64
}

/// Entropy −Σ p ln p of a vector divided by its sum.
///
/// Units: nats, 0 to ln T.
pub fn entropy(attention: &[f64]) -> f64 {
    let total: f64 = attention.iter().sum();
    let sum: f64 = attention
        .iter()
        .filter(|a| **a > 0.0)
        .map(|a| a / total * (a / total).ln())
        .sum();
    (-sum).max(0.0)
}

/// Share of a vector's sum on the keys of `range`.
pub fn share(attention: &[f64], range: std::ops::Range<usize>) -> f64 {
    attention[range].iter().sum::<f64>() / attention.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_a_uniform_vector_is_ln_t_and_of_one_hot_zero() {
        assert!((entropy(&[0.25; 4]) - 4f64.ln()).abs() < 1e-15);
        assert!((entropy(&[3.0; 7]) - 7f64.ln()).abs() < 1e-14);
        assert_eq!(entropy(&[0.0, 1.0, 0.0]), 0.0);
        assert_eq!(entropy(&[1.0]), 0.0);
    }

    #[test]
    fn shares_are_of_the_vectors_own_sum() {
        assert_eq!(share(&[1.0, 1.0, 2.0, 4.0], 0..2), 0.25);
        assert_eq!(share(&[2.0], 0..1), 1.0);
    }
}
