//! The probe that watches the full cache's continuation look back at the prompt.

use candle_core::{DType, Tensor};

use super::{LayerObservation, LayerScores, Scorer, place_of_scores};
use crate::compute::device::add_rows_in_order;
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionView, QUERY_BLOCK};

/// Adds up, per layer and query head, what every prompt token receives from the rows after the prompt.
///
/// Shapes: sums `(H_q, T)` per layer, float64, where scores are made.
pub struct ContinuationProbe {
    prompt_tokens: usize,
    layers: Vec<Received>,
}

/// The sums of one layer.
struct Received {
    sums: Tensor,
    kv_heads: usize,
}

impl ContinuationProbe {
    /// A probe for the continuation of a prompt of `prompt_tokens`.
    pub fn new(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            layers: Vec::new(),
        }
    }

    /// Scores of every layer by a scorer that needs nothing but the continuation.
    ///
    /// Shapes: one per layer. Errors: the scorer's.
    pub fn score(&self, scorer: &dyn Scorer, window: usize) -> Result<Vec<LayerScores>> {
        let layers = self.layers.iter().enumerate();
        layers
            .map(|(layer, Received { sums, kv_heads })| {
                let group = sums.dim(0)? / kv_heads;
                scorer.score(&LayerObservation {
                    layer,
                    window,
                    continuation: Some(sums),
                    ..LayerObservation::of(self.prompt_tokens, group, *kv_heads, sums.device())
                })
            })
            .collect()
    }
}

impl Received {
    fn nothing_yet(view: &AttentionView<'_>, prompt_tokens: usize) -> Result<Self> {
        let place = place_of_scores(view.queries.device());
        let shape = (view.queries.dim(0)?, prompt_tokens);
        Ok(Self {
            sums: Tensor::zeros(shape, DType::F64, &place)?,
            kv_heads: view.cache.heads.len(),
        })
    }
}

impl AttentionProbe for ContinuationProbe {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        if self.layers.len() <= view.layer {
            let nothing = Received::nothing_yet(view, self.prompt_tokens)?;
            self.layers.push(nothing);
        }
        let sums = &self.layers[view.layer].sums;
        let mut start = view.rows.start.max(self.prompt_tokens);
        while start < view.rows.end {
            let end = view.rows.end.min(start + QUERY_BLOCK);
            let block = view.probabilities(start..end)?;
            let of_prompt = block.narrow(2, 0, self.prompt_tokens)?;
            add_rows_in_order(sums, &of_prompt.to_device(sums.device())?)?;
            start = end;
        }
        Ok(())
    }
}
