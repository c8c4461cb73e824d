//! The default model, loaded once for a test file, and the prompts that references were made on.

use std::sync::OnceLock;

use candle_core::{DType, Device};
use kvprof::model::{Model, source};
use serde::Deserialize;

/// SmolLM2-135M in float32 on the CPU, downloaded into the cache on first use.
pub fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let cache = source::CacheFolder::from_env().unwrap();
        let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
        Model::load(files, &Device::Cpu, DType::F32).unwrap()
    })
}

/// Path of a fixture.
#[allow(dead_code)] // Not every test file that loads the model reads one.
pub fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Token ids of a prompt of the reference.
#[allow(dead_code)]
pub fn prompt_ids(prompt: &str) -> Vec<u32> {
    #[derive(Deserialize)]
    struct Prompt {
        ids: Vec<u32>,
    }
    let text = std::fs::read_to_string(fixture(&format!("oracle/{prompt}.json"))).unwrap();
    serde_json::from_str::<Prompt>(&text).unwrap().ids
}
