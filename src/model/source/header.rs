//! What a model is, without its weights: enough of its files for the readers of headers.

use std::path::Path;

use tempfile::TempDir;

use super::ModelFiles;
use super::folder::SafetensorsFolder;
use crate::error::{Error, Result};

/// Files of a model whose headers are whole, and whose weights may be holes.
///
/// Paper: none: house definition. Differs: a GGUF file or a shard of safetensors that came over the network has its true
/// length, its header, and zeros in place of the weights (factors of rotary positions are there); the files vanish when
/// this is dropped.
#[derive(Debug)]
pub struct HeaderFiles {
    /// The files as for a model that was fetched; `sha256` is empty where only reading all of them would tell.
    pub files: ModelFiles,
    /// Bytes of the GGUF file, or of all shards.
    pub bytes: u64,
    folder: Option<TempDir>,
}

impl HeaderFiles {
    /// Files that are here whole.
    pub(super) fn whole(files: ModelFiles) -> Result<Self> {
        let shards = if files.weights.is_dir() {
            SafetensorsFolder::open(&files.weights)?.shards
        } else {
            vec![files.weights.clone()]
        };
        let bytes = shards.iter().map(|path| length_of(path));
        Ok(Self {
            bytes: bytes.sum::<Result<u64>>()?,
            files,
            folder: None,
        })
    }

    /// Files in a folder that goes with this.
    pub(super) fn without_weights(files: ModelFiles, bytes: u64, folder: TempDir) -> Self {
        Self {
            files,
            bytes,
            folder: Some(folder),
        }
    }

    /// The model's hash, where it is known without reading the weights.
    pub fn sha256(&self) -> Option<&str> {
        Some(self.files.sha256.as_str()).filter(|sha256| !sha256.is_empty())
    }

    /// Whether the weights are there.
    pub fn has_weights(&self) -> bool {
        self.folder.is_none()
    }
}

fn length_of(path: &Path) -> Result<u64> {
    let found = std::fs::metadata(path).map_err(|e| Error::io("inspect", path, e))?;
    Ok(found.len())
}
