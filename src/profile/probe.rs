//! The probe that measures every head of every layer during one prefill.

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
    watching: Vec<Option<WindowSums>>,
    /// One per layer where types of the cache are compared.
    queries: Vec<Option<WindowQueries>>,
    /// One per layer where the residual stream is looked at.
    residuals: Vec<ResidualCosine>,
    layers: Vec<LayerMeasures>,
    on_layer: &'a mut dyn FnMut(usize),
}

impl<'a> Profiler<'a> {
    /// A profiler for one prompt, which looks at nothing but what `options` ask for; `on_layer` hears the number of
    /// tokens of each run and layer done.
    pub fn new(options: &'a MeasureOptions, on_layer: &'a mut dyn FnMut(usize)) -> Self {
        Self {
            work: Work::of(options),
            options,
            watching: Vec::new(),
            queries: Vec::new(),
            residuals: Vec::new(),
            layers: Vec::new(),
            on_layer,
        }
    }

    /// The measures, one per layer; none where nothing was asked for.
    pub fn finish(mut self) -> Vec<LayerMeasures> {
        for (layer, residual) in self.layers.iter_mut().zip(&self.residuals) {
            layer.residual_cosine = Some(residual.mean());
        }
        self.layers
    }

    /// Keeps the window's queries where types of the cache are compared by them; gives them at the prompt's end.
    fn queries(&mut self, view: &AttentionView<'_>) -> Result<Option<WindowQueries>> {
        if self.options.types().is_empty() {
            return Ok(None);
        }
        if self.queries.len() <= view.layer {
            let rows = self.options.rows(view.prompt_tokens);
            let first = view.prompt_tokens - rows;
            self.queries.push(Some(WindowQueries::from(first)));
        }
        let own = &mut self.queries[view.layer];
        if let Some(queries) = own {
            queries.take(view)?;
        }
        Ok(own.take_if(|_| view.is_last()))
    }
}

impl AttentionProbe for Profiler<'_> {
    fn watch<'a>(&'a mut self, run: &AttentionRun, watches: &mut Vec<Watch<'a>>) -> Result<()> {
        if self.work.is_none() {
            return Ok(());
        }
        if self.watching.len() <= run.layer {
            let rows = self.options.rows(run.prompt_tokens);
            let sums = WindowSums::new(run, rows, &self.work);
            self.watching.push(Some(sums));
        }
        let sums = self.watching[run.layer].iter();
        watches.extend(sums.map(WindowSums::watch));
        Ok(())
    }

    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let queries = self.queries(view)?;
        if let Some(sums) = self.watching.get_mut(view.layer) {
            if let Some(sums) = sums {
                sums.end_run(view.rows.len())?;
            }
            if let Some(sums) = sums.take_if(|_| view.is_last()) {
                let mut measures = sums.measure(view, &self.work)?;
                if let Some(queries) = queries {
                    measures.quantised = queries.measure(view, self.options.types())?;
                }
                self.layers.push(measures);
            }
        }
        (self.on_layer)(view.rows.len());
        Ok(())
    }

    fn observe_residual(&mut self, layer: usize, before: &Tensor, after: &Tensor) -> Result<()> {
        if !self.work.residuals {
            return Ok(());
        }
        if self.residuals.len() <= layer {
            self.residuals.resize_with(layer + 1, Default::default);
        }
        self.residuals[layer].add(before, after)
    }
}
