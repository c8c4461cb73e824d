//! Everything of a model but its weights.

use std::path::Path;

use candle_core::{DType, Device};

use super::chat::ChatTemplate;
use super::config::ModelConfig;
use super::gguf::{Gguf, WeightMemory};
use super::json_fields::JsonFields;
use super::source::{FilesInUse, ModelFiles};
use super::tokenizer::Tokenizer;
use super::weights::{Checkpoint, TensorSource};
use crate::error::{Error, Result};

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
    pub(super) weights: WeightFiles,
}

/// The files that hold a model's weights.
pub(super) enum WeightFiles {
    /// One GGUF file.
    Gguf(Box<Gguf>),
    /// The safetensors of a Hugging Face folder.
    Checkpoint(Checkpoint),
}

impl WeightFiles {
    /// What their headers say.
    fn described(&self) -> &dyn TensorSource {
        match self {
            Self::Gguf(gguf) => &**gguf,
            Self::Checkpoint(checkpoint) => checkpoint,
        }
    }

    /// The tensors in them.
    pub(super) fn tensors(&mut self) -> &mut dyn TensorSource {
        match self {
            Self::Gguf(gguf) => &mut **gguf,
            Self::Checkpoint(checkpoint) => checkpoint,
        }
    }
}

impl ModelHeader {
    /// Reads the header of the weights, tokenizer and chat template.
    ///
    /// Errors: whatever reading the file or its tokenizer returns; [`Error::Format`] for files that changed since they
    /// were hashed.
    pub fn open(files: ModelFiles) -> Result<Self> {
        let mut header = if files.weights.is_dir() {
            Self::open_folder(files)
        } else {
            Self::open_gguf(files)
        }?;
        if header.files.in_use.is_empty() {
            header.files.in_use = FilesInUse::now(header.files.weight_files()?)?;
        }
        header.files.in_use.check()?;
        Ok(header)
    }

    fn open_gguf(files: ModelFiles) -> Result<Self> {
        let mut gguf = Gguf::open(&files.weights)?;
        if let Some(cache) = files.in_use.cache() {
            gguf.recall(cache);
        }
        let config = ModelConfig::from_gguf(&mut gguf)?;
        let tokenizer = of_gguf(&files, &gguf)?;
        let chat = ChatTemplate::of_gguf(&gguf, &tokenizer)?;
        Ok(Self {
            files,
            config,
            tokenizer,
            chat,
            weights: WeightFiles::Gguf(Box::new(gguf)),
        })
    }

    fn open_folder(files: ModelFiles) -> Result<Self> {
        let folder = &files.weights;
        let config = ModelConfig::from_json(&JsonFields::read(&folder.join(CONFIG))?)?;
        let mut checkpoint = Checkpoint::open(folder)?;
        checkpoint.belong_to(config.family);
        if let Some(cache) = files.in_use.cache() {
            checkpoint.recall(cache);
        }
        let tokenizer = of_folder(folder)?;
        check_vocabulary(&tokenizer, &config, folder)?;
        let chat = ChatTemplate::of_folder(folder, &tokenizer)?;
        Ok(Self {
            config,
            tokenizer,
            chat,
            weights: WeightFiles::Checkpoint(checkpoint),
            files,
        })
    }

    /// What the weights will take on a device.
    pub fn weight_memory(&self, device: &Device, dtype: DType) -> WeightMemory {
        self.weights.described().weight_memory(device, dtype)
    }
}

/// How a model reads and writes text, without anything else of it.
///
/// Errors: whatever reading its files returns.
pub fn text_side_of(files: &ModelFiles) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    let path = &files.weights;
    if path.is_dir() {
        let tokenizer = of_folder(path)?;
        let chat = ChatTemplate::of_folder(path, &tokenizer)?;
        return Ok((tokenizer, chat));
    }
    let gguf = Gguf::open(path)?;
    let tokenizer = of_gguf(files, &gguf)?;
    let chat = ChatTemplate::of_gguf(&gguf, &tokenizer)?;
    Ok((tokenizer, chat))
}

/// The geometry of a model, without anything else of it.
///
/// Errors: whatever reading its files returns.
pub fn config_of(files: &ModelFiles) -> Result<ModelConfig> {
    let path = &files.weights;
    if path.is_dir() {
        ModelConfig::from_json(&JsonFields::read(&path.join(CONFIG))?)
    } else {
        ModelConfig::from_gguf(&mut Gguf::open(path)?)
    }
}

/// Name of the file that holds a folder's geometry.
pub(super) const CONFIG: &str = "config.json";
/// Name of the file that holds a folder's vocabulary.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// `tokenizer.json` beside the weights if there is one, else the GGUF's own.
fn of_gguf(files: &ModelFiles, gguf: &Gguf) -> Result<Tokenizer> {
    match &files.tokenizer_json {
        Some(path) => Tokenizer::from_file(path, Some(gguf)),
        None => Tokenizer::from_gguf(gguf),
    }
}

fn of_folder(folder: &Path) -> Result<Tokenizer> {
    require_tokenizer(folder)?;
    Tokenizer::from_file(&folder.join(TOKENIZER), None)
}

/// Refuses a folder whose vocabulary is nowhere to be found.
pub(super) fn require_tokenizer(folder: &Path) -> Result<()> {
    if folder.join(TOKENIZER).is_file() {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "tokenizer",
        found: format!("none in {}", folder.display()),
        supported: "folders with a tokenizer.json (transformers' save_pretrained writes one)"
            .into(),
    })
}

/// A tokenizer may leave rows of the embedding unused, but needs one for every token that is not special: those of other
/// modes are sometimes listed in models that only read text.
fn check_vocabulary(tokenizer: &Tokenizer, config: &ModelConfig, folder: &Path) -> Result<()> {
    let (known, rows) = (tokenizer.plain_tokens(), config.vocab_size);
    if known <= rows {
        return Ok(());
    }
    let problem = format!(
        "has {known} tokens, but the weights embed {rows} (vocab_size in config.json); it belongs to another model"
    );
    Err(Error::format(&folder.join(TOKENIZER), problem))
}
