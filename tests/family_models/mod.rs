//! The tiny models of every family (fixtures/families), in every format that they come in.

use std::path::PathBuf;

use candle_core::{DType, Device};
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

    /// Loaded on the CPU.
    pub fn load(&self, dtype: DType) -> Model {
        let files = ModelFiles {
            name: self.name.clone(),
            weights: self.weights.clone(),
            tokenizer_json: None,
            origin: self.weights.display().to_string(),
            sha256: String::new(),
        };
        Model::load(files, &Device::Cpu, dtype).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }
}

/// The folder of all of them.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families")
}

/// Every model in every format.
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
