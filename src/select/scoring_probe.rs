//! The probe that scores every layer during prefill, for several scorers at once.

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use rayon::prelude::*;

use super::{LayerObservation, Needs, Scorer};
use crate::error::{Error, Result};
use crate::model::attention::{AttentionProbe, AttentionView, QUERY_BLOCK};

/// Scores of one layer, `[kv_head][token]`.
pub type LayerScores = Vec<Vec<f64>>;

/// Observes what its scorers need and keeps only their scores.
///
/// Shapes: after prefill [`ScoringProbe::finish`] gives `[scorer][layer][kv_head][token]`.
pub struct ScoringProbe<'a> {
    scorers: Vec<(&'a dyn Scorer, usize)>,
    needs: Vec<Needs>,
    layers: Vec<LayerSums>,
    scores: Vec<Vec<LayerScores>>,
}

/// Sums over rows of one layer, per query head.
#[derive(Default)]
struct LayerSums {
    /// Over the last so many rows.
    windows: BTreeMap<usize, Vec<Vec<f64>>>,
    /// Over all rows.
    received: Vec<Vec<f64>>,
}

impl<'a> ScoringProbe<'a> {
    /// A probe for scorers, each with the window of its selection.
    pub fn new(scorers: Vec<(&'a dyn Scorer, usize)>) -> Self {
        let needs = scorers
            .iter()
            .map(|(scorer, window)| scorer.needs(*window))
            .collect();
        let scores = scorers.iter().map(|_| Vec::new()).collect();
        Self {
            scorers,
            needs,
            layers: Vec::new(),
            scores,
        }
    }

    /// The scores, `[scorer][layer][kv_head][token]`.
    pub fn finish(self) -> Vec<Vec<LayerScores>> {
        self.scores
    }

    /// The first row that anybody wants to see.
    fn first_row(&self, tokens: usize) -> usize {
        match self.needs.iter().any(|n| n.all_rows) {
            true => 0,
            false => {
                tokens
                    - self
                        .needs
                        .iter()
                        .map(|n| n.window)
                        .max()
                        .unwrap_or(0)
                        .min(tokens)
            }
        }
    }

    fn score(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, _, head_dim) = view.queries.dims3()?;
        let mut sums = std::mem::take(&mut self.layers[view.layer]);
        for (window, heads) in &mut sums.windows {
            let rows = (*window).min(view.prompt_tokens) as f64;
            heads.iter_mut().flatten().for_each(|p| *p /= rows);
        }
        let keys = match self.needs.iter().any(|n| n.keys) {
            true => Some(keys_of(view)?),
            false => None,
        };
        for (i, (scorer, window)) in self.scorers.iter().enumerate() {
            let observation = LayerObservation {
                layer: view.layer,
                tokens: view.prompt_tokens,
                group: h_q / view.cache.heads.len(),
                kv_heads: view.cache.heads.len(),
                head_dim,
                window: *window,
                window_mean: sums.windows.get(&self.needs[i].window).map(Vec::as_slice),
                received: self.needs[i].all_rows.then_some(&*sums.received),
                keys: keys.as_deref().filter(|_| self.needs[i].keys),
                continuation: None,
            };
            self.scores[i].push(scorer.score(&observation)?);
        }
        Ok(())
    }
}

impl AttentionProbe for ScoringProbe<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, _, _) = view.queries.dims3()?;
        let tokens = view.prompt_tokens;
        if self.layers.len() <= view.layer {
            self.layers.push(LayerSums::new(&self.needs, h_q, tokens));
        }
        let mut start = view.rows.start.max(self.first_row(tokens));
        while start < view.rows.end {
            let end = view.rows.end.min(start + QUERY_BLOCK);
            let block = view.probabilities(start..end)?.to_device(&Device::Cpu)?;
            let flat = block.flatten_all()?.to_vec1::<f32>()?;
            self.layers[view.layer].add(&flat, start..end, tokens, view.rows.end);
            start = end;
        }
        match view.is_last() {
            true => self.score(view),
            false => Ok(()),
        }
    }
}

impl LayerSums {
    fn new(needs: &[Needs], h_q: usize, tokens: usize) -> Self {
        let zeros = || vec![vec![0.0; tokens]; h_q];
        let windows = needs.iter().map(|n| n.window).filter(|w| *w > 0);
        Self {
            windows: windows.map(|w| (w, zeros())).collect(),
            received: match needs.iter().any(|n| n.all_rows) {
                true => zeros(),
                false => Vec::new(),
            },
        }
    }

    /// Adds rows `(H_q, rows, seen)`.
    fn add(&mut self, flat: &[f32], rows: std::ops::Range<usize>, tokens: usize, seen: usize) {
        let sums = |heads: &mut Vec<Vec<f64>>, first: usize| {
            heads.par_iter_mut().enumerate().for_each(|(head, sum)| {
                for position in rows.clone().filter(|p| *p >= first) {
                    let line = (head * rows.len() + position - rows.start) * seen;
                    let line = &flat[line..][..position + 1];
                    sum.iter_mut()
                        .zip(line)
                        .for_each(|(s, &p)| *s += f64::from(p));
                }
            });
        };
        for (window, heads) in &mut self.windows {
            sums(heads, tokens - (*window).min(tokens));
        }
        if !self.received.is_empty() {
            sums(&mut self.received, 0);
        }
    }
}

/// Keys of every KV head in float32, `(T, D)` row-major.
fn keys_of(view: &AttentionView<'_>) -> Result<Vec<Vec<f32>>> {
    view.cache
        .heads
        .iter()
        .map(|head| {
            let keys = head.keys()?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
            Ok::<_, Error>(keys.flatten_all()?.to_vec1::<f32>()?)
        })
        .collect()
}
