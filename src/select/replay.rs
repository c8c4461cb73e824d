//! The probe that watches the prompt being read again, chunk by chunk, behind the full cache.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::{LayerObservation, LayerScores, Scorer};
use crate::error::Result;
use crate::model::attention::{
    AttentionProbe, AttentionRun, AttentionView, GroupRows, RowReader, Watch,
};

/// How a prompt is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayNeeds {
    /// Tokens of the prompt that are read again in one pass.
    pub chunk: usize,
    /// First tokens that share in the attention of every pass.
    pub sinks: usize,
}

impl ReplayNeeds {
    /// The chunks of a prompt of `tokens` whose first `prefix` are not read again.
    pub fn chunks(&self, prefix: usize, tokens: usize) -> Vec<Range<usize>> {
        let starts = (prefix..tokens).step_by(self.chunk.max(1));
        starts
            .map(|start| start..tokens.min(start + self.chunk))
            .collect()
    }
}

/// The largest share of a query's attention that every prompt token gets while its chunk is read again.
///
/// A share is of what the query gives to the sinks, to the chunk, and to the repetition up to itself.
/// Shapes: after all passes `(H_kv, T)` per layer, float64, 0 for tokens that were not read again.
pub struct ReplayProbe {
    tokens: usize,
    sinks: usize,
    chunk: Range<usize>,
    layers: Vec<Repeated>,
}

/// What one layer gave to the tokens of a prompt.
struct Repeated {
    tokens: usize,
    sinks: usize,
    chunk: Range<usize>,
    group: usize,
    /// `[kv_head][token]`; every head has its lock, as every block of rows has its head.
    largest: Vec<Mutex<Vec<f64>>>,
}

impl ReplayProbe {
    /// A probe for passes behind a prompt of `tokens`.
    pub fn new(tokens: usize, needs: ReplayNeeds) -> Self {
        Self {
            tokens,
            sinks: needs.sinks,
            chunk: 0..0,
            layers: Vec::new(),
        }
    }

    /// Says which tokens the next pass reads again.
    pub fn begin(&mut self, chunk: Range<usize>) {
        for layer in &mut self.layers {
            layer.sinks = self.sinks.min(chunk.start);
            layer.chunk = chunk.clone();
        }
        self.chunk = chunk;
    }

    /// Scores of every layer by a scorer that needs nothing but the passes.
    ///
    /// Shapes: one per layer. Errors: the scorer's.
    pub fn score(self, scorer: &dyn Scorer, window: usize) -> Result<Vec<LayerScores>> {
        let layers = self.layers.into_iter().enumerate();
        layers
            .map(|(layer, repeated)| {
                let (kv_heads, group) = (repeated.largest.len(), repeated.group);
                let heads = repeated.largest.into_iter();
                let heads = heads.map(|h| h.into_inner().unwrap_or_else(PoisonError::into_inner));
                let all: Vec<f64> = heads.flatten().collect();
                let all = Tensor::from_vec(all, (kv_heads, self.tokens), &Device::Cpu)?;
                scorer.score(&LayerObservation {
                    layer,
                    window,
                    replayed: Some(&all),
                    ..LayerObservation::of(self.tokens, group, kv_heads, &Device::Cpu)
                })
            })
            .collect()
    }
}

impl AttentionProbe for ReplayProbe {
    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        if self.layers.len() <= run.layer {
            let nothing = || Mutex::new(vec![0.0; self.tokens]);
            self.layers.push(Repeated {
                tokens: self.tokens,
                sinks: self.sinks.min(self.chunk.start),
                chunk: self.chunk.clone(),
                group: run.query_heads / run.kv_heads.max(1),
                largest: (0..run.kv_heads).map(|_| nothing()).collect(),
            });
        }
        watches.push(Watch {
            from: self.tokens,
            reader: &self.layers[run.layer],
        });
        Ok(())
    }

    fn observe(&mut self, _: &AttentionView<'_>) -> Result<()> {
        Ok(())
    }
}

impl RowReader for Repeated {
    fn read(&self, rows: &GroupRows<'_>) {
        let mut largest = vec![0.0; self.chunk.len()];
        for position in rows.positions.clone() {
            for head in 0..rows.group {
                self.take(rows.row(position, head), &mut largest);
            }
        }
        let mut all = self.largest[rows.kv_head]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let own = &mut all[self.chunk.clone()];
        for (known, found) in own.iter_mut().zip(largest) {
            *known = found.max(*known);
        }
    }
}

impl Repeated {
    /// Raises `largest` to the shares of one row.
    fn take(&self, row: &[f32], largest: &mut [f64]) {
        let sum = |part: &[f32]| part.iter().map(|p| f64::from(*p)).sum::<f64>();
        let chunk = &row[self.chunk.clone()];
        let seen = sum(&row[..self.sinks]) + sum(chunk) + sum(&row[self.tokens..]);
        // Where a window hides everything but the query's own key, its share is all there is; never 0.
        let share = 1.0 / seen;
        for (largest, p) in largest.iter_mut().zip(chunk) {
            *largest = (f64::from(*p) * share).max(*largest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_begin_behind_the_prefix() {
        let needs = ReplayNeeds { chunk: 4, sinks: 2 };
        assert_eq!(needs.chunks(3, 12), [3..7, 7..11, 11..12]);
        assert_eq!(needs.chunks(3, 8), [3..7, 7..8]);
        assert!(needs.chunks(5, 5).is_empty());
    }

    #[test]
    fn shares_are_of_sinks_chunk_and_repetition() {
        // A prompt of 5 tokens, of which 2..4 are read again; the query is the second of the repetition.
        let layer = Repeated {
            tokens: 5,
            sinks: 1,
            chunk: 2..4,
            group: 1,
            largest: vec![Mutex::new(vec![0.0; 5])],
        };
        let mut largest = vec![0.0, 0.5];
        layer.take(&[0.1, 0.4, 0.2, 0.05, 0.05, 0.05, 0.1], &mut largest);
        // 0.1 + 0.25 + 0.15 = 0.5 are looked at.
        assert!((largest[0] - 0.4).abs() < 1e-6);
        assert_eq!(largest[1], 0.5);
    }
}
