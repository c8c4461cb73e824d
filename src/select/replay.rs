//! The probe that watches the prompt being read again, chunk by chunk, behind the full cache.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::host_rows::{host_rows, l2_norms, projected_norms};
use super::{LayerObservation, LayerScores, ReplayNeeds, Scorer};
use crate::error::Result;
use crate::model::attention::{
    AttentionProbe, AttentionRun, AttentionView, GroupRows, RowReader, Watch,
};

/// The largest share of a query's attention that every prompt token gets while its chunk is read again.
///
/// A share is of what the query gives to the sinks, to the chunk, and to the repetition up to itself.
/// Shapes: after all passes `(H_kv, T)` per layer, float64, 0 for tokens that were not read again.
pub struct ReplayProbe {
    tokens: usize,
    needs: ReplayNeeds,
    chunk: Range<usize>,
    layers: Vec<Repeated>,
    /// L2 norms of the rows that a layer's attention is about to read, where they are asked for.
    inputs: Vec<f64>,
}

/// What one layer gave to the tokens of a prompt.
struct Repeated {
    tokens: usize,
    sinks: usize,
    chunk: Range<usize>,
    /// One over the norm of every row of the run at hand, and the first row; none where norms do not count.
    inputs: Option<(usize, Vec<f64>)>,
    /// Largest shares of this pass, `[kv_head]` of `(query heads apart, chunk)`; one row where heads need not be told apart.
    largest: Vec<Mutex<Vec<f64>>>,
    /// Those of all passes, `[kv_head][token]`.
    scores: Vec<Vec<f64>>,
    group: usize,
}

impl ReplayProbe {
    /// A probe for passes behind a prompt of `tokens`.
    pub fn new(tokens: usize, needs: ReplayNeeds) -> Self {
        Self {
            tokens,
            needs,
            chunk: 0..0,
            layers: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// Says which tokens the next pass reads again.
    pub fn begin(&mut self, chunk: Range<usize>) {
        for layer in &mut self.layers {
            layer.begin(chunk.clone(), self.needs);
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
                let (kv_heads, group) = (repeated.scores.len(), repeated.group);
                let all = repeated.scores.concat();
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
    fn observe_input(&mut self, _: usize, input: &Tensor) -> Result<()> {
        if self.needs.norms {
            let width = input.dim(1)?;
            self.inputs = l2_norms(&host_rows(input)?, width);
        }
        Ok(())
    }

    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        if self.layers.len() <= run.layer {
            let mut layer = Repeated {
                tokens: self.tokens,
                sinks: 0,
                chunk: 0..0,
                inputs: None,
                largest: Vec::new(),
                scores: vec![vec![0.0; self.tokens]; run.kv_heads],
                group: run.query_heads / run.kv_heads.max(1),
            };
            layer.begin(self.chunk.clone(), self.needs);
            self.layers.push(layer);
        }
        let layer = &mut self.layers[run.layer];
        if self.needs.norms {
            let inverted = self.inputs.iter().map(|norm| 1.0 / norm).collect();
            layer.inputs = Some((run.rows.start, inverted));
        }
        watches.push(Watch {
            from: self.tokens,
            reader: &self.layers[run.layer],
        });
        Ok(())
    }

    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        if !view.is_last() {
            return Ok(());
        }
        let norms = if self.needs.norms {
            let (start, length) = (self.chunk.start, self.chunk.len());
            let heads = view.cache.heads.iter();
            let values = heads.map(|head| Ok(head.values()?.narrow(0, start, length)?));
            let values: Vec<Tensor> = values.collect::<Result<_>>()?;
            projected_norms(view, &values, view.queries.dim(0)?, l2_norms)?
        } else {
            Vec::new()
        };
        self.layers[view.layer].end(&norms);
        Ok(())
    }
}

impl RowReader for Repeated {
    fn read(&self, rows: &GroupRows<'_>) {
        let length = self.chunk.len();
        let apart = self.inputs.is_some();
        let mut largest = vec![0.0; if apart { rows.group } else { 1 } * length];
        for position in rows.positions.clone() {
            for head in 0..rows.group {
                let own = if apart { head } else { 0 } * length;
                let row = rows.row(position, head);
                self.take(row, self.weight(position), &mut largest[own..][..length]);
            }
        }
        let mut all = self.largest[rows.kv_head]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (known, found) in all.iter_mut().zip(largest) {
            *known = found.max(*known);
        }
    }
}

impl Repeated {
    fn begin(&mut self, chunk: Range<usize>, needs: ReplayNeeds) {
        self.sinks = needs.sinks.min(chunk.start);
        let rows = if needs.norms { self.group } else { 1 };
        let nothing = || Mutex::new(vec![0.0; rows * chunk.len()]);
        self.largest = self.scores.iter().map(|_| nothing()).collect();
        self.chunk = chunk;
    }

    /// What a share of a query counts for.
    fn weight(&self, position: usize) -> f64 {
        let row = |(first, inputs): &(usize, Vec<f64>)| inputs.get(position - first).copied();
        self.inputs.as_ref().map_or(Some(1.0), row).unwrap_or(0.0)
    }

    /// Raises `largest` to the weighed shares of one row.
    fn take(&self, row: &[f32], weight: f64, largest: &mut [f64]) {
        let sum = |part: &[f32]| part.iter().map(|p| f64::from(*p)).sum::<f64>();
        let chunk = &row[self.chunk.clone()];
        // The query's own key is among the repetition: this is never 0.
        let seen = sum(&row[..self.sinks]) + sum(chunk) + sum(&row[self.tokens..]);
        let share = weight / seen;
        for (largest, p) in largest.iter_mut().zip(chunk) {
            *largest = (f64::from(*p) * share).max(*largest);
        }
    }

    /// Ends a pass: the largest of a group's heads, each times its `norms` `[query_head][token of the chunk]` where they count.
    fn end(&mut self, norms: &[Vec<f64>]) {
        let length = self.chunk.len();
        for (kv_head, largest) in self.largest.drain(..).enumerate() {
            let largest = largest.into_inner().unwrap_or_else(PoisonError::into_inner);
            let scores = &mut self.scores[kv_head][self.chunk.clone()];
            for (head, row) in largest.chunks(length.max(1)).enumerate() {
                let norms = norms.get(kv_head * self.group + head);
                for (token, (score, share)) in scores.iter_mut().zip(row).enumerate() {
                    let norm = norms.map_or(1.0, |norms| norms[token]);
                    *score = (share * norm).max(*score);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(norms: bool) -> Repeated {
        let needs = ReplayNeeds {
            chunk: 2,
            sinks: 1,
            norms,
        };
        let mut layer = Repeated {
            tokens: 5,
            sinks: 0,
            chunk: 0..0,
            inputs: norms.then(|| (5, vec![0.5, 0.25])),
            largest: Vec::new(),
            scores: vec![vec![0.0; 5]],
            group: 2,
        };
        layer.begin(2..4, needs);
        layer
    }

    /// The second row of a repetition, of two query heads.
    const ROWS: [f32; 14] = [
        0.1, 0.4, 0.2, 0.05, 0.05, 0.05, 0.15, //
        0.1, 0.4, 0.1, 0.15, 0.05, 0.05, 0.15,
    ];

    fn read(layer: &Repeated) {
        layer.read(&GroupRows {
            kv_head: 0,
            positions: 6..7,
            group: 2,
            values: &ROWS,
            strides: [14, 7],
            seen: &[7],
        });
    }

    #[test]
    fn shares_are_of_sinks_chunk_and_repetition() {
        let mut layer = layer(false);
        read(&layer);
        layer.end(&[]);
        // 0.1 + 0.25 + 0.2 = 0.55 are looked at by both heads.
        let want = [0.0, 0.0, 0.2 / 0.55, 0.15 / 0.55, 0.0];
        let found = layer.scores[0].iter().zip(want);
        assert!(
            found.clone().all(|(f, w)| (f - w).abs() < 1e-6),
            "{found:?}"
        );
    }

    #[test]
    fn norms_weigh_values_and_inputs() {
        let mut layer = layer(true);
        read(&layer);
        layer.end(&[vec![1.0, 8.0], vec![4.0, 1.0]]);
        // A quarter of each share, times the value's norm under each head: 0.2 · 1 and 0.1 · 4, 0.05 · 8 and 0.15 · 1.
        let want = [0.0, 0.0, 0.1 / 0.55, 0.1 / 0.55, 0.0];
        let found = layer.scores[0].iter().zip(want);
        assert!(
            found.clone().all(|(f, w)| (f - w).abs() < 1e-6),
            "{found:?}"
        );
    }
}
