//! The tiny models of every family (fixtures/families), in every format that they come in.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kvprof::model::Model;
use kvprof::model::source::ModelFiles;

/// One of them in one format.
#[derive(Clone, Debug)]
pub struct FamilyModel {
    /// Its folder.
    pub name: String,
    /// The folder itself, or the GGUF file in it.
    pub weights: PathBuf,
}

impl FamilyModel {
    /// Whether it is the GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.weights.is_file()
    }

    /// Its files.
    pub fn files(&self) -> ModelFiles {
        ModelFiles {
            name: self.name.clone(),
            weights: self.weights.clone(),
            tokenizer_json: None,
            origin: self.weights.display().to_string(),
            sha256: String::new(),
            in_use: Default::default(),
        }
    }

    /// Loaded on the CPU.
    pub fn load(&self, dtype: DType) -> Model {
        Model::load(self.files(), &Device::Cpu, dtype).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }
}

/// The folder of all of them.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families")
}

/// Every model once, as its folder.
// Not every test file that loads them needs everything here.
#[allow(dead_code)]
pub fn folders() -> Vec<FamilyModel> {
    let mut folders = all();
    folders.retain(|model| !model.is_gguf());
    assert!(folders.len() >= 13, "{}", folders.len());
    folders
}

/// Runs a check on every model, as its folder, in float32.
#[allow(dead_code)]
pub fn each(check: impl Fn(&str, &Model)) {
    for family in folders() {
        check(&family.name, &family.load(DType::F32));
    }
}

/// Token ids of any length, none of them special.
#[allow(dead_code)]
pub fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens)
        .map(|i| ((i * 37 + i * i * 11) % 290) as u32)
        .collect()
}

/// The numbers of a tensor in a row.
#[allow(dead_code)]
pub fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Refuses numbers that are farther apart than `share` of the largest of them.
#[allow(dead_code)]
pub fn assert_close(a: &[f32], b: &[f32], share: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let largest = a.iter().fold(0f32, |most, x| most.max(x.abs()));
    let gaps = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let worst = gaps.fold(0f32, f32::max);
    assert!(
        worst <= share * largest,
        "{what}: {worst} apart, of {largest}"
    );
}

/// Every model in every format.
#[allow(dead_code)]
pub fn all() -> Vec<FamilyModel> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for weights in [path.clone(), path.join("model.gguf")] {
            if weights.exists() {
                let name = name.clone();
                found.push(FamilyModel { name, weights });
            }
        }
    }
    found.sort_by(|a, b| a.weights.cmp(&b.weights));
    found
}
