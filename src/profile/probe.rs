//! The probe that measures every head of every layer during one prefill.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::measures::LayerMeasures;
use super::options::MeasureOptions;
use super::quantisation::WindowQueries;
use super::residual_cosine::ResidualCosine;
use super::window_sums::WindowSums;
use super::work::Work;
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionRun, AttentionView, Watch};

/// Measures one prompt; give it to [`crate::model::decoder::Decoder::prefill`].
///
/// Paper: ZigZagKV, arXiv 2412.09036. Differs: three queries are measured in one prefill, never on
/// pooled, padded or masked scores.
pub struct Profiler<'a> {
    options: &'a MeasureOptions,
    work: Work,
    /// Of layers whose prompt has not ended.
    watching: BTreeMap<usize, WindowSums>,
    /// The same, where types of the cache are compared.
    queries: BTreeMap<usize, WindowQueries>,
    /// Of all layers, where the residual stream is looked at.
    residuals: BTreeMap<usize, ResidualCosine>,
    layers: BTreeMap<usize, LayerMeasures>,
    on_layer: &'a mut dyn FnMut(usize),
}

impl<'a> Profiler<'a> {
    /// A profiler for one prompt, which looks at nothing but what `options` ask for; `on_layer` hears the number of
    /// tokens of each run and layer done.
    pub fn new(options: &'a MeasureOptions, on_layer: &'a mut dyn FnMut(usize)) -> Self {
        Self {
            work: Work::of(options),
            options,
            watching: BTreeMap::new(),
            queries: BTreeMap::new(),
            residuals: BTreeMap::new(),
            layers: BTreeMap::new(),
            on_layer,
        }
    }

    /// The measures of the layers that it saw, in their order; none where nothing was asked for.
    pub fn finish(mut self) -> Vec<LayerMeasures> {
        for (l, residual) in self.residuals {
            if let Some(layer) = self.layers.get_mut(&l) {
                layer.residual_cosine = Some(residual.mean());
            }
        }
        self.layers.into_values().collect()
    }

    /// Keeps the window's queries where types of the cache are compared by them; gives them at the prompt's end.
    fn queries(&mut self, view: &AttentionView<'_>) -> Result<Option<WindowQueries>> {
        if self.options.types().is_empty() {
            return Ok(None);
        }
        let first = view.prompt_tokens - self.options.rows(view.prompt_tokens);
        let own = self.queries.entry(view.layer);
        own.or_insert_with(|| WindowQueries::from(first))
            .take(view)?;
        if view.is_last() {
            return Ok(self.queries.remove(&view.layer));
        }
        Ok(None)
    }
}

impl AttentionProbe for Profiler<'_> {
    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        if self.work.is_none() {
            return Ok(());
        }
        let rows = self.options.rows(run.prompt_tokens);
        let work = &self.work;
        let sums = self.watching.entry(run.layer);
        let sums = sums.or_insert_with(|| WindowSums::new(run, rows, work));
        watches.push(sums.watch());
        Ok(())
    }

    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let queries = self.queries(view)?;
        if let Some(sums) = self.watching.get_mut(&view.layer) {
            sums.end_run(view.rows.len())?;
        }
        if view.is_last()
            && let Some(sums) = self.watching.remove(&view.layer)
        {
            let mut measures = sums.measure(view, &self.work)?;
            if let Some(queries) = queries {
                measures.quantised = queries.measure(view, self.options.types())?;
            }
            self.layers.insert(view.layer, measures);
        }
        (self.on_layer)(view.rows.len());
        Ok(())
    }

    fn observe_residual(&mut self, layer: usize, before: &Tensor, after: &Tensor) -> Result<()> {
        if !self.work.residuals {
            return Ok(());
        }
        let own = self.residuals.entry(layer).or_default();
        own.add(before, after)
    }
}
