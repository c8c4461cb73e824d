//! Ids with a role: beginning of text, and everything that ends a text.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::gguf::Gguf;

use super::vocabulary::TokenKind;

/// Texts of control tokens that end a turn or a text in some model family.
///
/// A model often names only one of those it was trained to emit, and generation that misses the other runs on.
const MARKERS: &str = "</s> <EOT> <end_of_turn> <end_of_utterance> <eos> <turn|> <|call|> <|calls|> \
                       <|end_of_text|> <|endoftext|> <|end|> <|eom_id|> <|eot_id|> <|file_sep|> <|fim_pad|> \
                       <|fim_repo|> <|flush|> <|im_end|> <|repo_name|> <|return|> <|tool_response> \
                       <｜end▁of▁sentence｜> [EOS] [EOT] [e~[ _<EOT>";

/// Markers that are also mark-up; they end a text only when the vocabulary calls them control tokens.
const MARKUP: &[&str] = &["</s>", "[EOS]", "[EOT]", "_<EOT>"];

/// Where tool calls end a turn, `<|end|>` only closes one of its parts.
const TURN_OF_PARTS: &[[&str; 2]] = &[["<|return|>", "<|call|>"], ["<|calls|>", "<|flush|>"]];

/// Phi-3's special tokens swallow the white space after them, except these.
pub(super) const KEEPS_SPACES_AFTER: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

/// Whether special tokens swallow the white space after them.
///
/// GGUF has no field for it; llama.cpp decides by the model's name too.
pub(super) fn spaces_after_are_stripped(gguf: &Gguf) -> bool {
    let name = gguf.text_opt("general.name");
    let name = name.unwrap_or_default().to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}

/// The ids that a model names, and whether texts begin or end with them.
#[derive(Clone, Debug, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// Ids that end a text, ascending.
    pub(super) stop: Vec<u32>,
    pub(super) adds_bos: bool,
    pub(super) adds_eos: bool,
}

impl SpecialIds {
    /// What a byte-level vocabulary means when it says nothing.
    pub(super) fn byte_level(adds_bos: bool) -> Self {
        Self {
            adds_bos,
            ..Self::default()
        }
    }

    /// What a SentencePiece vocabulary means when it says nothing.
    pub(super) fn sentence_piece(tokens: usize) -> Self {
        let in_range = |id: u32| ((id as usize) < tokens).then_some(id);
        Self {
            bos: in_range(1),
            eos: in_range(2),
            adds_bos: true,
            ..Self::default()
        }
    }

    /// Reads the ids and flags of a GGUF file over `defaults`.
    ///
    /// Errors: [`Error::Format`] for a value of the wrong type or an id outside the vocabulary.
    pub(super) fn read(gguf: &Gguf, defaults: Self) -> Result<Self> {
        let mut ids = defaults;
        ids.bos = token_id(gguf, "bos")?.or(ids.bos);
        ids.eos = token_id(gguf, "eos")?.or(ids.eos);
        for role in ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"] {
            ids.stop.extend(token_id(gguf, role)?);
        }
        ids.stop.extend(ids.eos);
        ids.adds_bos = flag(gguf, "tokenizer.ggml.add_bos_token")?.unwrap_or(ids.adds_bos);
        ids.adds_eos = flag(gguf, "tokenizer.ggml.add_eos_token")?.unwrap_or(ids.adds_eos);
        Ok(ids)
    }

    /// Adds the control tokens that are known to end a text.
    pub(super) fn with_markers<'a>(
        mut self,
        tokens: impl Iterator<Item = (u32, &'a str, TokenKind)>,
    ) -> Self {
        let ends_text = |text: &str, kind| match kind {
            TokenKind::Control => true,
            TokenKind::UserDefined => !MARKUP.contains(&text),
            _ => false,
        };
        let markers: HashSet<&str> = MARKERS.split_whitespace().collect();
        let found: Vec<_> = tokens
            .filter(|&(_, text, kind)| markers.contains(text) && ends_text(text, kind))
            .collect();
        let has = |wanted: &str| found.iter().any(|(_, text, _)| *text == wanted);
        let has_parts = TURN_OF_PARTS.iter().any(|[a, b]| has(a) && has(b));
        let parts = |text: &str| has_parts && text == "<|end|>";
        let ends = found.iter().filter(|(_, text, _)| !parts(text));
        self.stop.extend(ends.map(|(id, _, _)| *id));
        self.stop.sort_unstable();
        self.stop.dedup();
        self
    }

    /// Refuses ids that no token has.
    pub(super) fn check_range(&self, path: &Path, tokens: usize) -> Result<()> {
        let mut named = self.stop.iter().chain(&self.bos).chain(&self.eos);
        match named.find(|id| **id as usize >= tokens) {
            None => Ok(()),
            Some(id) => {
                let problem = format!("has {tokens} tokens, but a special id of the model is {id}");
                Err(Error::format(path, problem))
            }
        }
    }
}

/// The id of a role, checked against the vocabulary.
pub(super) fn token_id(gguf: &Gguf, role: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{role}_token_id");
    let Some(value) = gguf.value(&key) else {
        return Ok(None);
    };
    let wrong = || gguf.wrong(format!("{key} is {value:?}, not the id of a token"));
    let id = match gguf.uint_opt(&key) {
        // Converters write "none" as -1, which reads as the largest number of its type.
        Some(id) if id == u64::from(u32::MAX) || id == u64::MAX => return Ok(None),
        Some(id) => u32::try_from(id).map_err(|_| wrong())?,
        None if value.to_i32().is_ok_and(|id| id == -1) => return Ok(None),
        None => return Err(wrong()),
    };
    let tokens = gguf.array_opt("tokenizer.ggml.tokens");
    let tokens = tokens.map_or(0, <[_]>::len);
    if id as usize >= tokens {
        let problem = format!("{key} is {id}, but the vocabulary has {tokens} tokens");
        return Err(gguf.wrong(problem));
    }
    Ok(Some(id))
}

/// A flag that may be absent but must be a boolean.
pub(super) fn flag(gguf: &Gguf, key: &str) -> Result<Option<bool>> {
    match (gguf.value(key), gguf.bool_opt(key)) {
        (None, _) => Ok(None),
        (Some(_), Some(flag)) => Ok(Some(flag)),
        (Some(other), None) => Err(gguf.wrong(format!("{key} is {other:?}, not true or false"))),
    }
}
