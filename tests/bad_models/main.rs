//! What is no sound model is refused: with the file, the tensor or key at fault, and the way out where there is one.
//! Nothing panics, and nothing is allocated because a header says so.
#![allow(clippy::unwrap_used)]

#[path = "../binary/mod.rs"]
mod binary;
#[path = "../family_models/mod.rs"]
mod family_models;

mod commands;
mod configs;
mod gguf_files;
mod headers;
mod random;
mod text_side;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use kvprof::error::Error;
use kvprof::model::ModelHeader;
use kvprof::model::attention::NoProbe;
use kvprof::model::precision::Precision;
use kvprof::model::source::{self, CacheFolder};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of a fixture's folder, to be damaged.
struct Folder(TempDir);

/// A tensor of a checkpoint: name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

impl Folder {
    /// The Hugging Face folder of a family, without its GGUF file.
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(family_models::folder().join(name)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap();
            if file != "model.gguf" && file != "golden.json" {
                fs::copy(&path, folder.path().join(file)).unwrap();
            }
        }
        Self(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).unwrap();
    }

    /// Changes a JSON file.
    fn json(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        change(&mut value);
        self.write(file, value.to_string());
    }

    /// Changes the tensors of `model.safetensors`.
    fn tensors(&self, change: impl FnOnce(&mut Vec<Stored>)) {
        let path = self.path("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let all = SafeTensors::deserialize(&bytes).unwrap();
        let mut stored: Vec<Stored> = all
            .iter()
            .map(|(name, t)| {
                (
                    name.to_owned(),
                    t.dtype(),
                    t.shape().to_vec(),
                    t.data().to_vec(),
                )
            })
            .collect();
        change(&mut stored);
        fs::write(path, safetensors_file(&stored)).unwrap();
    }

    /// Changes one tensor of `model.safetensors`.
    fn tensor(&self, name: &str, change: impl FnOnce(&mut Stored)) {
        self.tensors(|all| change(all.iter_mut().find(|t| t.0 == name).unwrap()));
    }

    /// Finds the model as a command does, loads it and runs it.
    fn run(&self) -> Result<(), Error> {
        run(self.0.path())
    }

    /// What is said of it.
    fn error(&self) -> String {
        self.run().unwrap_err().to_string()
    }
}

/// The bytes of a safetensors file.
fn safetensors_file(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
    }
    let header = Value::from(header).to_string();
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Finds a model as a command does, loads it and runs it on a few tokens.
fn run(path: &Path) -> Result<(), Error> {
    let cache = tempfile::tempdir().unwrap();
    let cache = CacheFolder::at(cache.path());
    let files = source::resolve(path.to_str().unwrap(), &cache, &mut |_| ())?;
    let model = ModelHeader::open(files)?.load(&Device::Cpu, Precision::of(DType::F32)?)?;
    let mut ids = model.tokenizer.encode_with_bos("a river")?;
    ids.truncate(4);
    let mut cache = model.decoder.new_cache(8)?;
    (model.decoder).prefill(&ids, &mut cache, 2, &mut NoProbe)?;
    model.decoder.decode(ids[0], &mut cache).map(drop)
}

/// Refuses a message without all of these parts.
fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "'{part}' is missing: {said}");
    }
    assert_eq!(said.trim().lines().count(), 1, "more than a line: {said}");
}

#[test]
fn the_folders_themselves_run() {
    for family in family_models::folders() {
        Folder::of(&family.name).run().unwrap();
    }
    // Where the data begins is nothing that numbers depend on.
    let folder = Folder::of("llama_bf16");
    let bytes = fs::read(folder.path("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap());
    let (header, data) = rest.split_at(length as usize);
    for spaces in 1..8 {
        let length = (length + spaces).to_le_bytes();
        let spaces = vec![b' '; spaces as usize];
        folder.write(
            "model.safetensors",
            [&length, header, &spaces, data].concat(),
        );
        folder.run().unwrap();
    }
}
