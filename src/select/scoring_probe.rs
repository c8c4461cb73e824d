//! The probe that scores every layer during prefill, for several scorers at once.

use std::collections::BTreeMap;

use candle_core::{DType, Device};

use super::{LayerObservation, Needs, Scorer};
use crate::error::{Error, Result};
use crate::model::attention::{AttentionProbe, AttentionRun, AttentionView, RowSums, Watch};

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

/// Sums over rows of one layer, per query head: over the last so many rows each.
#[derive(Default)]
struct LayerSums(BTreeMap<usize, RowSums>);

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

    fn score(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, _, head_dim) = view.queries.dims3()?;
        let sums = std::mem::take(&mut self.layers[view.layer]).finish()?;
        let means: BTreeMap<usize, Vec<Vec<f64>>> = sums
            .iter()
            .map(|(rows, heads)| (*rows, divided(heads, *rows as f64)))
            .collect();
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
                window_mean: means
                    .get(&self.needs[i].window.min(view.prompt_tokens))
                    .map(Vec::as_slice),
                received: (sums.get(&view.prompt_tokens).map(Vec::as_slice))
                    .filter(|_| self.needs[i].all_rows),
                keys: keys.as_deref().filter(|_| self.needs[i].keys),
                continuation: None,
            };
            self.scores[i].push(scorer.score(&observation)?);
        }
        Ok(())
    }
}

impl AttentionProbe for ScoringProbe<'_> {
    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        if self.layers.len() <= run.layer {
            self.layers.push(LayerSums::new(&self.needs, run));
        }
        let sums = &self.layers[run.layer].0;
        watches.extend(sums.iter().map(|(rows, sums)| Watch {
            from: run.prompt_tokens - rows,
            reader: sums,
        }));
        Ok(())
    }

    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        match view.is_last() {
            true => self.score(view),
            false => {
                let sums = self.layers[view.layer].0.values_mut();
                sums.for_each(RowSums::join);
                Ok(())
            }
        }
    }
}

impl LayerSums {
    fn new(needs: &[Needs], run: &AttentionRun) -> Self {
        let (heads, tokens) = (run.query_heads, run.prompt_tokens);
        let windows = needs.iter().map(|n| n.window.min(tokens));
        let all = needs.iter().filter(|n| n.all_rows).map(|_| tokens);
        let rows = windows.chain(all).filter(|rows| *rows > 0);
        let sums = |rows| RowSums::new(heads, heads / run.kv_heads, tokens, rows);
        Self(rows.map(|rows| (rows, sums(rows))).collect())
    }

    fn finish(self) -> Result<BTreeMap<usize, Vec<Vec<f64>>>> {
        let sums = self.0.into_iter();
        sums.map(|(rows, sums)| Ok((rows, sums.finish()?)))
            .collect()
    }
}

fn divided(heads: &[Vec<f64>], by: f64) -> Vec<Vec<f64>> {
    let head = |head: &Vec<f64>| head.iter().map(|p| p / by).collect();
    heads.iter().map(head).collect()
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
