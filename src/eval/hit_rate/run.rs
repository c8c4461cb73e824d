//! A measurement of hit rates on disk, prompt by prompt.

use super::measure::measure;
use super::rows::table;
use super::store::HitRateSettings;
use crate::error::Result;
use crate::model::Model;
use crate::profile::Prompt;
use crate::run::RunFolder;

/// A run that fills a folder, a part per prompt.
pub type HitRateRun = RunFolder<HitRateSettings>;

impl RunFolder<HitRateSettings> {
    /// Measures one prompt, behind which a `question` may come, and writes its rows.
    ///
    /// Errors: those of [`measure`] and of writing; nothing is kept of the prompt then.
    pub fn measure(
        &self,
        index: usize,
        prompt: &Prompt,
        question: &[u32],
        model: &Model,
        on_layer: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let options = &self.record().settings.options;
        let stop_ids = model.tokenizer.stop_ids();
        let hits = measure(
            &model.decoder,
            &prompt.ids,
            question,
            stop_ids,
            options,
            on_layer,
        )
        .map_err(|e| prompt.named(e))?;
        let prefix = options.prefix(prompt.ids.len());
        self.write(index, &[table(&prompt.label(index), prefix, &hits)])
    }
}
