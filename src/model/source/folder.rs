//! A Hugging Face folder: which of its files are the model, and one hash for all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cache::CacheFolder;
use super::spec::is_relative;
use crate::error::{Error, Result};
use crate::files::sha256_hex;

/// Geometry and family of a model.
pub(super) const CONFIG: &str = "config.json";
/// Which shard holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What belongs to the model beside its configuration and weights, where it is there.
pub(super) const TEXT_SIDE: [&str; 4] = [
    "tokenizer.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];
/// What other programs want to find in such a folder.
pub(super) const ALSO_FETCHED: [&str; 2] = ["chat_template.json", "special_tokens_map.json"];
/// Indices are no larger: 64 MiB.
const MAX_INDEX: u64 = 64 << 20;

/// The files of a model in a Hugging Face folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsFolder {
    /// The folder.
    pub path: PathBuf,
    /// `config.json`.
    pub config: PathBuf,
    /// `model.safetensors.index.json`, for weights in shards.
    pub index: Option<PathBuf>,
    /// The weights, sorted by name: those that the index names, or the only file.
    pub shards: Vec<PathBuf>,
    /// `tokenizer.json`, if it is there.
    pub tokenizer_json: Option<PathBuf>,
    /// `generation_config.json`, if it is there.
    pub generation_config: Option<PathBuf>,
    /// `tokenizer_config.json`, if it is there.
    pub tokenizer_config: Option<PathBuf>,
    /// `chat_template.jinja`, if it is there.
    pub chat_template: Option<PathBuf>,
}

impl SafetensorsFolder {
    /// Finds the files of the model in `path`; files that its index does not name are not part of it.
    ///
    /// Errors: [`Error::Invalid`] for a folder without `config.json` or weights, or with several files of weights and
    /// no index; [`Error::Format`] for an index that names a file that is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let file = |name: &str| Some(path.join(name)).filter(|path| path.is_file());
        let shown = || format!("the folder {}", path.display());
        let index = file(INDEX);
        let weights = weights_among(&shown(), &names_in(path)?)?;
        let config = file(CONFIG)
            .ok_or_else(|| Error::invalid("the model", shown(), "there is no config.json in it"))?;
        let shards: Vec<PathBuf> = match weights {
            Weights::Indexed => {
                let index = path.join(INDEX);
                let shards = shards_of(&index)?.into_iter();
                shards
                    .map(|name| file(&name).ok_or_else(|| missing_shard(&index, &name)))
                    .collect::<Result<_>>()?
            }
            Weights::Single(name) => vec![path.join(name)],
        };
        let [
            tokenizer_json,
            generation_config,
            tokenizer_config,
            chat_template,
        ] = TEXT_SIDE.map(file);
        Ok(Self {
            path: path.to_owned(),
            config,
            index,
            shards,
            tokenizer_json,
            generation_config,
            tokenizer_config,
            chat_template,
        })
    }

    /// The files that define the model: those by which it is hashed.
    pub fn files(&self) -> Vec<&Path> {
        let optional = [
            &self.index,
            &self.tokenizer_json,
            &self.generation_config,
            &self.tokenizer_config,
            &self.chat_template,
        ];
        let optional = optional.into_iter().flatten();
        let all = std::iter::once(&self.config).chain(optional);
        all.chain(&self.shards).map(PathBuf::as_path).collect()
    }

    /// The hash of every file, and of the model: the SHA-256 of the sorted lines `sha256  name` of [`Self::files`], as
    /// `sha256sum FILES | LC_ALL=C sort | sha256sum` prints it in the folder.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn hashes(&self, cache: &CacheFolder) -> Result<(Vec<(PathBuf, String)>, String)> {
        let hash = |path: &&Path| Ok((path.to_path_buf(), cache.sha256_of(path)?));
        let hashes = self.files().iter().map(hash).collect::<Result<Vec<_>>>()?;
        let named = hashes
            .iter()
            .map(|(path, sha256)| (file_name(path), sha256.clone()));
        let all = sha256_of_all(&named.collect::<Vec<_>>());
        Ok((hashes, all))
    }
}

/// The hash of a model in several files, from names and hashes of the files.
pub(super) fn sha256_of_all(files: &[(String, String)]) -> String {
    let line = |(name, sha256): &(String, String)| format!("{sha256}  {name}\n");
    let lines: BTreeSet<String> = files.iter().map(line).collect();
    sha256_hex(lines.into_iter().collect::<String>().as_bytes())
}

/// Where a folder's weights are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// In the shards that [`INDEX`] names.
    Indexed,
    /// In this file.
    Single(String),
}

/// Chooses the weights from the names of the files in a folder, which is `shown` in errors.
///
/// Errors: [`Error::Invalid`], [`Error::Unsupported`] for weights that Python must unpickle.
pub(super) fn weights_among(shown: &str, names: &[String]) -> Result<Weights> {
    let refused = |bound: String| Err(Error::invalid("the model", shown, bound));
    if names.iter().any(|name| name == INDEX) {
        return Ok(Weights::Indexed);
    }
    if names.iter().any(|name| name == "model.safetensors") {
        return Ok(Weights::Single("model.safetensors".to_owned()));
    }
    match *with_ending(names, ".safetensors") {
        [only] => Ok(Weights::Single(only.clone())),
        [] => {
            let pickled = [".bin", ".pt", ".pth"].map(|ending| with_ending(names, ending));
            match pickled.concat().first() {
                Some(name) => Err(Error::Unsupported {
                    what: "weight format",
                    found: format!("{name} of {shown}"),
                    supported: "safetensors and GGUF (pickled weights can run any code: convert them with \
                                transformers' save_pretrained, or take a repository that holds safetensors)"
                        .into(),
                }),
                None => refused("there is no .gguf file and no .safetensors file in it".into()),
            }
        }
        ref several => refused(format!(
            "it holds {} safetensors files and no {INDEX} that says which belong together: {}",
            several.len(),
            several
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

/// Names in the folder itself, not those below it, with this ending.
pub(super) fn with_ending<'a>(names: &'a [String], ending: &str) -> Vec<&'a String> {
    let fits = |name: &&String| name.to_lowercase().ends_with(ending) && !name.contains('/');
    names.iter().filter(fits).collect()
}

/// The shards that an index names, sorted.
///
/// Errors: [`Error::Format`] for an index that is no index, or that names what is not a file beside it.
pub(super) fn shards_of(index: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let length = fs::metadata(index).map_err(|e| Error::io("read", index, e))?;
    if length.len() > MAX_INDEX {
        let problem = format!("is larger than the {MAX_INDEX} bytes that are allowed");
        return Err(Error::format(index, problem));
    }
    let bytes = fs::read(index).map_err(|e| Error::io("read", index, e))?;
    let index_of: Index = serde_json::from_slice(&bytes)
        .map_err(|e| Error::format(index, format!("is not an index of shards: {e}")))?;
    let shards: BTreeSet<String> = index_of.weight_map.into_values().collect();
    let is_sound = |name: &&String| {
        is_relative(name) && !name.contains('/') && name.to_lowercase().ends_with(".safetensors")
    };
    match shards.iter().find(|name| !is_sound(name)) {
        Some(name) => Err(Error::format(
            index,
            format!("names '{name}', which is not a .safetensors file beside it"),
        )),
        None if shards.is_empty() => Err(Error::format(index, "names no shards")),
        None => Ok(shards),
    }
}

/// The error for a shard that an index names.
pub(super) fn missing_shard(index: &Path, name: &str) -> Error {
    let problem =
        format!("names the shard {name}, which is not there; download it into the same folder");
    Error::format(index, problem)
}

/// Names of the files in a folder, sorted.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let unread = |e| Error::io("read the folder", folder, e);
    let entries = fs::read_dir(folder).map_err(unread)?;
    let names =
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(unread)?;
    names.sort();
    Ok(names)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
