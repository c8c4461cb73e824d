//! A weight file that is mapped into memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::finite_checks::FiniteChecks;
use crate::error::{Error, Result};
use crate::model::source::FileStamp;

/// The bytes of a file, shared with the matrices that are used where they lie, and what was found of its tensors.
pub(in crate::model) struct MappedFile {
    pub(in crate::model) bytes: Arc<Mmap>,
    pub(in crate::model) finite: FiniteChecks,
}

impl MappedFile {
    /// Maps a file that was opened.
    ///
    /// Errors: [`Error::Io`].
    pub(in crate::model) fn of(file: &File, path: &Path) -> Result<Self> {
        let stamp = FileStamp::of_open(file, path)?;
        // SAFETY: the mapping is only read. A file that another process writes to meanwhile gives other numbers, which
        // `FilesInUse::check` tells before results are kept; one that is cut short raises SIGBUS, which the binary
        // turns into an error. Neither can be prevented without a copy of all weights.
        let bytes = unsafe { Mmap::map(file) }.map_err(|e| Error::io("map", path, e))?;
        Ok(Self {
            bytes: Arc::new(bytes),
            finite: FiniteChecks::of(path, stamp),
        })
    }
}
