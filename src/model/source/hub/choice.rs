//! Which files of a repository are the model.

use crate::error::{Error, Result};
use crate::model::source::folder::{CONFIG, Weights, weights_among, with_ending};
use crate::model::source::local;
use crate::model::source::spec::{HubFile, is_hub_path};

/// The model among a repository's files.
#[derive(Debug)]
pub(super) enum Choice {
    /// One file, and the tokenizer in the same folder.
    Gguf {
        file: String,
        tokenizer: Option<String>,
    },
    /// The files of [`SafetensorsFolder`](crate::model::source::SafetensorsFolder).
    Safetensors(Weights),
}

/// Chooses from the names of a repository's files: the file that is named, the only GGUF, or safetensors.
///
/// Errors: [`Error::Invalid`], [`Error::Unsupported`].
pub(super) fn choose(spec: &HubFile, names: &[String]) -> Result<Choice> {
    if let Some(file) = &spec.file {
        check_name(file)?;
        if !names.contains(file) {
            return Err(Error::Fetch {
                what: spec.to_string(),
                problem: format!("there is no such file in the repository{}", instead(names)),
            });
        }
        return Ok(gguf(file, names));
    }
    let weights = (names.iter()).filter(|name| name.to_lowercase().ends_with(".gguf"));
    match *weights.collect::<Vec<_>>() {
        [only] => {
            check_name(only)?;
            Ok(gguf(only, names))
        }
        [] => {
            let weights = weights_among(&spec.to_string(), names)?;
            if let Weights::Single(name) = &weights {
                check_path(name)?;
            }
            if !names.iter().any(|name| name == CONFIG) {
                let bound = "there is no config.json in it";
                return Err(Error::invalid("the model", spec.to_string(), bound));
            }
            Ok(Choice::Safetensors(weights))
        }
        ref several => {
            let shown = |name: &&String| spec.with(name).to_string();
            let list: Vec<_> = several.iter().map(shown).collect();
            let (count, list) = (list.len(), list.join("\n  "));
            Err(Error::invalid(
                "the model",
                spec.to_string(),
                format!("it holds {count} GGUF files; choose one:\n  {list}"),
            ))
        }
    }
}

fn gguf(file: &str, names: &[String]) -> Choice {
    Choice::Gguf {
        file: file.to_owned(),
        tokenizer: Some(tokenizer_beside(file)).filter(|name| names.contains(name)),
    }
}

fn instead(names: &[String]) -> String {
    let found = with_ending(names, ".gguf");
    let found: Vec<_> = found.iter().take(10).map(|name| name.as_str()).collect();
    if found.is_empty() {
        String::new()
    } else {
        format!("; its GGUF files: {}", found.join(", "))
    }
}

/// Refuses what is not the name of a whole GGUF file.
pub(super) fn check_name(file: &str) -> Result<()> {
    if !file.to_lowercase().ends_with(".gguf") {
        return Err(Error::Unsupported {
            what: "weight file",
            found: file.to_owned(),
            supported: "files that end in .gguf, or the repository's own name for its safetensors"
                .into(),
        });
    }
    check_path(file)?;
    local::refuse_parts(file)
}

/// A name that a hub sends becomes a path on this machine.
fn check_path(name: &str) -> Result<()> {
    if is_hub_path(name) {
        return Ok(());
    }
    Err(Error::invalid(
        "the name of a file in the repository",
        format!("'{name}'"),
        "it must stay below the repository, in letters, digits and any of . _ - + = @ ~",
    ))
}

/// The `tokenizer.json` in the folder of `file`.
pub(super) fn tokenizer_beside(file: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/tokenizer.json"),
        None => "tokenizer.json".to_owned(),
    }
}
