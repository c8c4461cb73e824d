//! The probe that measures every head of every layer during one prefill.

use candle_core::Device;

use super::measures::LayerMeasures;
use super::options::MeasureOptions;
use super::window_sums::WindowSums;
use crate::error::Result;
use crate::model::attention::{AttentionProbe, AttentionView, QUERY_BLOCK};

/// Measures one prompt; give it to [`crate::model::decoder::Decoder::prefill`].
///
/// Paper: ZigZagKV, arXiv 2412.09036. Differs: three queries are measured in one prefill, never on
/// pooled, padded or masked scores.
pub struct Profiler<'a> {
    options: &'a MeasureOptions,
    watching: Vec<WindowSums>,
    layers: Vec<LayerMeasures>,
    on_layer: &'a mut dyn FnMut(usize),
}

impl<'a> Profiler<'a> {
    /// A profiler for one prompt; `on_layer` hears the number of tokens of each run and layer done.
    pub fn new(options: &'a MeasureOptions, on_layer: &'a mut dyn FnMut(usize)) -> Self {
        Self {
            options,
            watching: Vec::new(),
            layers: Vec::new(),
            on_layer,
        }
    }

    /// The measures, one per layer.
    pub fn finish(self) -> Vec<LayerMeasures> {
        self.layers
    }
}

impl AttentionProbe for Profiler<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let (h_q, run, _) = view.queries.dims3()?;
        let tokens = view.prompt_tokens;
        if self.watching.len() <= view.layer {
            let h_kv = view.cache.heads.len();
            self.watching.push(WindowSums::new(
                h_q,
                h_kv,
                tokens,
                self.options.thresholds.len(),
            ));
        }
        let first_row = tokens - self.options.rows(tokens);
        let sums = &mut self.watching[view.layer];
        let mut start = view.rows.start.max(first_row);
        while start < view.rows.end {
            let end = view.rows.end.min(start + QUERY_BLOCK);
            let block = view.probabilities(start..end)?.to_device(&Device::Cpu)?;
            sums.add(&block, start, &self.options.thresholds)?;
            start = end;
        }
        if view.is_last() {
            let sums = std::mem::take(&mut self.watching[view.layer]);
            self.layers.push(sums.measure(view, self.options)?);
        }
        (self.on_layer)(run);
        Ok(())
    }
}
