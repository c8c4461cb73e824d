//! A file of a Hugging Face repository, in the hub's own cache and with its token.

use std::path::PathBuf;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::error::{Error, Result};

use super::spec::HubFile;
use super::{FetchOptions, ModelFiles, local, sha256_of_file};

/// The repository's GGUF file and, if it has one in the same folder, its `tokenizer.json`.
///
/// A file that is named and in the cache needs no network.
/// Errors: [`Error::Fetch`]; [`Error::Invalid`] for a repository with several files when none is named.
pub(super) fn fetch(
    spec: &HubFile,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<ModelFiles> {
    if let Some(files) = kept(spec, options)? {
        return Ok(files);
    }
    let cache = cache(options)?;
    let repo = Repo::new(spec.repo.clone(), RepoType::Model);
    let kept = cache.repo(repo.clone());
    let failed = |error: ApiError| explain(spec, &error);
    let api = api(cache, options).map_err(failed)?.repo(repo);
    progress(&format!("asking the hub about {}", spec.repo));
    let siblings = api.info().map_err(failed)?.siblings.into_iter();
    let names: Vec<String> = siblings.map(|file| file.rfilename).collect();
    let file = match &spec.file {
        Some(file) => file.clone(),
        None => only_weights(spec, &names)?,
    };
    check_name(&file)?;
    let mut get = |name: &str| match kept.get(name) {
        Some(path) => Ok(path),
        None => api
            .download_with_progress(name, Lines::new(progress))
            .map_err(failed),
    };
    let weights = get(&file)?;
    let tokenizer = Some(sibling(&file)).filter(|name| names.contains(name));
    let tokenizer = tokenizer.map(|name| get(&name)).transpose()?;
    files(spec, &file, weights, tokenizer)
}

/// The file, where it is named and in the hub's cache.
///
/// Errors: [`Error::Unsupported`] for a name that is not that of a GGUF file, [`Error::Io`].
pub(super) fn kept(spec: &HubFile, options: &FetchOptions) -> Result<Option<ModelFiles>> {
    let Some(file) = &spec.file else {
        return Ok(None);
    };
    let cache = cache(options)?;
    let repo = cache.repo(Repo::new(spec.repo.clone(), RepoType::Model));
    let Some(weights) = repo.get(file) else {
        return Ok(None);
    };
    check_name(file)?;
    files(spec, file, weights, repo.get(&sibling(file))).map(Some)
}

fn files(
    spec: &HubFile,
    file: &str,
    weights: PathBuf,
    tokenizer_json: Option<PathBuf>,
) -> Result<ModelFiles> {
    let origin = HubFile {
        repo: spec.repo.clone(),
        file: Some(file.to_owned()),
    }
    .to_string();
    Ok(ModelFiles {
        name: local::stem(&weights),
        sha256: sha256_of_file(&weights)?,
        weights,
        tokenizer_json,
        origin,
    })
}

/// The hub's cache; the crate would panic without a home folder.
fn cache(options: &FetchOptions) -> Result<Cache> {
    if let Some(folder) = &options.hub_cache {
        return Ok(Cache::new(folder.clone()));
    }
    if std::env::var("HF_HOME").is_err() && dirs::home_dir().is_none() {
        let bound = "there is no home folder; set it to a folder";
        return Err(Error::invalid("HF_HOME", "not set", bound));
    }
    Ok(Cache::from_env())
}

fn api(cache: Cache, options: &FetchOptions) -> std::result::Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_cache(cache)
        .with_progress(false)
        .with_retries(2);
    let from_env = || std::env::var("HF_ENDPOINT").ok();
    let endpoint = options.hub_endpoint.clone().or_else(from_env);
    if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) {
        builder = builder.with_endpoint(endpoint);
    }
    // The crate reads only the token file; the hub's other tools let the variable win.
    if let Ok(token) = std::env::var("HF_TOKEN")
        && !token.is_empty()
    {
        builder = builder.with_token(Some(token));
    }
    builder.build()
}

/// The only GGUF file in a repository.
fn only_weights(spec: &HubFile, names: &[String]) -> Result<String> {
    let weights = names
        .iter()
        .filter(|name| name.to_lowercase().ends_with(".gguf"));
    let refused = |bound: String| Error::invalid("the model", spec.to_string(), bound);
    match *weights.collect::<Vec<_>>() {
        [only] => Ok(only.clone()),
        [] if names.iter().any(|name| name.ends_with(".safetensors")) => Err(Error::Unsupported {
            what: "weight format",
            found: format!("safetensors in {spec}"),
            supported: "GGUF for now (many repositories have a sister with -GGUF in its name)"
                .into(),
        }),
        [] => Err(refused("there is no .gguf file in it".into())),
        ref several => {
            let list: Vec<_> = several
                .iter()
                .map(|name| format!("{spec}/{name}"))
                .collect();
            let (count, list) = (list.len(), list.join("\n  "));
            Err(refused(format!(
                "it holds {count} GGUF files; choose one:\n  {list}"
            )))
        }
    }
}

fn check_name(file: &str) -> Result<()> {
    if !file.to_lowercase().ends_with(".gguf") {
        return Err(Error::Unsupported {
            what: "weight file",
            found: file.to_owned(),
            supported: "files that end in .gguf".into(),
        });
    }
    local::refuse_parts(file)
}

/// The `tokenizer.json` in the folder of `file`.
fn sibling(file: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/tokenizer.json"),
        None => "tokenizer.json".to_owned(),
    }
}

fn explain(spec: &HubFile, error: &ApiError) -> Error {
    let said = error.to_string();
    let advice = if said.contains("404") {
        "there is no such repository or file"
    } else if said.contains("401") || said.contains("403") {
        "the repository is private, gated or does not exist; accept its terms on the hub, and log in with \
         `hf auth login` or set HF_TOKEN"
    } else {
        "the hub cannot be reached or failed; check the network (HF_ENDPOINT names a mirror). A file that is in \
         the hub's cache is found without network if it is named (hf:org/repo/file), \
         or pass the path of a GGUF file of your own"
    };
    Error::Fetch {
        what: spec.to_string(),
        problem: format!("{advice} ({said})"),
    }
}

/// Reports a download in tenths.
struct Lines<'a> {
    progress: &'a mut dyn FnMut(&str),
    name: String,
    total: usize,
    done: usize,
    tenth: usize,
}

impl<'a> Lines<'a> {
    fn new(progress: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            progress,
            name: String::new(),
            total: 0,
            done: 0,
            tenth: 0,
        }
    }
}

impl Progress for Lines<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        // The crate starts over for each attempt, with what it has kept of the last.
        self.done = 0;
        if self.total == size && self.name == filename {
            return;
        }
        (self.name, self.total) = (filename.to_owned(), size);
        (self.progress)(&format!("downloading {filename} ({} MB)", size / 1_000_000));
    }

    fn update(&mut self, size: usize) {
        self.done = self.done.saturating_add(size);
        let tenth = self.done.saturating_mul(10).checked_div(self.total);
        let tenth = tenth.unwrap_or(0);
        if tenth > self.tenth && tenth < 10 {
            self.tenth = tenth;
            (self.progress)(&format!("downloading {}: {} %", self.name, tenth * 10));
        }
    }

    fn finish(&mut self) {}
}
