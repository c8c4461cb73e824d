//! Everything of a model but its weights.

use candle_core::{DType, Device};

use super::chat::ChatTemplate;
use super::config::ModelConfig;
use super::gguf::{Gguf, WeightMemory};
use super::source::ModelFiles;
use super::tokenizer::Tokenizer;
use crate::error::Result;

/// A model whose weights were not read: what prompts are made with, and what can be known beforehand.
pub struct ModelHeader {
    /// Where it came from.
    pub files: ModelFiles,
    /// The model's geometry.
    pub config: ModelConfig,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// How a conversation is written; `None` for base models.
    pub chat: Option<ChatTemplate>,
    pub(super) gguf: Gguf,
}

impl ModelHeader {
    /// Reads the header of a weight file, tokenizer and chat template.
    ///
    /// Errors: whatever reading the file or its tokenizer returns.
    pub fn open(files: ModelFiles) -> Result<Self> {
        let mut gguf = Gguf::open(&files.weights)?;
        let config = ModelConfig::from_gguf(&mut gguf)?;
        let tokenizer = tokenizer_of(&files, &gguf)?;
        let chat = ChatTemplate::of_model(&gguf, &tokenizer)?;
        Ok(Self {
            files,
            config,
            tokenizer,
            chat,
            gguf,
        })
    }

    /// What the weights will take on a device.
    pub fn weight_memory(&self, device: &Device, dtype: DType) -> WeightMemory {
        self.gguf.weight_memory(device, dtype)
    }
}

/// The tokenizer of a model: `tokenizer.json` beside the weights if there is one, else the GGUF's own.
///
/// Errors: whatever reading either returns.
pub fn tokenizer_of(files: &ModelFiles, gguf: &Gguf) -> Result<Tokenizer> {
    match &files.tokenizer_json {
        Some(path) => Tokenizer::from_file(path, Some(gguf)),
        None => Tokenizer::from_gguf(gguf),
    }
}
