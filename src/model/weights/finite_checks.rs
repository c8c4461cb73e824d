//! Which tensors of a file hold neither NaN nor infinity, so that each is looked through once and not at every start.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::model::source::{CacheFolder, FileStamp};

/// What was found of the tensors of one file.
///
/// Paper: none: house definition. Differs: without a memory every start looks anew; within one, a tensor is looked
/// through once however often it is asked for.
pub(in crate::model) struct FiniteChecks {
    path: PathBuf,
    /// The file as it was when it was opened.
    stamp: FileStamp,
    memory: Option<Memory>,
    finite: BTreeSet<String>,
    has_news: bool,
}

/// Where it is remembered.
struct Memory {
    record: PathBuf,
    /// The file's own path, links followed.
    file: String,
}

/// What is remembered of a file. Tensors are named, since another configuration may ask for more of them.
#[derive(Serialize, Deserialize)]
struct FoundFinite {
    file: String,
    #[serde(flatten)]
    stamp: FileStamp,
    tensors: BTreeSet<String>,
}

impl FiniteChecks {
    /// Nothing is known of a file yet.
    pub(in crate::model) fn of(path: &Path, stamp: FileStamp) -> Self {
        Self {
            path: path.to_owned(),
            stamp,
            memory: None,
            finite: BTreeSet::new(),
            has_news: false,
        }
    }

    /// Takes over what is remembered of the file while it stays as it is, and remembers there from now on.
    pub(in crate::model) fn recall(&mut self, cache: &CacheFolder) {
        let Some((real, record)) = cache.memory_of("finite", &self.path, self.stamp.bytes()) else {
            return;
        };
        let file = real.to_string_lossy().into_owned();
        if !cache.verifies()
            && let Ok(text) = fs::read(&record)
            && let Ok(found) = serde_json::from_slice::<FoundFinite>(&text)
            && (&found.file, found.stamp) == (&file, self.stamp)
        {
            self.finite.extend(found.tensors);
        }
        self.memory = Some(Memory { record, file });
    }

    /// Whether a tensor must be looked through.
    pub(in crate::model) fn needs_check(&self, name: &str) -> bool {
        !self.finite.contains(name)
    }

    /// Whether a tensor is finite, looking only where that is not known; one that is not makes all be forgotten.
    pub(in crate::model) fn is_finite(
        &mut self,
        name: &str,
        look: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        if !self.needs_check(name) {
            return Ok(true);
        }
        if look()? {
            self.finite.insert(name.to_owned());
            self.has_news = true;
            return Ok(true);
        }
        if let Some(memory) = self.memory.take() {
            // What cannot be removed belongs to a file that is refused as long as it is looked through.
            let _ = fs::remove_file(memory.record);
        }
        Ok(false)
    }

    /// Remembers what was found of the tensors that have been read, if the file is still what it was.
    pub(in crate::model) fn finish(&mut self) {
        let Some(memory) = self.memory.as_ref().filter(|_| self.has_news) else {
            return;
        };
        if FileStamp::of(&self.path).ok() != Some(self.stamp) {
            return;
        }
        let found = FoundFinite {
            file: memory.file.clone(),
            stamp: self.stamp,
            tensors: self.finite.clone(),
        };
        if let Ok(json) = serde_json::to_vec(&found) {
            // It only saves time, so a cache that cannot be written to still works.
            let _ = files::replace_with(&memory.record, &json);
        }
        self.has_news = false;
    }
}
