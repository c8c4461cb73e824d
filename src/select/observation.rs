//! What a scorer is shown of one layer once the prompt is prefilled.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};

/// What must be observed during prefill for a scorer to work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Mean attention of the last so many rows; 0 for none.
    pub window: usize,
    /// Attention that every key received from all rows: one more pass over the scores of a layer.
    pub all_rows: bool,
    /// The keys themselves.
    pub keys: bool,
    /// Attention that the prompt receives from what the full cache says after it: only an evaluation
    /// has it, nothing that is deployed.
    pub continuation: bool,
}

/// One layer after prefill.
///
/// Shapes: attention `(H_q, T)`, float64; keys `(T, D)` per KV head, of the cache's type; all of it on `device`.
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
    /// Where scores are made; see [`super::place_of_scores`].
    pub device: &'a Device,
    /// Mean of the last rows, `(H_q, T)`, if it was asked for.
    pub window_mean: Option<&'a Tensor>,
    /// Sum over all rows, `(H_q, T)`, if it was asked for.
    pub received: Option<&'a Tensor>,
    /// Keys after RoPE, one tensor per KV head, views of the cache where that lies on `device`, if they were asked for.
    pub keys: Option<&'a [Tensor]>,
    /// Sum over the rows of the full cache's continuation, `(H_q, T)`, if there is one.
    pub continuation: Option<&'a Tensor>,
}

impl LayerObservation<'_> {
    /// The mean of the window's rows.
    ///
    /// Errors: [`Error::Invalid`] for a scorer that did not say that it needs them.
    pub fn window_mean(&self) -> Result<&Tensor> {
        self.window_mean
            .ok_or_else(|| unobserved("rows of the window"))
    }

    /// The attention that keys received from all rows.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn received(&self) -> Result<&Tensor> {
        self.received
            .ok_or_else(|| unobserved("attention of all rows"))
    }

    /// The attention that keys received from the full cache's continuation.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn continuation(&self) -> Result<&Tensor> {
        self.continuation
            .ok_or_else(|| unobserved("attention of the full cache's continuation"))
    }

    /// The keys of every KV head.
    ///
    /// Errors: as [`Self::window_mean`].
    pub fn keys(&self) -> Result<&[Tensor]> {
        self.keys.ok_or_else(|| unobserved("keys"))
    }
}

fn unobserved(what: &str) -> Error {
    Error::invalid(
        "scorer's observation",
        what,
        "it was not observed during prefill; the scorer must name it in its needs",
    )
}
