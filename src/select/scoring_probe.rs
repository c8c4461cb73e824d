//! The probe that scores every layer during prefill, for several scorers at once.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::host_rows::{l1_norms, projected_norms};
use super::query_statistics::QuerySums;
use super::window_rows::WindowQueries;
use super::{
    LayerObservation, LayerScores, Needs, QueryNeeds, QueryStatistics, Scorer, WindowRows,
    place_of_scores,
};
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionRun, AttentionView, RowSums, Watch};
use crate::model::cache::HeadCache;

/// Observes what its scorers need and keeps only their scores.
///
/// Differs: of a layer nothing is held that none of them asked for. Between the runs of a prompt sums over rows, the
/// window's queries and sums over queries are, for all layers; rows, values and norms are computed for one layer at a
/// time, once all of its keys are there.
/// Shapes: after prefill [`ScoringProbe::finish`] gives scores `[scorer][layer]`, where they were made.
pub struct ScoringProbe<'a> {
    scorers: Vec<(&'a dyn Scorer, usize)>,
    needs: Vec<Needs>,
    /// T, where the rows that are looked from stand behind the tokens that are scored.
    behind: Option<usize>,
    layers: Vec<Watched>,
    scores: Vec<Vec<LayerScores>>,
}

/// What is gathered of one layer while its rows come.
#[derive(Default)]
struct Watched {
    /// Sums over the last so many rows each.
    sums: BTreeMap<usize, RowSums>,
    /// Queries of the longest window whose rows are asked for.
    window: WindowQueries,
    window_rows: usize,
    /// Sums over queries, by what was asked for.
    queries: Vec<(QueryNeeds, QuerySums)>,
}

/// What was observed of one layer, on behalf of all scorers.
struct Observed {
    sums: BTreeMap<usize, Tensor>,
    means: BTreeMap<usize, Tensor>,
    rows: Vec<f32>,
    window_rows: usize,
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    norms: Vec<Vec<f64>>,
    queries: Vec<(QueryNeeds, QueryStatistics)>,
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
            behind: None,
            layers: Vec::new(),
            scores,
        }
    }

    /// A probe that scores a prompt of `tokens` by what is fed behind it, while it is fed: windows are its last rows, and
    /// what they give to each other counts for nothing.
    pub fn behind(tokens: usize, scorers: Vec<(&'a dyn Scorer, usize)>) -> Self {
        Self {
            behind: Some(tokens),
            ..Self::new(scorers)
        }
    }

    /// The scores, `[scorer][layer]`.
    pub fn finish(self) -> Vec<Vec<LayerScores>> {
        self.scores
    }

    fn score(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let device = place_of_scores(view.queries.device());
        let watched = std::mem::take(&mut self.layers[view.layer]);
        let tokens = self.behind.unwrap_or(view.prompt_tokens);
        let observed = Observed::of(&self.needs, watched, (view, tokens), &device)?;
        for (i, (scorer, window)) in self.scorers.iter().enumerate() {
            let needs = &self.needs[i];
            let observation = observed.shown_to(needs, *window, (view, tokens), &device)?;
            self.scores[i].push(scorer.score(&observation)?);
        }
        Ok(())
    }
}

impl AttentionProbe for ScoringProbe<'_> {
    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        if self.layers.len() <= run.layer {
            self.layers
                .push(Watched::new(&self.needs, run, self.behind));
        }
        let sums = &self.layers[run.layer].sums;
        watches.extend(sums.iter().map(|(rows, sums)| Watch {
            from: run.prompt_tokens - rows,
            reader: sums,
        }));
        Ok(())
    }

    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        self.layers[view.layer].add(&self.needs, view)?;
        if view.is_last() {
            return self.score(view);
        }
        let sums = self.layers[view.layer].sums.values_mut();
        sums.for_each(RowSums::join);
        Ok(())
    }
}

impl Watched {
    fn new(needs: &[Needs], run: &AttentionRun, behind: Option<usize>) -> Self {
        let (heads, tokens) = (run.query_heads, behind.unwrap_or(run.prompt_tokens));
        let most = rows_to_look_from(run.prompt_tokens, behind);
        let windows = needs.iter().map(|n| n.window.min(most));
        let all = needs.iter().filter(|n| n.all_rows).map(|_| tokens);
        let rows = windows.chain(all).filter(|rows| *rows > 0);
        let sums = |rows| RowSums::new(heads, heads / run.kv_heads, tokens, rows);
        Self {
            sums: rows.map(|rows| (rows, sums(rows))).collect(),
            window_rows: (needs.iter().map(|n| n.window_rows.min(most)))
                .max()
                .unwrap_or(0),
            ..Self::default()
        }
    }

    /// Takes what it must keep of a run's queries.
    fn add(&mut self, needs: &[Needs], view: &AttentionView<'_>) -> Result<()> {
        if self.window_rows > 0 {
            self.window.keep(view, self.window_rows)?;
        }
        for asked in needs.iter().filter_map(|n| n.queries) {
            if !self.queries.iter().any(|(known, _)| *known == asked) {
                let (heads, _, d) = view.queries.dims3()?;
                self.queries.push((asked, QuerySums::new(asked, heads, d)));
            }
        }
        let mut sums = self.queries.iter_mut();
        sums.try_for_each(|(_, sums)| sums.add(view))
    }
}

impl Observed {
    /// Everything that some scorer asked for, of a layer whose keys are all there.
    fn of(
        needs: &[Needs],
        watched: Watched,
        (view, tokens): (&AttentionView<'_>, usize),
        place: &Device,
    ) -> Result<Self> {
        let sums = watched.sums.into_iter();
        let sums: BTreeMap<usize, Tensor> = sums
            .map(|(rows, sums)| Ok((rows, sums.into_tensor()?)))
            .collect::<Result<_>>()?;
        let windows = needs
            .iter()
            .map(|n| n.window.min(rows_of_view(view, tokens)));
        let means = windows
            .filter_map(|rows| Some((rows, sums.get(&rows)?)))
            .map(|(rows, sums)| Ok((rows, divided(sums, rows)?)))
            .collect::<Result<_>>()?;
        let any = |asks: fn(&Needs) -> bool| needs.iter().any(asks);
        let of_heads = |asked: bool, rows: fn(&HeadCache) -> Result<Tensor>| {
            if asked {
                rows_of((view, tokens), place, rows)
            } else {
                Ok(Vec::new())
            }
        };
        let values = of_heads(any(|n| n.values || n.projected_norms), HeadCache::values)?;
        Ok(Self {
            sums,
            means,
            rows: if watched.window_rows > 0 {
                watched.window.rows(view, tokens)?
            } else {
                Vec::new()
            },
            window_rows: watched.window_rows.min(rows_of_view(view, tokens)),
            keys: of_heads(any(|n| n.keys), HeadCache::keys)?,
            norms: if any(|n| n.projected_norms) {
                projected_norms(view, &values, view.queries.dim(0)?, l1_norms)?
            } else {
                Vec::new()
            },
            values,
            queries: (watched.queries.iter())
                .map(|(asked, sums)| (*asked, sums.finish()))
                .collect(),
        })
    }

    /// What one scorer asked for.
    fn shown_to<'a>(
        &'a self,
        needs: &Needs,
        window: usize,
        (view, tokens): (&AttentionView<'a>, usize),
        device: &'a Device,
    ) -> Result<LayerObservation<'a>> {
        let most = rows_of_view(view, tokens);
        let heads = &view.cache.heads;
        let group = view.queries.dim(0)? / heads.len();
        let rows = needs.window_rows.min(most);
        let queries = self.queries.iter().find(|(n, _)| Some(*n) == needs.queries);
        Ok(LayerObservation {
            layer: view.layer,
            window,
            first_in_sight: view.cache.in_sight(0, tokens).start,
            rotation: view.rotation,
            window_mean: self.means.get(&needs.window.min(most)),
            window_rows: (rows > 0).then(|| {
                WindowRows::new(&self.rows, self.window_rows, tokens, rows)
                    .ending_at(view.prompt_tokens)
            }),
            received: self.sums.get(&tokens).filter(|_| needs.all_rows),
            keys: needs.keys.then_some(&self.keys),
            values: needs.values.then_some(&self.values),
            projected_norms: needs.projected_norms.then_some(&self.norms),
            queries: queries.map(|(_, statistics)| statistics),
            ..LayerObservation::of(tokens, group, heads.len(), device)
        })
    }
}

/// The quotients themselves: candle divides a tensor by a number by multiplying with what is nearly its inverse.
fn divided(sums: &Tensor, by: usize) -> Result<Tensor> {
    let by = Tensor::new(by as f64, sums.device())?;
    Ok(sums.broadcast_div(&by)?)
}

/// How many rows there are to look from: those of the prompt, or those behind it.
fn rows_to_look_from(end: usize, behind: Option<usize>) -> usize {
    behind.map_or(end, |tokens| end.saturating_sub(tokens))
}

fn rows_of_view(view: &AttentionView<'_>, tokens: usize) -> usize {
    rows_to_look_from(
        view.prompt_tokens,
        Some(tokens).filter(|t| *t < view.prompt_tokens),
    )
}

/// Keys, or values, of every KV head, `(T, D)`: views of the cache, or copies where scores are made elsewhere.
fn rows_of(
    (view, tokens): (&AttentionView<'_>, usize),
    place: &Device,
    rows: fn(&HeadCache) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let of_head = |head: &HeadCache| {
        let rows = rows(head)?.narrow(0, 0, tokens)?;
        if rows.device().same_device(place) {
            Ok(rows)
        } else {
            // Of its own: with a view the whole buffer of the layer would be brought over.
            Ok(rows.force_contiguous()?.to_device(place)?)
        }
    };
    view.cache.heads.iter().map(of_head).collect()
}
