//! Fetching without a network: a script in Python's place, a server on this machine in the hub's.

mod hub;
mod in_use;
#[cfg(unix)]
mod pip;

use std::fs;
use std::path::Path;

use super::*;
use crate::error::Error;

fn quiet() -> impl FnMut(&str) {
    |_: &str| {}
}

fn local_error(path: &Path) -> String {
    resolve(
        path.to_str().unwrap(),
        &CacheFolder::at("unused"),
        &mut quiet(),
    )
    .unwrap_err()
    .to_string()
}

#[test]
fn files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("Some-Model.Q8_0.gguf");
    assert!(local_error(folder.path()).contains("no .gguf file"));
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    let pickled = local_error(folder.path());
    assert!(
        pickled.contains("pytorch_model.bin of the folder"),
        "{pickled}"
    );
    let shard = folder.path().join("model.safetensors");
    fs::write(&shard, "").unwrap();
    assert!(local_error(folder.path()).contains("no config.json"));
    assert!(local_error(&shard).contains("pass the folder"));
    fs::write(&weights, "GGUF").unwrap();

    let find = |path: &Path| {
        resolve(
            path.to_str().unwrap(),
            &CacheFolder::at("unused"),
            &mut quiet(),
        )
        .unwrap()
    };
    let found = find(folder.path());
    assert_eq!(
        (found.name.as_str(), &found.weights),
        ("Some-Model.Q8_0", &weights)
    );
    assert_eq!(
        found.origin,
        fs::canonicalize(&weights).unwrap().display().to_string()
    );
    assert_eq!(found.tokenizer_json, None);
    fs::write(folder.path().join("tokenizer.json"), "").unwrap();
    assert_eq!(
        find(&weights).tokenizer_json,
        Some(folder.path().join("tokenizer.json"))
    );

    // Safetensors beside GGUF files do not matter.
    fs::write(folder.path().join("b.GGUF"), "").unwrap();
    let several = local_error(folder.path());
    assert!(
        several.contains("2 GGUF files") && several.contains("Some-Model.Q8_0.gguf, b.GGUF"),
        "{several}"
    );
    let part = folder.path().join("m-00001-of-00003.gguf");
    fs::write(&part, "").unwrap();
    assert!(local_error(&part).contains("models in one file"));
}

#[test]
fn missing_files_and_unknown_names() {
    assert!(local_error(Path::new("no/such.gguf")).contains("cannot open no/such.gguf"));
    assert!(local_error(Path::new("such.gguf")).contains("cannot open such.gguf"));
    let unknown = local_error(Path::new("smollm"));
    assert!(
        unknown.contains("unknown model 'smollm'") && unknown.contains("smollm2-135m"),
        "{unknown}"
    );
}

#[test]
fn named_models_are_well_formed() {
    for model in MODELS {
        assert!(!model.places.is_empty() && model.sha256.len() == 64);
        for place in model.places {
            let spec = spec::Spec::parse(place).unwrap();
            assert!(matches!(spec, Spec::Wheel(_) | Spec::Hub(_)), "{place}");
        }
    }
}

#[test]
fn hashes_are_those_of_the_standard() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("abc");
    fs::write(&file, "abc").unwrap();
    assert_eq!(
        sha256_of_file(&file).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    // Files of other people get no record beside them.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(sha256_of_file(folder.path()).is_err());
}
