//! Taking prompts through a model layer by layer, as many at a time as there is room for.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use indicatif::ProgressBar;
use kvprof::model::LayerStream;
use kvprof::profile::{Batch, CaptureWriter, ProfileRun, Prompt};

use super::counted;
use super::jobs::JobArguments;
use super::long_run::progress_bar;
use super::profile_need::BatchRoom;

/// A profiling run, and what it may take.
pub struct ProfileWork<'a> {
    /// The run on disk.
    pub run: &'a ProfileRun,
    /// All its prompts.
    pub prompts: &'a [Prompt],
    /// How many pass through a layer at once.
    pub jobs: JobArguments,
    /// What a batch may take.
    pub room: BatchRoom,
    /// What also keeps the attention that is measured.
    pub capture: Option<&'a CaptureWriter>,
    /// No bar.
    pub quiet: bool,
}

impl ProfileWork<'_> {
    /// Measures the prompts that are not there yet.
    pub fn measure(&self, stream: &mut LayerStream<'_>) -> anyhow::Result<()> {
        let all = 0..self.prompts.len();
        let todo: Vec<usize> = all.filter(|&index| !self.run.has(index)).collect();
        for &index in &todo {
            let prompt = &self.prompts[index];
            stream
                .check(&prompt.ids)
                .map_err(|e| prompt.named(e))
                .with_context(|| measuring(index, prompt))?;
        }
        let layers = stream.config().num_hidden_layers();
        let tokens = todo.iter().map(|&index| self.prompts[index].ids.len());
        let bar = LayerBar {
            bar: progress_bar(tokens.sum(), "tokens", self.quiet),
            layers,
            passed: AtomicUsize::new(0),
        };
        for numbers in self.batches(&todo)? {
            let embedding = stream.embedding()?;
            let in_memory = self.room.in_memory;
            let batch = Batch::begin(self.run, self.prompts, &numbers, &embedding, in_memory)?;
            drop(embedding);
            self.through_layers(batch.captured_by(self.capture), stream, &bar)?;
        }
        bar.bar.finish_and_clear();
        Ok(())
    }

    /// Begins the capture, unless it would lack prompts that were measured without one.
    pub fn begin_capture(&self) -> anyhow::Result<()> {
        let Some(capture) = self.capture else {
            return Ok(());
        };
        let lacks = |index: &usize| self.run.has(*index) && !capture.has(*index);
        if let Some(index) = (0..self.prompts.len()).find(lacks) {
            anyhow::bail!(
                "prompt {} was measured before without a capture: capture all of them with another --out",
                index + 1
            );
        }
        Ok(capture.begin()?)
    }

    fn through_layers(
        &self,
        mut batch: Batch<'_>,
        stream: &mut LayerStream<'_>,
        bar: &LayerBar,
    ) -> anyhow::Result<()> {
        let places: Vec<usize> = (0..batch.len()).collect();
        let tokens = places.iter().map(|&place| batch.prompt(place).1.ids.len());
        bar.pass(batch.layers() * tokens.sum::<usize>());
        while batch.layers() < bar.layers {
            let number = batch.layers();
            let prompts = counted(batch.len(), "prompt");
            let message = format!("layer {}/{} of {prompts}", number + 1, bar.layers);
            bar.bar.set_message(message);
            let layer = stream.layer(number)?;
            self.jobs.run(&places, &|place| {
                let (index, prompt) = batch.prompt(place);
                batch
                    .measure(place, &layer, &mut |tokens| bar.pass(tokens))
                    .map_err(|e| prompt.named(e))
                    .with_context(|| measuring(index, prompt))
            })?;
            batch.end_layer()?;
        }
        Ok(batch.finish()?)
    }

    /// Numbers of the prompts that go through the model together; first those that a killed run was at.
    fn batches(&self, todo: &[usize]) -> anyhow::Result<Vec<Vec<usize>>> {
        let (kept, layers) = Batch::kept(self.run).unwrap_or_default();
        let is_captured = |&index: &usize| self.capture.is_none_or(|c| c.has_layers(index, layers));
        // Those that are there already were written when the run was killed between two of them.
        let begun = kept.iter().any(|index| todo.contains(index)) && kept.iter().all(is_captured);
        if !begun {
            Batch::forget(self.run)?;
        }
        let mut batches = Vec::from_iter(begun.then(|| kept.clone()));
        let rest = todo.iter().copied();
        let rest: Vec<usize> = rest
            .filter(|index| !begun || !kept.contains(index))
            .collect();
        let lengths: Vec<usize> = rest.iter().map(|&i| self.prompts[i].ids.len()).collect();
        let places = self.room.batches(&lengths).into_iter();
        batches.extend(places.map(|batch| batch.into_iter().map(|place| rest[place]).collect()));
        Ok(batches)
    }
}

/// A bar over prompts' tokens, of which every layer passes its share.
struct LayerBar {
    bar: ProgressBar,
    layers: usize,
    /// Tokens times layers.
    passed: AtomicUsize,
}

impl LayerBar {
    fn pass(&self, tokens: usize) {
        let passed = self.passed.fetch_add(tokens, Ordering::Relaxed) + tokens;
        self.bar.set_position((passed / self.layers.max(1)) as u64);
    }
}

fn measuring(index: usize, prompt: &Prompt) -> String {
    format!("measuring prompt {} ({})", index + 1, prompt.id)
}
