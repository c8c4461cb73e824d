//! What a probe sees of one layer's attention: a view that computes rows only when asked.

use std::ops::Range;

use candle_core::Tensor;

use super::watch::Watch;
use crate::compute::linear::Matrix;
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;
use crate::model::rotation::TextRotation;

/// Read-only view of one layer's attention over a run of consecutive prompt tokens.
///
/// A prompt may be prefilled in several runs; a probe then sees every layer once per run, in layer
/// order. Row i only ever needs the keys 0..=i, which the cache holds when its run is observed.
/// Shapes: `queries` `(H_q, rows, D)` after RoPE; the cache holds `rows.end` tokens per KV head.
pub struct AttentionView<'a> {
    /// Layer, counted from 0.
    pub layer: usize,
    /// Positions of the queries in this run.
    pub rows: Range<usize>,
    /// T, the length of the whole prompt.
    pub prompt_tokens: usize,
    /// Queries after RoPE, `(H_q, rows, D)`.
    pub queries: &'a Tensor,
    /// Keys and values of all tokens up to the end of this run.
    pub cache: &'a LayerCache,
    /// W_o, perhaps packed; see [`AttentionView::output_projection`].
    pub(in crate::model) projection: &'a Matrix,
    /// How queries and keys were turned by their positions.
    pub rotation: TextRotation<'a>,
    /// Whether rows are computed as devices other than the CPU do it.
    pub(in crate::model) as_on_device: bool,
}

#[cfg(test)]
impl<'a> AttentionView<'a> {
    /// What is seen of a step of one token, `(H_q, 1, D)`, in a cache of one layer.
    pub(crate) fn of_step(
        queries: &'a Tensor,
        cache: &'a LayerCache,
        position: usize,
        projection: &'a Matrix,
    ) -> Self {
        Self {
            layer: 0,
            rows: position..position + 1,
            prompt_tokens: position + 1,
            queries,
            cache,
            projection,
            rotation: TextRotation::none(),
            as_on_device: false,
        }
    }
}

impl AttentionView<'_> {
    /// Whether this is the run that ends the prompt.
    pub fn is_last(&self) -> bool {
        self.rows.end == self.prompt_tokens
    }

    /// Attention probabilities of the queries at `positions`, computed now.
    ///
    /// Shapes: `(H_q, positions, S)` with S = `rows.end`, float32; rows sum to 1.
    /// Errors: [`Error::Invalid`] for positions outside this run.
    pub fn probabilities(&self, positions: Range<usize>) -> Result<Tensor> {
        if positions.start < self.rows.start || positions.end > self.rows.end {
            return Err(Error::invalid(
                "range of query rows",
                format!("{positions:?}"),
                format!("this run holds the rows {:?}", self.rows),
            ));
        }
        let queries = self
            .queries
            .narrow(1, positions.start - self.rows.start, positions.len())?;
        self.probabilities_of(&queries.contiguous()?, positions.start)
    }

    /// Attention probabilities of queries of this prompt, of this run or of one before it, that a probe kept.
    ///
    /// Shapes: `(H_q, n, D)`, contiguous, at positions `first..first + n` -> `(H_q, n, S)`, as
    /// [`AttentionView::probabilities`].
    /// Errors: [`Error::Candle`].
    pub fn probabilities_of(&self, queries: &Tensor, first: usize) -> Result<Tensor> {
        let probabilities = if self.as_on_device {
            super::blocks::probabilities
        } else {
            super::probabilities
        };
        probabilities(queries, self.cache, first)
    }

    /// Attention probabilities of this run's queries, head by head, whatever the heads' lengths.
    ///
    /// Shapes: `[kv_head]` of `(G, rows, S)` with that head's own S, one number after another.
    /// Errors: [`Error::Unsupported`] on devices other than the CPU.
    pub fn rows_of_heads(&self) -> Result<Vec<Vec<f32>>> {
        super::rows_of_heads(self.queries, self.cache, self.rows.start)
    }

    /// W_o, the matrix that maps the concatenated heads to the residual stream, dequantised now.
    ///
    /// Differs: nothing is kept; a probe that needs it more than once should hold on to it.
    /// Shapes: `(hidden, H_q * D)`, of the activations' element type and on the model's device.
    /// Errors: [`Error::Candle`].
    pub fn output_projection(&self) -> Result<Tensor> {
        self.projection.dense()
    }
}

/// What is known of a layer's attention over a run before it is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionRun {
    /// Layer, counted from 0.
    pub layer: usize,
    /// Positions of the queries.
    pub rows: Range<usize>,
    /// T, the length of the whole prompt.
    pub prompt_tokens: usize,
    /// H_q.
    pub query_heads: usize,
    /// H_kv.
    pub kv_heads: usize,
}

/// Sees every layer's attention during prefill and can never change it.
pub trait AttentionProbe {
    /// Called once per layer and run, before its attention: adds those who read its rows.
    ///
    /// Errors: as [`AttentionProbe::observe`].
    fn watch<'a>(&'a mut self, _: &AttentionRun, _: &mut Vec<Watch<'a>>) -> Result<()> {
        Ok(())
    }

    /// Called once per layer and run, in layer order, after its rows were read.
    ///
    /// Errors: any error stops the prefill and is returned from it.
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()>;

    /// Called once per layer and run, before [`AttentionProbe::watch`]: what queries, keys and values are made of.
    ///
    /// Shapes: `(rows, hidden)`, normed, of the activations' type. Errors: as [`AttentionProbe::observe`].
    fn observe_input(&mut self, _layer: usize, _input: &Tensor) -> Result<()> {
        Ok(())
    }

    /// Called once per layer and run, after its attention: the residual stream before and after.
    ///
    /// Shapes: `(rows, hidden)` both, of the activations' type. Errors: as [`AttentionProbe::observe`].
    fn observe_residual(&mut self, _layer: usize, _before: &Tensor, _after: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// The probe that looks away.
pub struct NoProbe;

impl AttentionProbe for NoProbe {
    fn observe(&mut self, _: &AttentionView<'_>) -> Result<()> {
        Ok(())
    }
}

/// Two probes on one prefill.
pub struct Tee<'a>(
    pub &'a mut dyn AttentionProbe,
    pub &'a mut dyn AttentionProbe,
);

impl AttentionProbe for Tee<'_> {
    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        self.0.watch(run, watches)?;
        self.1.watch(run, watches)
    }

    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        self.0.observe(view)?;
        self.1.observe(view)
    }

    fn observe_input(&mut self, layer: usize, input: &Tensor) -> Result<()> {
        self.0.observe_input(layer, input)?;
        self.1.observe_input(layer, input)
    }

    fn observe_residual(&mut self, layer: usize, before: &Tensor, after: &Tensor) -> Result<()> {
        self.0.observe_residual(layer, before, after)?;
        self.1.observe_residual(layer, before, after)
    }
}
