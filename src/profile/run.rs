//! Prompts, and the profiling run that measures them one by one.

use super::probe::Profiler;
use super::rows::{LayerSpan, PromptLabel, all_tables};
use super::store::ProfileSettings;
use crate::error::{Error, Result};
use crate::files;
use crate::model::decoder::{Decoder, PREFILL_RUN};
use crate::run::RunFolder;

/// One prompt, ready to be prefilled.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The data set's own name for it.
    pub id: String,
    /// Token ids.
    pub ids: Vec<u32>,
}

impl Prompt {
    /// What tables call it, as number `index` of its run.
    pub fn label(&self, index: usize) -> PromptLabel {
        PromptLabel {
            index,
            id: self.id.clone(),
            tokens: self.ids.len(),
        }
    }

    /// An error that says which prompt is too long, where it is that.
    pub fn named(&self, error: Error) -> Error {
        match error {
            Error::PromptTooLong {
                tokens, context, ..
            } => Error::PromptTooLong {
                prompt: self.id.clone(),
                tokens,
                context,
            },
            other => other,
        }
    }
}

/// SHA-256 over the ids of all prompts, in order and with their lengths.
pub fn prompts_sha256(prompts: &[Prompt]) -> String {
    let mut bytes = Vec::new();
    for prompt in prompts {
        bytes.extend((prompt.ids.len() as u64).to_le_bytes());
        bytes.extend(prompt.ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    files::sha256_hex(&bytes)
}

/// A profiling run on disk, a part per prompt.
pub type ProfileRun = RunFolder<ProfileSettings>;

impl RunFolder<ProfileSettings> {
    /// Prefills one prompt, measures every layer and writes its rows.
    ///
    /// Errors: whatever prefill, measurement or writing returns; nothing is kept of the prompt then.
    pub fn measure(
        &self,
        index: usize,
        prompt: &Prompt,
        decoder: &Decoder,
        on_layer: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let mut cache = decoder.new_cache(prompt.ids.len())?;
        let options = &self.record().settings.measures;
        let mut profiler = Profiler::new(options, on_layer);
        decoder
            .prefill(&prompt.ids, &mut cache, PREFILL_RUN, &mut profiler)
            .map_err(|e| prompt.named(e))?;
        let layers = profiler.finish();
        let span = LayerSpan::whole(&layers);
        self.write(index, &all_tables(&prompt.label(index), span, options))
    }
}
