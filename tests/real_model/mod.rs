//! The default model, loaded once for a test file, and the prompts that references were made on.

use std::sync::OnceLock;

use candle_core::{DType, Device};
use kvprof::model::{Model, source};
use serde::Deserialize;

/// A model in float32 on the CPU, downloaded into the cache on first use.
pub fn load(name: &str) -> Model {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve(name, &cache, &mut |_| ()).unwrap();
    Model::load(files, &Device::Cpu, DType::F32).unwrap()
}

/// SmolLM2-135M.
pub fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load("smollm2-135m"))
}

/// Path of a fixture.
#[allow(dead_code)] // Not every test file that loads the model reads one.
pub fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Token ids of a prompt of SmolLM2's reference.
#[allow(dead_code)]
pub fn prompt_ids(prompt: &str) -> Vec<u32> {
    ids_of("oracle", prompt)
}

/// Token ids of a prompt of the reference in a folder.
#[allow(dead_code)]
pub fn ids_of(folder: &str, prompt: &str) -> Vec<u32> {
    #[derive(Deserialize)]
    struct Prompt {
        ids: Vec<u32>,
    }
    let text = std::fs::read_to_string(fixture(&format!("{folder}/{prompt}.json"))).unwrap();
    serde_json::from_str::<Prompt>(&text).unwrap().ids
}
