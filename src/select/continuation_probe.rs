//! The probe that watches the full cache's continuation look back at the prompt.

use candle_core::Device;

use super::{LayerObservation, LayerScores, Scorer};
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionView, QUERY_BLOCK};

/// Adds up, per layer and query head, what every prompt token receives from the rows after the prompt.
///
/// Shapes: sums `[layer][query head][prompt token]`.
pub struct ContinuationProbe {
    prompt_tokens: usize,
    layers: Vec<Vec<Vec<f64>>>,
    geometry: Vec<(usize, usize)>,
}

impl ContinuationProbe {
    /// A probe for the continuation of a prompt of `prompt_tokens`.
    pub fn new(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            layers: Vec::new(),
            geometry: Vec::new(),
        }
    }

    /// Scores of every layer by a scorer that needs nothing but the continuation.
    ///
    /// Shapes: `[layer][kv_head][token]`. Errors: the scorer's.
    pub fn score(&self, scorer: &dyn Scorer, window: usize) -> Result<Vec<LayerScores>> {
        let layers = self.layers.iter().zip(&self.geometry).enumerate();
        layers
            .map(|(layer, (received, &(kv_heads, head_dim)))| {
                scorer.score(&LayerObservation {
                    layer,
                    tokens: self.prompt_tokens,
                    group: received.len() / kv_heads.max(1),
                    kv_heads,
                    head_dim,
                    window,
                    window_mean: None,
                    received: None,
                    keys: None,
                    continuation: Some(received),
                })
            })
            .collect()
    }
}

impl AttentionProbe for ContinuationProbe {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, _, head_dim) = view.queries.dims3()?;
        if self.layers.len() <= view.layer {
            self.layers.push(vec![vec![0.0; self.prompt_tokens]; h_q]);
            self.geometry.push((view.cache.heads.len(), head_dim));
        }
        let mut start = view.rows.start.max(self.prompt_tokens);
        while start < view.rows.end {
            let end = view.rows.end.min(start + QUERY_BLOCK);
            let block = view.probabilities(start..end)?.to_device(&Device::Cpu)?;
            let (rows, seen) = (end - start, block.dim(2)?);
            let flat = block.flatten_all()?.to_vec1::<f32>()?;
            for (head, sums) in self.layers[view.layer].iter_mut().enumerate() {
                for line in flat[head * rows * seen..][..rows * seen].chunks(seen) {
                    for (sum, &p) in sums.iter_mut().zip(line) {
                        *sum += f64::from(p);
                    }
                }
            }
            start = end;
        }
        Ok(())
    }
}
