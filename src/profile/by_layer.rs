//! A batch of prompts that passes through the model layer by layer, measured on the way.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::capture::CaptureWriter;
use super::hidden_states::{HiddenStates, RowShape, ScratchFile};
use super::kept_batch::{BatchKeeper, BetweenLayers, KeptState};
use super::measures::LayerMeasures;
use super::options::MeasureOptions;
use super::probe::Profiler;
use super::rows::{LayerSpan, all_tables, append_tables};
use super::run::{ProfileRun, Prompt};
use crate::error::{Error, Result};
use crate::model::attention::Tee;
use crate::model::{Embedding, HiddenRows, LayerStream, StreamedLayer};

/// The least time between two layers that are kept: a killed run loses at most a layer, or so many seconds of quick ones.
const KEPT_EVERY: Duration = Duration::from_secs(10);
/// Of the time, the part that keeping may take.
const KEPT_SHARE: u32 = 20;

/// Prompts of a profiling run that pass through the layers together.
///
/// Differs: every number is that of [`ProfileRun::measure`] to the last bit; one layer's weights, and the cache of one
/// layer, are in memory at a time.
pub struct Batch<'a> {
    run: &'a ProfileRun,
    prompts: Vec<&'a Prompt>,
    between: Vec<Mutex<BetweenLayers>>,
    layers: usize,
    /// Whether any layer of the model has a window.
    windowed: bool,
    capture: Option<&'a CaptureWriter>,
    kept_at: Instant,
    keeping_took: Duration,
}

impl<'a> Batch<'a> {
    /// The numbers of the prompts that a killed run was at, if it kept any, and the layers that they had passed.
    pub fn kept(run: &ProfileRun) -> Option<(Vec<usize>, usize)> {
        let state = keeper(run).state()?;
        Some((state.prompts, state.layers))
    }

    /// Removes what a killed run had kept.
    ///
    /// Errors: [`Error::Io`].
    pub fn forget(run: &ProfileRun) -> Result<()> {
        keeper(run).forget()
    }

    /// The prompts of `all` with these `numbers` before the first layer, or where a killed run had kept them.
    ///
    /// `room` is for their residual streams, in bytes; what is beyond it waits in a file in the run's folder. What was kept and
    /// cannot be read is computed again.
    /// Errors: [`Error::Io`]; [`Error::Candle`] when the device has no room.
    pub fn begin(
        run: &'a ProfileRun,
        all: &'a [Prompt],
        numbers: &[usize],
        embedding: &Embedding,
        room: usize,
    ) -> Result<Self> {
        let shape = RowShape::of(&embedding.rows_of(&[0])?)?;
        let mut batch = Self {
            run,
            prompts: numbers.iter().map(|&index| &all[index]).collect(),
            between: places(run, all, numbers, &shape, room)?,
            layers: 0,
            windowed: !run.record().model.windows.is_empty(),
            capture: None,
            kept_at: Instant::now(),
            keeping_took: Duration::ZERO,
        };
        let keeper = keeper(run);
        if let Some(state) = keeper.state().filter(|state| state.prompts == numbers) {
            if keeper.take_up(&state, &mut batch.exclusive()).is_ok() {
                batch.layers = state.layers;
                return Ok(batch);
            }
            batch.between = places(run, all, numbers, &shape, room)?;
        }
        keeper.forget()?;
        batch.embed(embedding)?;
        Ok(batch)
    }

    /// With a capture of every layer that is measured from now on.
    pub fn captured_by(self, capture: Option<&'a CaptureWriter>) -> Self {
        Self { capture, ..self }
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Layers that all its prompts have passed.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The prompt at a place, and its number in the run.
    pub fn prompt(&self, place: usize) -> (usize, &'a Prompt) {
        (self.between(place).index, self.prompts[place])
    }

    /// Runs the prompt at a place through the next layer and measures it; `on_rows` hears the tokens of every run.
    ///
    /// Errors: whatever prefill and measurement return.
    pub fn measure(
        &self,
        place: usize,
        layer: &StreamedLayer<'_>,
        on_rows: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let (prompt, options) = (self.prompts[place], &self.run.record().settings.measures);
        let mut between = self.between(place);
        let mut profiler = Profiler::new(options, on_rows);
        let (index, tokens) = (between.index, prompt.ids.len());
        match self.capture {
            Some(capture) => {
                let mut capture = capture.probe(index);
                let mut both = Tee(&mut profiler, &mut capture);
                layer.prefill(&mut between.hidden, tokens, &mut both)?;
            }
            None => layer.prefill(&mut between.hidden, tokens, &mut profiler)?,
        }
        let measures = profiler.finish();
        let span = LayerSpan {
            first: layer.number(),
            layers: &measures,
            windowed: self.windowed,
        };
        let label = prompt.label(index);
        append_tables(&mut between.tables, all_tables(&label, span, options))
    }

    /// Ends a layer that all prompts have passed, and keeps them where it is time.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`]; [`Error::Format`] for weights that changed meanwhile.
    pub fn end_layer(&mut self) -> Result<()> {
        self.run.check_reads()?;
        self.layers += 1;
        let due = KEPT_EVERY.max(self.keeping_took * KEPT_SHARE);
        if self.kept_at.elapsed() >= due && self.layers < self.run.record().model.num_layers {
            self.keep()?;
        }
        Ok(())
    }

    /// Keeps the prompts as they are between two layers.
    ///
    /// Errors: as [`Batch::end_layer`].
    pub fn keep(&mut self) -> Result<()> {
        self.run.check_reads()?;
        let began = Instant::now();
        let state = KeptState {
            prompts: self.exclusive().iter().map(|one| one.index).collect(),
            layers: self.layers,
        };
        keeper(self.run).keep(&state, &mut self.exclusive())?;
        self.keeping_took = began.elapsed();
        self.kept_at = Instant::now();
        Ok(())
    }

    /// Writes the rows of all prompts, which have passed all layers.
    ///
    /// Errors: as [`ProfileRun::write`]; [`Error::Invalid`] before the last layer.
    pub fn finish(mut self) -> Result<()> {
        let (passed, all) = (self.layers, self.run.record().model.num_layers);
        if passed != all {
            let bound = format!("a part is written when a prompt has passed all {all}");
            return Err(Error::invalid("layers that were passed", passed, bound));
        }
        let run = self.run;
        // A run that was killed here before has written some of them.
        for one in self
            .exclusive()
            .into_iter()
            .filter(|one| !run.has(one.index))
        {
            run.write(one.index, &one.tables)?;
        }
        keeper(run).forget()
    }

    fn embed(&mut self, embedding: &Embedding) -> Result<()> {
        let prompts = self.prompts.clone();
        for (one, prompt) in self.exclusive().into_iter().zip(prompts) {
            embed(embedding, &prompt.ids, &mut one.hidden)?;
        }
        Ok(())
    }

    fn between(&self, place: usize) -> MutexGuard<'_, BetweenLayers> {
        // Whatever a panic interrupted is not used: it ends the run.
        let between = self.between[place].lock();
        between.unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&mut self) -> Vec<&mut BetweenLayers> {
        let all = self.between.iter_mut();
        all.map(|one| one.get_mut().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }
}

/// All measures of one prompt, layer by layer, with its residual stream in memory; `on_rows` hears the tokens of every run.
///
/// Errors: as [`LayerStream::layer`] and [`LayerStream::check`]; whatever prefill and measurement return.
pub fn prompt_by_layer(
    stream: &mut LayerStream<'_>,
    ids: &[u32],
    options: &MeasureOptions,
    on_rows: &mut dyn FnMut(usize),
) -> Result<Vec<LayerMeasures>> {
    stream.check(ids)?;
    let embedding = stream.embedding()?;
    let shape = RowShape::of(&embedding.rows_of(&ids[..1])?)?;
    let mut hidden = HiddenStates::new(ids.len(), shape, None);
    embed(&embedding, ids, &mut hidden)?;
    drop(embedding);
    let mut measures = Vec::new();
    for number in 0..stream.config().num_hidden_layers() {
        let layer = stream.layer(number)?;
        let mut profiler = Profiler::new(options, on_rows);
        layer.prefill(&mut hidden, ids.len(), &mut profiler)?;
        measures.extend(profiler.finish());
    }
    Ok(measures)
}

/// Puts a prompt before the first layer.
fn embed(embedding: &Embedding, ids: &[u32], hidden: &mut HiddenStates) -> Result<()> {
    for rows in hidden.runs() {
        let run = embedding.rows_of(&ids[rows.clone()])?;
        hidden.put(rows, run)?;
    }
    Ok(())
}

/// Where the residual streams of prompts will be: in memory as far as there is room.
fn places(
    run: &ProfileRun,
    all: &[Prompt],
    numbers: &[usize],
    shape: &RowShape,
    room: usize,
) -> Result<Vec<Mutex<BetweenLayers>>> {
    let (mut in_memory, mut in_file, mut scratch) = (0, 0u64, None);
    let place = |&index: &usize| {
        let tokens = all[index].ids.len();
        let bytes = shape.bytes(tokens);
        let place = if in_memory + bytes <= room {
            in_memory += bytes;
            None
        } else {
            let file = match &scratch {
                Some(file) => std::sync::Arc::clone(file),
                None => ScratchFile::create(run.parts_folder())?,
            };
            scratch = Some(file.clone());
            in_file += bytes as u64;
            Some((file, in_file - bytes as u64))
        };
        Ok(Mutex::new(BetweenLayers {
            index,
            hidden: HiddenStates::new(tokens, shape.clone(), place),
            tables: Vec::new(),
        }))
    };
    numbers.iter().map(place).collect()
}

fn keeper(run: &ProfileRun) -> BatchKeeper<'_> {
    BatchKeeper::new(run.parts_folder(), run.tables())
}
