//! Everything of a model but its weights.

use candle_core::{DType, Device};

use super::chat::ChatTemplate;
use super::config::ModelConfig;
use super::decoder::Decoder;
use super::gguf::Gguf;
use super::loaded::{Model, tokenizer_of};
use super::precision::Precision;
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
    gguf: Gguf,
}

/// Bytes of the weights of a model before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightRoom {
    /// All, as they will lie in memory.
    pub held: usize,
    /// What reading the largest of them takes besides, while it is unpacked.
    pub unpacking: usize,
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
    pub fn weight_room(&self, device: &Device, dtype: DType) -> WeightRoom {
        self.gguf.weight_room(device, dtype)
    }

    /// Reads the weights onto a device.
    ///
    /// Errors: whatever reading them returns.
    pub fn load(mut self, device: &Device, precision: Precision) -> Result<Model> {
        let mut decoder = Decoder::load(&mut self.gguf, self.config, device, precision.dtype)?;
        decoder.hold_as(precision.cache);
        Ok(Model {
            files: self.files,
            tokenizer: self.tokenizer,
            chat: self.chat,
            decoder,
        })
    }
}
