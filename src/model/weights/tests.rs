//! What is remembered of weight files, and when it is not believed.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};

use super::{Checkpoint, TensorSource};
use crate::error::{Error, Result};
use crate::model::gguf::Gguf;
use crate::model::source::CacheFolder;

/// A GGUF file of two packed matrices, and a cache that remembers small files.
struct Stage {
    folder: tempfile::TempDir,
    cache: CacheFolder,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFolder::at(folder.path().join("cache")).remembering_from(0);
        let stage = Self { folder, cache };
        stage.write(1.0);
        stage
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("t.gguf")
    }

    fn write(&self, scale: f32) {
        let values: Vec<f32> = (0..64).map(|i| scale * (i as f32).sin()).collect();
        let tensor = Tensor::from_vec(values, (2, 32), &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
        let mut file = File::create(self.file()).unwrap();
        gguf_file::write(&mut file, &[], &[("a", &tensor), ("b", &tensor)]).unwrap();
    }

    /// Makes the first scale of the second tensor infinite, in place.
    fn damage(&self) {
        let path = self.file();
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        let content = gguf_file::Content::read(&mut file).unwrap();
        let place = content.tensor_data_offset + content.tensor_infos["b"].offset;
        file.seek(SeekFrom::Start(place)).unwrap();
        file.write_all(&[0, 0x7c]).unwrap();
    }

    fn open(&self, cache: &CacheFolder) -> Gguf {
        let mut gguf = Gguf::open(&self.file()).unwrap();
        gguf.recall(cache);
        gguf
    }

    /// Reads both tensors, and remembers them if they are finite.
    fn read(&self, cache: &CacheFolder) -> Result<()> {
        let mut gguf = self.open(cache);
        take(&mut gguf, "a")?;
        take(&mut gguf, "b")?;
        gguf.remember_finite();
        Ok(())
    }

    fn records(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(self.cache.path().join("finite"));
        found
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect()
    }
}

fn take(source: &mut dyn TensorSource, name: &str) -> Result<()> {
    source.matrix(name, 2, 32, &Device::Cpu, DType::F32)?;
    Ok(())
}

fn is_named(result: Result<()>, name: &str) -> bool {
    match result {
        Err(Error::NotFinite { place, .. }) => place.starts_with(&format!("tensor {name} of")),
        _ => false,
    }
}

#[test]
fn a_damaged_tensor_is_where_the_test_damages_it() {
    let stage = Stage::new();
    stage.damage();
    let mut gguf = stage.open(&stage.cache);
    take(&mut gguf, "a").unwrap();
    assert!(is_named(take(&mut gguf, "b"), "b"));
    // It is not finite for being asked for again.
    assert!(is_named(take(&mut gguf, "b"), "b"));
}

#[test]
fn what_was_found_finite_is_not_looked_through_again() {
    let stage = Stage::new();
    stage.read(&stage.cache).unwrap();
    assert_eq!(stage.records().len(), 1);
    // The record was taken over before the damage, which the mapping shows at once.
    let mut gguf = stage.open(&stage.cache);
    let mut forgetful = Gguf::open(&stage.file()).unwrap();
    stage.damage();
    take(&mut gguf, "b").unwrap();
    assert!(is_named(take(&mut forgetful, "b"), "b"));
}

#[test]
fn within_a_process_a_tensor_is_looked_through_once() {
    let stage = Stage::new();
    let mut gguf = Gguf::open(&stage.file()).unwrap();
    take(&mut gguf, "b").unwrap();
    stage.damage();
    take(&mut gguf, "b").unwrap();
}

#[test]
fn nothing_is_remembered_before_all_has_been_read_or_of_a_file_that_changed() {
    let stage = Stage::new();
    let mut gguf = stage.open(&stage.cache);
    take(&mut gguf, "a").unwrap();
    assert!(stage.records().is_empty());
    gguf.remember_finite();
    // A model that takes more of the file than the last one did looks through the rest.
    let mut more = stage.open(&stage.cache);
    stage.damage();
    take(&mut more, "a").unwrap();
    assert!(is_named(take(&mut more, "b"), "b"));
    assert!(
        stage.records().is_empty(),
        "what was not finite is forgotten"
    );

    stage.write(2.0);
    let mut gguf = stage.open(&stage.cache);
    take(&mut gguf, "a").unwrap();
    stage.write(3.0);
    gguf.remember_finite();
    assert!(stage.records().is_empty(), "it is no longer that file");
}

#[cfg(unix)]
#[test]
fn a_file_with_length_and_time_of_the_old_one_is_another() {
    let stage = Stage::new();
    let times = fs::metadata(stage.file()).unwrap().modified().unwrap();
    let set_back = || {
        let file = File::options().write(true).open(stage.file()).unwrap();
        file.set_modified(times).unwrap();
    };
    // Changed in place: the system's own time of change tells.
    stage.read(&stage.cache).unwrap();
    stage.damage();
    set_back();
    assert!(is_named(stage.read(&stage.cache), "b"));
    // Replaced: the inode tells as well.
    stage.write(1.0);
    set_back();
    stage.read(&stage.cache).unwrap();
    let other = stage.folder.path().join("other");
    fs::copy(stage.file(), &other).unwrap();
    fs::rename(&other, stage.file()).unwrap();
    stage.damage();
    set_back();
    assert!(is_named(stage.read(&stage.cache), "b"));
}

#[test]
fn verifying_looks_again_and_forgets_what_was_not_true() {
    let stage = Stage::new();
    stage.damage();
    // As if the damage had come unseen, after the file had been found finite.
    let mut checks = super::finite_checks::FiniteChecks::of(
        &stage.file(),
        crate::model::source::FileStamp::of(&stage.file()).unwrap(),
    );
    checks.recall(&stage.cache);
    for name in ["a", "b"] {
        assert!(checks.needs_check(name));
        assert!(checks.is_finite(name, || Ok(true)).unwrap());
    }
    checks.finish();
    stage.read(&stage.cache).unwrap();
    assert!(is_named(stage.read(&stage.cache.clone().verifying()), "b"));
    assert!(is_named(stage.read(&stage.cache), "b"));

    stage.write(1.0);
    stage.read(&stage.cache.clone().verifying()).unwrap();
    assert_eq!(stage.records().len(), 1, "and remembers what is");
}

#[test]
fn small_files_and_unreadable_records_are_looked_through() {
    let stage = Stage::new();
    stage.read(&CacheFolder::at(stage.cache.path())).unwrap();
    assert!(stage.records().is_empty());
    stage.read(&stage.cache).unwrap();
    for text in ["", "{}", "[1]"] {
        fs::write(&stage.records()[0], text).unwrap();
        stage.read(&stage.cache).unwrap();
        let record = fs::read_to_string(&stage.records()[0]).unwrap();
        assert!(record.contains(r#""tensors":["a","b"]"#), "{record}");
    }
}

#[test]
fn shards_are_remembered_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = CacheFolder::at(folder.path().join("cache")).remembering_from(0);
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let write = |file: &str, name: &str, value: f32| {
        let tensor = Tensor::full(value, (2, 32), &Device::Cpu).unwrap();
        let tensor = tensor.to_dtype(DType::BF16).unwrap();
        let tensors = std::collections::HashMap::from([(name, tensor)]);
        candle_core::safetensors::save(&tensors, folder.path().join(file)).unwrap();
    };
    let open = |folder: &Path| {
        let mut checkpoint = Checkpoint::open(folder).unwrap();
        checkpoint.recall(&cache);
        checkpoint
    };
    // A sum of these numbers would not be finite, each of them is.
    write("1.safetensors", "a", 3e38);
    write("2.safetensors", "b", 1.0);
    let mut checkpoint = open(folder.path());
    for name in ["a", "b"] {
        take(&mut checkpoint, name).unwrap();
    }
    checkpoint.remember_finite();
    let records = || fs::read_dir(cache.path().join("finite")).unwrap().count();
    assert_eq!(records(), 2);
    write("2.safetensors", "b", f32::NAN);
    let mut checkpoint = open(folder.path());
    take(&mut checkpoint, "a").unwrap();
    assert!(is_named(take(&mut checkpoint, "b"), "b"));
    assert_eq!(records(), 1, "the other shard is still known");
}
