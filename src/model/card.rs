//! What can be told of a model from its header, without anything that running it needs.

use super::chat::ChatTemplate;
use super::config::ModelConfig;
use super::gguf::Gguf;
use super::header::{CONFIG, TOKENIZER, require_tokenizer};
use super::json_fields::JsonFields;
use super::source::ModelFiles;
use super::tokenizer::TokenSummary;
use super::weights::{Checkpoint, TensorGroup, TensorSource};
use crate::error::Result;

/// A model as its files describe it.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// The model's geometry.
    pub config: ModelConfig,
    /// Its vocabulary.
    pub tokens: TokenSummary,
    /// Whether it says how a conversation is written.
    pub has_chat_template: bool,
    /// Its tensors by number format, those with most bytes first.
    pub tensors: Vec<TensorGroup>,
}

impl ModelCard {
    /// Reads headers, and of the tokenizer what its ids mean.
    ///
    /// Errors: whatever reading the files returns.
    pub fn read(files: &ModelFiles) -> Result<Self> {
        let path = &files.weights;
        if path.is_dir() {
            let config = ModelConfig::from_json(&JsonFields::read(&path.join(CONFIG))?)?;
            let mut checkpoint = Checkpoint::open(path)?;
            checkpoint.belong_to(config.family);
            require_tokenizer(path)?;
            return Ok(Self {
                config,
                tokens: TokenSummary::of_file(&path.join(TOKENIZER))?,
                has_chat_template: ChatTemplate::source_in(path)?.is_some(),
                tensors: checkpoint.groups(),
            });
        }
        let mut gguf = Gguf::open(path)?;
        Ok(Self {
            config: ModelConfig::from_gguf(&mut gguf)?,
            tokens: TokenSummary::of_gguf(&gguf)?,
            has_chat_template: gguf.text_opt("tokenizer.chat_template").is_some(),
            tensors: gguf.groups(),
        })
    }
}
