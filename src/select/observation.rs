//! What a scorer is shown of one layer once the prompt is prefilled.

use candle_core::{Device, Tensor};

use super::query_statistics::{QueryNeeds, QueryStatistics};
use super::replay_needs::ReplayNeeds;
use super::window_rows::WindowRows;
use crate::error::{Error, Result};
use crate::model::TextRotation;

/// What must be observed during prefill for a scorer to work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Mean attention of the last so many rows; 0 for none.
    pub window: usize,
    /// The last so many rows by themselves; 0 for none.
    pub window_rows: usize,
    /// Attention that every key received from all rows: one more pass over the scores of a layer.
    pub all_rows: bool,
    /// The keys themselves.
    pub keys: bool,
    /// The values themselves.
    pub values: bool,
    /// L1 norms of what W_o makes of the values: as many products as attention's output projection takes.
    pub projected_norms: bool,
    /// Statistics of the prompt's queries before they are rotated.
    pub queries: Option<QueryNeeds>,
    /// Attention that the prompt receives from what the full cache says after it: only an evaluation
    /// has it, nothing that is deployed.
    pub continuation: bool,
    /// The prompt read again behind the full cache, in passes of its own.
    pub replay: Option<ReplayNeeds>,
}

impl Needs {
    /// Whether it looks from rows of a window: those can be the prompt's last, or stand behind it.
    pub fn looks_from_window(&self) -> bool {
        self.window > 0 || self.window_rows > 0
    }
}

/// One layer after prefill.
///
/// Differs: made by [`LayerObservation::of`], with nothing observed, and filled field by field.
/// Shapes: attention `(H_q, T)`, float64; keys and values `(T, D)` per KV head, of the cache's type; all tensors on
/// `device`.
#[derive(Clone)]
pub struct LayerObservation<'a> {
    /// Layer, counted from 0.
    pub layer: usize,
    /// T.
    pub tokens: usize,
    /// G, query heads per KV head.
    pub group: usize,
    /// H_kv.
    pub kv_heads: usize,
    /// Last tokens that the selection keeps anyway.
    pub window: usize,
    /// The first token that later ones see: 0 unless the layer has a sliding window that passed it.
    pub first_in_sight: usize,
    /// Where scores are made; see [`super::place_of_scores`].
    pub device: &'a Device,
    /// How the layer turns queries and keys by their positions.
    pub rotation: TextRotation<'a>,
    /// Mean of the last rows, `(H_q, T)`, if it was asked for.
    pub window_mean: Option<&'a Tensor>,
    /// The last rows, if they were asked for.
    pub window_rows: Option<WindowRows<'a>>,
    /// Sum over all rows, `(H_q, T)`, if it was asked for.
    pub received: Option<&'a Tensor>,
    /// Keys after RoPE, one tensor per KV head, views of the cache where that lies on `device`, if they were asked for.
    pub keys: Option<&'a [Tensor]>,
    /// Values, as the keys, if they were asked for.
    pub values: Option<&'a [Tensor]>,
    /// L1 norms of W_o's columns of a query head times a value, `[query_head][token]`, if they were asked for.
    pub projected_norms: Option<&'a [Vec<f64>]>,
    /// Statistics of the queries before RoPE, if they were asked for.
    pub queries: Option<&'a QueryStatistics>,
    /// Sum over the rows of the full cache's continuation, `(H_q, T)`, if there is one.
    pub continuation: Option<&'a Tensor>,
    /// The largest share of any query's attention while the prompt was read again, `(H_kv, T)`, if it was.
    pub replayed: Option<&'a Tensor>,
}

impl<'a> LayerObservation<'a> {
    /// Of the first layer, in which nothing is turned or hidden, no window stays, and nothing was observed.
    pub fn of(tokens: usize, group: usize, kv_heads: usize, device: &'a Device) -> Self {
        Self {
            layer: 0,
            tokens,
            group,
            kv_heads,
            window: 0,
            first_in_sight: 0,
            device,
            rotation: TextRotation::none(),
            window_mean: None,
            window_rows: None,
            received: None,
            keys: None,
            values: None,
            projected_norms: None,
            queries: None,
            continuation: None,
            replayed: None,
        }
    }

    /// Tokens before the window that stays anyway.
    pub fn prefix(&self) -> usize {
        self.tokens.saturating_sub(self.window)
    }

    /// The mean of the window's rows.
    ///
    /// Errors: [`Error::Invalid`] for a scorer that did not say that it needs them.
    pub fn window_mean(&self) -> Result<&'a Tensor> {
        observed(self.window_mean, "mean of the window's rows")
    }

    /// The rows of the window by themselves.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn window_rows(&self) -> Result<WindowRows<'a>> {
        observed(self.window_rows, "rows of the window")
    }

    /// The attention that keys received from all rows.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn received(&self) -> Result<&'a Tensor> {
        observed(self.received, "attention of all rows")
    }

    /// The attention that keys received from the full cache's continuation.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn continuation(&self) -> Result<&'a Tensor> {
        let what = "attention of the full cache's continuation";
        observed(self.continuation, what)
    }

    /// The largest share of any query's attention while the prompt was read again.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn replayed(&self) -> Result<&'a Tensor> {
        observed(self.replayed, "the prompt read again")
    }

    /// The keys of every KV head.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn keys(&self) -> Result<&'a [Tensor]> {
        observed(self.keys, "keys")
    }

    /// The values of every KV head.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn values(&self) -> Result<&'a [Tensor]> {
        observed(self.values, "values")
    }

    /// L1 norms of what W_o makes of the values, in the mean over the query heads that share them.
    ///
    /// Shapes: `[kv_head][token]`. Errors: as [`Self::window_mean`].
    pub fn group_norms(&self) -> Result<Vec<Vec<f64>>> {
        let norms = observed(self.projected_norms, "norms of projected values")?;
        let mean = |heads: &[Vec<f64>]| -> Vec<f64> {
            let sum = |token: usize| heads.iter().map(|norms| norms[token]).sum::<f64>();
            (0..self.tokens)
                .map(|token| sum(token) / heads.len() as f64)
                .collect()
        };
        Ok(norms.chunks(self.group.max(1)).map(mean).collect())
    }

    /// Statistics of the prompt's queries.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn queries(&self) -> Result<&'a QueryStatistics> {
        observed(self.queries, "statistics of queries")
    }
}

fn observed<T>(found: Option<T>, what: &str) -> Result<T> {
    found.ok_or_else(|| {
        Error::invalid(
            "scorer's observation",
            what,
            "it was not observed during prefill; the scorer must name it in its needs",
        )
    })
}
