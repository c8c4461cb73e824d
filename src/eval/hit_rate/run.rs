//! A measurement of hit rates on disk, prompt by prompt.

use std::path::{Path, PathBuf};

use super::measure::measure;
use super::rows::table;
use super::store::{HitRateRecord, HitRateSettings, HitRates};
use crate::error::Result;
use crate::model::Model;
use crate::profile::Prompt;
use crate::run::RunFolder;

/// A run that fills a folder; see [`RunFolder`].
pub struct HitRateRun {
    folder: PathBuf,
    parts: RunFolder<HitRateSettings>,
}

impl HitRateRun {
    /// Prepares `folder` for the run that `record` describes.
    ///
    /// Errors: those of [`super::HitRateOptions::check`] and [`RunFolder::prepare`].
    pub fn prepare(folder: &Path, record: HitRateRecord, resume: bool) -> Result<Self> {
        record.settings.options.check()?;
        let prompts = record.data.prompts;
        Ok(Self {
            folder: folder.to_owned(),
            parts: RunFolder::prepare(folder, record, prompts, resume)?,
        })
    }

    /// Whether the rows of prompt `index` are already there.
    pub fn has(&self, index: usize) -> bool {
        self.parts.has(index)
    }

    /// Measures one prompt and writes its rows.
    ///
    /// Errors: those of [`measure`] and of writing; nothing is kept of the prompt then.
    pub fn measure(
        &self,
        index: usize,
        prompt: &Prompt,
        model: &Model,
        on_layer: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let options = &self.parts.record().settings.options;
        let stop_ids = model.tokenizer.stop_ids();
        let hits = measure(&model.decoder, &prompt.ids, stop_ids, options, on_layer)
            .map_err(|e| prompt.named(e))?;
        let prefix = options.prefix(prompt.ids.len());
        self.parts
            .write(index, &[table(&prompt.label(index), prefix, &hits)])
    }

    /// Joins the parts and reads them back.
    ///
    /// Errors: [`crate::error::Error::Io`] or [`crate::error::Error::Table`] if a part is missing or damaged.
    pub fn finish(&self) -> Result<HitRates> {
        self.parts.finish()?;
        HitRates::load(&self.folder)
    }
}
