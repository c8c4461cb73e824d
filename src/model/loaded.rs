//! A model ready to run: tokenizer, chat template and decoder of one weight file.

use candle_core::{DType, Device};

use super::chat::{ChatTemplate, Message};
use super::decoder::Decoder;
use super::header::ModelHeader;
use super::precision::Precision;
use super::source::ModelFiles;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Text side and tensor side of one model.
pub struct Model {
    /// Where it came from.
    pub files: ModelFiles,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// How a conversation is written; `None` for base models.
    pub chat: Option<ChatTemplate>,
    /// The weights.
    pub decoder: Decoder,
}

impl ModelHeader {
    /// Reads the weights onto a device.
    ///
    /// Errors: whatever reading them returns.
    pub fn load(mut self, device: &Device, precision: Precision) -> Result<Model> {
        let decoder = Decoder::load(self.weights.tensors(), self.config, device, precision)?;
        Ok(Model {
            files: self.files,
            tokenizer: self.tokenizer,
            chat: self.chat,
            decoder,
        })
    }
}

impl Model {
    /// Reads a model onto a device, to compute in `dtype` and to hold keys and values in it.
    ///
    /// Errors: whatever reading the file, its tokenizer or its weights returns.
    pub fn load(files: ModelFiles, device: &Device, dtype: DType) -> Result<Self> {
        ModelHeader::open(files)?.load(device, Precision::of(dtype)?)
    }

    /// Refuses weight files that changed while they were read, before anything is kept that was computed from them.
    ///
    /// Errors: as [`FilesInUse::check`](super::source::FilesInUse::check).
    pub fn check_files(&self) -> Result<()> {
        self.files.in_use.check()
    }

    /// Token ids of a user's message, `limit` tokens at most, cut in the middle before it is wrapped.
    ///
    /// `cut` shortens ids to a number of tokens; `raw` leaves the chat template out.
    /// Errors: [`Error::Invalid`] when the wrapper alone is over the limit.
    pub fn message_ids(
        &self,
        text: &str,
        raw: bool,
        limit: Option<usize>,
        cut: fn(&[u32], usize) -> Vec<u32>,
    ) -> Result<Vec<u32>> {
        let chat = self.chat.as_ref().filter(|_| !raw);
        message_ids(&self.tokenizer, chat, text, limit, cut)
    }
}

/// Token ids of a user's message as [`Model::message_ids`] gives them, for models whose weights are not read.
///
/// Errors: as there.
pub fn message_ids(
    tokenizer: &Tokenizer,
    chat: Option<&ChatTemplate>,
    text: &str,
    limit: Option<usize>,
    cut: fn(&[u32], usize) -> Vec<u32>,
) -> Result<Vec<u32>> {
    let ids = tokenizer.encode_with_bos(&wrap(chat, text)?)?;
    let Some(limit) = limit.filter(|l| ids.len() > *l) else {
        return Ok(ids);
    };
    let wrapper = tokenizer.encode_with_bos(&wrap(chat, "")?)?.len();
    if limit <= wrapper {
        return Err(too_small(limit, wrapper));
    }
    let message = tokenizer.encode(text)?;
    let mut allowed = limit - wrapper;
    // Joined halves may tokenise to a few tokens more than they had apart.
    loop {
        let shorter = tokenizer.decode(&cut(&message, allowed))?;
        let ids = tokenizer.encode_with_bos(&wrap(chat, &shorter)?)?;
        match ids.len().checked_sub(limit) {
            None | Some(0) => return Ok(ids),
            Some(over) => allowed = allowed.saturating_sub(over),
        }
        if allowed == 0 {
            return Err(too_small(limit, wrapper));
        }
    }
}

fn wrap(chat: Option<&ChatTemplate>, text: &str) -> Result<String> {
    match chat {
        Some(chat) => chat.render(&[Message::new("user", text)], true),
        None => Ok(text.to_owned()),
    }
}

fn too_small(limit: usize, wrapper: usize) -> Error {
    Error::invalid(
        "--max-prompt-tokens",
        limit,
        format!("the chat wrapper alone takes {wrapper} tokens; allow more, or use --raw"),
    )
}
