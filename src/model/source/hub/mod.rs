//! A model in a Hugging Face repository, in the hub's own cache and with its token.
//!
//! The crate hf-hub knows the cache's place, the token and the repository's folder. Transfers are our own: a revision
//! stays at one commit for all files, what is begun goes on in another process, and lengths and hashes are compared.

mod choice;
mod client;
mod download;
mod header;
mod layout;

use std::path::{Path, PathBuf};

use hf_hub::Cache;

use crate::error::{Error, Result};

use super::cache::CacheFolder;
use super::folder::{
    ALSO_FETCHED, CONFIG, INDEX, SafetensorsFolder, TEXT_SIDE, Weights, missing_shard, shards_of,
};
use super::spec::HubFile;
use super::{FetchOptions, FilesInUse, ModelFiles, local};
use choice::{Choice, choose};
use client::{Client, Trouble};
use download::Download;
use layout::{CachedRepo, is_commit};

pub(super) use header::header;

/// A repository's GGUF file with the `tokenizer.json` beside it, or its files of safetensors, at one commit.
///
/// A file that is named and in the cache needs no network, nor does a whole snapshot of a commit that is named.
/// Errors: [`Error::Fetch`]; [`Error::Invalid`] for a repository with several files when none is named.
pub(super) fn fetch(
    spec: &HubFile,
    hashes: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    if let Some(files) = kept(spec, hashes, options)? {
        return Ok(files);
    }
    let cache = cache(options)?;
    let cached = CachedRepo::of(&cache, spec);
    if is_offline(options) {
        return in_cache(spec, &cached)?
            .ok_or_else(|| not_cached(spec))?
            .hashed(hashes);
    }
    let client = Client::new(&cache, options);
    progress(&format!("asking the hub about {}", spec.repo));
    let listing = match client.listing(spec) {
        Ok(listing) => listing,
        Err(trouble) => return without_network(spec, &cached, trouble, progress)?.hashed(hashes),
    };
    let siblings = listing.siblings.into_iter();
    let names: Vec<String> = siblings.map(|file| file.rfilename).collect();
    let choice = choose(spec, &names)?;
    let download = Download {
        client: &client,
        cached: &cached,
        spec,
        commit: &listing.sha,
        hashes,
    };
    let files = match choice {
        Choice::Gguf { file, tokenizer } => {
            let mut get = |name: &str| download.file(name, "", progress);
            let weights = get(&file)?;
            let tokenizer = tokenizer.as_deref().map(get).transpose()?;
            gguf(spec, &listing.sha, &file, weights, tokenizer)
        }
        Choice::Safetensors(weights) => {
            fetch_folder(&download, &weights, &names, progress)?;
            let folder = SafetensorsFolder::open(&cached.snapshot(&listing.sha))?;
            safetensors(spec, &listing.sha, folder)
        }
    };
    cached.note_commit(spec.revision(), &listing.sha)?;
    files.hashed(hashes)
}

/// The text side of a model, its index and its weights, in this order: what is small and may be wrong comes first.
fn fetch_folder(
    download: &Download,
    weights: &Weights,
    names: &[String],
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    download.file(CONFIG, "", progress)?;
    for name in TEXT_SIDE.into_iter().chain(ALSO_FETCHED) {
        if names.iter().any(|found| found == name) {
            download.file(name, "", progress)?;
        } else {
            download.cached.note_absent(download.commit, name)?;
        }
    }
    let shards: Vec<String> = match weights {
        Weights::Single(name) => {
            download.cached.note_absent(download.commit, INDEX)?;
            vec![name.clone()]
        }
        Weights::Indexed => {
            let index = download.file(INDEX, "", progress)?;
            let shards = shards_of(&index)?;
            if let Some(missing) = shards.iter().find(|shard| !names.contains(shard)) {
                return Err(missing_shard(&index, missing));
            }
            shards.into_iter().collect()
        }
    };
    for (number, shard) in shards.iter().enumerate() {
        let place = if shards.len() > 1 {
            format!("shard {} of {}: ", number + 1, shards.len())
        } else {
            String::new()
        };
        download.file(shard, &place, progress)?;
    }
    Ok(())
}

/// A model that the cache holds for certain as the hub has it: a file that is named, or all of a commit that is named.
///
/// Errors: [`Error::Unsupported`] for a name that is not that of a GGUF file, [`Error::Io`].
pub(super) fn kept(
    spec: &HubFile,
    hashes: &CacheFolder,
    options: &FetchOptions,
) -> Result<Option<ModelFiles>> {
    let found = kept_files(spec, &CachedRepo::of(&cache(options)?, spec))?;
    found.map(|files| files.hashed(hashes)).transpose()
}

/// As [`kept`], without the hash.
fn kept_files(spec: &HubFile, cached: &CachedRepo) -> Result<Option<ModelFiles>> {
    let Some(commit) = cached.commit(spec.revision()) else {
        return Ok(None);
    };
    let Some(file) = &spec.file else {
        if !is_commit(spec.revision()) || !is_whole(cached, &commit)? {
            return Ok(None);
        }
        let folder = SafetensorsFolder::open(&cached.snapshot(&commit)).ok();
        return Ok(folder.map(|folder| safetensors(spec, &commit, folder)));
    };
    let Some(weights) = cached.file(&commit, file)? else {
        return Ok(None);
    };
    choice::check_name(file)?;
    let tokenizer = cached.file(&commit, &choice::tokenizer_beside(file))?;
    Ok(Some(gguf(spec, &commit, file, weights, tokenizer)))
}

/// Whether every file that a model of safetensors may have is here, or is known not to exist.
fn is_whole(cached: &CachedRepo, commit: &str) -> Result<bool> {
    for name in TEXT_SIDE.into_iter().chain([INDEX]) {
        if cached.file(commit, name)?.is_none() && !cached.is_absent(commit, name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The model as far as the cache holds it.
fn in_cache(spec: &HubFile, cached: &CachedRepo) -> Result<Option<ModelFiles>> {
    let Some(commit) = cached.commit(spec.revision()) else {
        return Ok(None);
    };
    let names = cached.names(&commit);
    // Every file passes the check against links that lead out.
    for name in &names {
        cached.file(&commit, name)?;
    }
    if names.is_empty() {
        return Ok(None);
    }
    Ok(match choose(spec, &names)? {
        Choice::Gguf { file, tokenizer } => match cached.file(&commit, &file)? {
            None => None,
            Some(weights) => {
                let tokenizer = tokenizer.map(|name| cached.file(&commit, &name));
                let tokenizer = tokenizer.transpose()?.flatten();
                Some(gguf(spec, &commit, &file, weights, tokenizer))
            }
        },
        Choice::Safetensors(_) => {
            let folder = SafetensorsFolder::open(&cached.snapshot(&commit))?;
            Some(safetensors(spec, &commit, folder))
        }
    })
}

/// What the cache holds, where the hub does not answer.
fn without_network(
    spec: &HubFile,
    cached: &CachedRepo,
    trouble: Trouble,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    if let Trouble::Unreachable(said) = &trouble
        && let Ok(Some(files)) = in_cache(spec, cached)
    {
        let origin = &files.origin;
        progress(&format!(
            "the hub cannot be reached ({said}); its cache holds {origin}"
        ));
        return Ok(files);
    }
    Err(explain(spec, trouble))
}

fn gguf(
    spec: &HubFile,
    commit: &str,
    file: &str,
    weights: PathBuf,
    tokenizer_json: Option<PathBuf>,
) -> ModelFiles {
    ModelFiles {
        name: local::stem(Path::new(file)),
        sha256: String::new(),
        in_use: FilesInUse::default(),
        weights,
        tokenizer_json,
        origin: spec.at(commit, Some(file)).to_string(),
    }
}

fn safetensors(spec: &HubFile, commit: &str, folder: SafetensorsFolder) -> ModelFiles {
    let name = spec.repo.rsplit('/').next().unwrap_or_default();
    ModelFiles {
        name: name.to_owned(),
        sha256: String::new(),
        in_use: FilesInUse::default(),
        weights: folder.path,
        tokenizer_json: folder.tokenizer_json,
        origin: spec.at(commit, None).to_string(),
    }
}

/// The hub's cache; the crate would panic without a home folder.
fn cache(options: &FetchOptions) -> Result<Cache> {
    if let Some(folder) = &options.hub_cache {
        return Ok(Cache::new(folder.clone()));
    }
    if let Some(folder) = std::env::var_os("HF_HUB_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(Cache::new(folder.into()));
    }
    if std::env::var("HF_HOME").is_err() && dirs::home_dir().is_none() {
        let bound = "there is no home folder; set it to a folder";
        return Err(Error::invalid("HF_HOME", "not set", bound));
    }
    Ok(Cache::from_env())
}

/// Whether the hub must not be asked.
fn is_offline(options: &FetchOptions) -> bool {
    let said = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    options.offline || ["1", "true", "yes", "on"].contains(&said.to_lowercase().as_str())
}

fn not_cached(spec: &HubFile) -> Error {
    Error::Fetch {
        what: spec.to_string(),
        problem: "HF_HUB_OFFLINE is set, and the hub's cache does not hold it; unset it, or pass the path of a model \
                  of your own"
            .to_owned(),
    }
}

/// The error for a file that the hub gives no tag for.
fn unnamed(spec: &HubFile, name: &str) -> Error {
    let trouble = Trouble::Unsound(format!("the hub sends no tag with {name}"));
    explain(spec, trouble)
}

fn explain(spec: &HubFile, trouble: Trouble) -> Error {
    let problem = match trouble {
        Trouble::Refused(status @ (404 | 410)) => {
            format!("there is no such repository, revision or file (status {status})")
        }
        Trouble::Refused(status @ (401 | 403)) => format!(
            "the repository is private, gated or does not exist; accept its terms on the hub, and log in with \
             `hf auth login` or set HF_TOKEN (status {status})"
        ),
        Trouble::Refused(status) => format!("the hub failed with status {status}; try again later"),
        Trouble::Unsound(said) => format!("the hub's answer makes no sense: {said}"),
        Trouble::Unreachable(said) => format!(
            "the hub cannot be reached ({said}); check the network (HF_ENDPOINT names a mirror), \
             or pass the path of a model of your own"
        ),
    };
    Error::Fetch {
        what: spec.to_string(),
        problem,
    }
}
