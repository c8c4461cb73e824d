//! The prompt through the model: bare, and measured as a profile measures it.

use serde_json::Value;

use super::arithmetic::{Arithmetic, Shape};
use super::clock::{Seconds, timed};
use super::stage::Stage;
use super::work::Work;
use crate::budget::{ALLOCATORS, Granularity};
use crate::error::Result;
use crate::model::ModelHeader;
use crate::model::attention::{AttentionProbe, NoProbe};
use crate::model::decoder::PREFILL_RUN;
use crate::profile::{MeasureOptions, Needs, Profiler, prompt_by_layer};
use crate::registry;

/// Prefill that nobody watches.
pub(super) struct Prefill;

impl Work for Prefill {
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds> {
        prefill(stage, &mut NoProbe)
    }

    fn arithmetic(&self, shape: &Shape<'_>) -> Option<Arithmetic> {
        Some(Arithmetic::of_prefill(shape))
    }
}

/// Prefill under the profiler, with the default thresholds.
pub(super) struct Profiling {
    /// Observation window; `None` is every row.
    pub window: Option<usize>,
    /// The strategy whose needs alone are measured, with its default parameters; `None` is a whole profile.
    pub strategy: Option<&'static str>,
}

impl Profiling {
    fn needs(&self) -> Result<Option<Needs>> {
        let needs = |name| -> Result<Needs> {
            let allocator = registry::build("strategy", ALLOCATORS, name, Value::Null)?;
            allocator.needs(Granularity::Layer)
        };
        self.strategy.map(needs).transpose()
    }
}

impl Work for Profiling {
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds> {
        let options = MeasureOptions {
            window: self.window,
            needs: self.needs()?,
            ..MeasureOptions::default()
        };
        let mut ignore = |_| ();
        let mut profiler = Profiler::new(&options, &mut ignore);
        prefill(stage, &mut profiler)
    }

    fn least_tokens(&self) -> usize {
        self.window.unwrap_or(1)
    }

    /// That of the prefill: what is measured on top is the cost, not the work.
    fn arithmetic(&self, shape: &Shape<'_>) -> Option<Arithmetic> {
        Some(Arithmetic::of_prefill(shape))
    }
}

/// A whole profile of the last 32 rows, layer by layer: every layer is read, used and let go.
pub(super) struct ByLayer;

impl Work for ByLayer {
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds> {
        let decoder = &stage.model.decoder;
        let mut header = ModelHeader::open(stage.model.files.clone())?;
        let mut stream = header.layers(decoder.device(), decoder.precision())?;
        let options = MeasureOptions::default();
        let ((), took) = timed(|| {
            prompt_by_layer(&mut stream, &stage.case.ids, &options, &mut |_| ())?;
            Ok(())
        })?;
        Ok(took)
    }

    /// That of the prefill, which has one product more: the output head of the last token.
    fn arithmetic(&self, shape: &Shape<'_>) -> Option<Arithmetic> {
        Some(Arithmetic::of_prefill(shape))
    }
}

fn prefill(stage: &Stage<'_>, probe: &mut dyn AttentionProbe) -> Result<Seconds> {
    let (decoder, ids) = (&stage.model.decoder, &stage.case.ids);
    let ((), took) = timed(|| {
        let mut cache = decoder.new_cache(ids.len())?;
        let logits = decoder.prefill(ids, &mut cache, PREFILL_RUN, probe)?;
        // A device may still be at it: only a number that is here has been computed.
        logits.to_vec1::<f32>()?;
        Ok(())
    })?;
    Ok(took)
}
