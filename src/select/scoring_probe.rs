//! The probe that scores every layer during prefill, for several scorers at once.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{LayerObservation, LayerScores, Needs, Scorer, place_of_scores};
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionRun, AttentionView, RowSums, Watch};

/// Observes what its scorers need and keeps only their scores.
///
/// Shapes: after prefill [`ScoringProbe::finish`] gives scores `[scorer][layer]`, where they were made.
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

    /// The scores, `[scorer][layer]`.
    pub fn finish(self) -> Vec<Vec<LayerScores>> {
        self.scores
    }

    fn score(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (query_heads, tokens) = (view.queries.dim(0)?, view.prompt_tokens);
        let device = place_of_scores(view.queries.device());
        let sums = std::mem::take(&mut self.layers[view.layer]).finish()?;
        let windows = self.needs.iter().map(|n| n.window.min(tokens));
        let means: BTreeMap<usize, Tensor> = windows
            .filter_map(|rows| Some((rows, sums.get(&rows)?)))
            .map(|(rows, sums)| Ok((rows, divided(sums, rows)?)))
            .collect::<Result<_>>()?;
        let keys = if self.needs.iter().any(|n| n.keys) {
            Some(keys_of(view, &device)?)
        } else {
            None
        };
        for (i, (scorer, window)) in self.scorers.iter().enumerate() {
            let observation = LayerObservation {
                layer: view.layer,
                tokens,
                group: query_heads / view.cache.heads.len(),
                kv_heads: view.cache.heads.len(),
                window: *window,
                device: &device,
                window_mean: means.get(&self.needs[i].window.min(tokens)),
                received: sums.get(&tokens).filter(|_| self.needs[i].all_rows),
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
        if view.is_last() {
            self.score(view)
        } else {
            let sums = self.layers[view.layer].0.values_mut();
            sums.for_each(RowSums::join);
            Ok(())
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

    fn finish(self) -> Result<BTreeMap<usize, Tensor>> {
        let sums = self.0.into_iter();
        sums.map(|(rows, sums)| Ok((rows, sums.into_tensor()?)))
            .collect()
    }
}

/// The quotients themselves: candle divides a tensor by a number by multiplying with what is nearly its inverse.
fn divided(sums: &Tensor, by: usize) -> Result<Tensor> {
    let by = Tensor::new(by as f64, sums.device())?;
    Ok(sums.broadcast_div(&by)?)
}

/// Keys of every KV head, `(T, D)`: views of the cache, or copies where scores are made elsewhere.
fn keys_of(view: &AttentionView<'_>, place: &Device) -> Result<Vec<Tensor>> {
    let keys = view.cache.heads.iter().map(|head| {
        let keys = head.keys()?;
        if keys.device().same_device(place) {
            Ok(keys)
        } else {
            // Of its own: with a view the whole buffer of the layer would be brought over.
            Ok(keys.force_contiguous()?.to_device(place)?)
        }
    });
    keys.collect()
}
