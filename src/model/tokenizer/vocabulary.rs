//! The token list of a GGUF file: texts, kinds, scores and merges, checked against each other.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::quantized::gguf_file::Value;

use crate::error::{Error, Result};
use crate::model::gguf::Gguf;

/// What a token is for, as GGUF numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text that no token expresses.
    Unknown,
    /// A mark that is not text: beginning, end, turn.
    Control,
    /// Text that is one token wherever it occurs.
    UserDefined,
    /// Reserved.
    Unused,
    /// One byte, spelled `<0xNN>`.
    Byte,
}

impl TokenKind {
    fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            // 0 is "undefined", which some converters write for ordinary tokens.
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether decoding to plain text leaves it out.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// The tokens of a model, each text once.
pub(super) struct Vocabulary {
    path: PathBuf,
    texts: Vec<String>,
    kinds: Vec<TokenKind>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens` and `tokenizer.ggml.token_type`.
    ///
    /// Errors: [`Error::Format`] for lists of the wrong type or length, or a token that occurs twice.
    pub(super) fn read(gguf: &Gguf) -> Result<Self> {
        let texts = strings(gguf, "tokenizer.ggml.tokens")?;
        if texts.is_empty() {
            return Err(gguf.wrong("has an empty vocabulary"));
        }
        let mut ids = HashMap::with_capacity(texts.len());
        for (id, text) in (0u32..).zip(&texts) {
            // Texts may be left empty for ids that only pad the embedding.
            if !text.is_empty()
                && let Some(first) = ids.insert(text.clone(), id)
            {
                let problem = format!("token {text:?} occurs twice, as ids {first} and {id}");
                return Err(gguf.wrong(problem));
            }
        }
        let kinds = kinds(gguf, texts.len())?;
        Ok(Self {
            path: gguf.path().to_owned(),
            texts,
            kinds,
            ids,
        })
    }

    /// The number of tokens.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The id of a text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// Id, text and kind of every token, in the order of ids.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &str, TokenKind)> + Clone {
        (0u32..)
            .zip(&self.texts)
            .zip(&self.kinds)
            .map(|((id, text), kind)| (id, text.as_str(), *kind))
    }

    /// Marks a token as control.
    pub(super) fn make_control(&mut self, id: u32) {
        if let Some(kind) = self.kinds.get_mut(id as usize) {
            *kind = TokenKind::Control;
        }
    }

    /// Text to id, as the BPE model wants it.
    pub(super) fn to_bpe(&self) -> tokenizers::models::bpe::Vocab {
        self.ids
            .iter()
            .map(|(text, id)| (text.clone(), *id))
            .collect()
    }

    /// Splits "left right" and checks that both and their union are tokens.
    ///
    /// The check cannot be left to the BPE builder, which panics on a union longer than every token.
    pub(super) fn merge(&self, index: usize, merge: &str) -> Result<(String, String)> {
        let broken = |why: String| {
            Error::format(
                &self.path,
                format!("merge {index} of tokenizer.ggml.merges, {merge:?}, {why}"),
            )
        };
        // The first character may itself be a space.
        let gap = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
        let (left, right) = gap
            .map(|(at, _)| (&merge[..at], &merge[at + 1..]))
            .filter(|(_, right)| !right.is_empty())
            .ok_or_else(|| broken("is not two tokens with a space between them".into()))?;
        for part in [left, right, &[left, right].concat()] {
            if self.id(part).is_none() {
                return Err(broken(format!(
                    "refers to {part:?}, which is not in the vocabulary"
                )));
            }
        }
        Ok((left.to_owned(), right.to_owned()))
    }
}

/// An array of strings.
///
/// Errors: [`Error::Format`] if it is absent or holds anything else.
pub(super) fn strings(gguf: &Gguf, key: &str) -> Result<Vec<String>> {
    let wrong = || gguf.missing(key, "an array of strings");
    let text = |value: &Value| value.to_string().cloned().map_err(|_| wrong());
    let values = gguf.array_opt(key).ok_or_else(wrong)?.iter();
    values.map(text).collect()
}

/// The first entries of an array, as many as there are tokens.
fn of_tokens<'g>(
    gguf: &'g Gguf,
    key: &str,
    (what, of): (&str, &str),
    tokens: usize,
) -> Result<&'g [Value]> {
    let wrong = |problem: String| gguf.wrong(format!("{key}: {problem}"));
    let values = gguf.array_opt(key);
    let values = values.ok_or_else(|| wrong(format!("is not an array of {of}")))?;
    let too_few = || wrong(format!("has {} {what} for {tokens} tokens", values.len()));
    values.get(..tokens).ok_or_else(too_few)
}

/// The score of every token; a higher score merges first.
pub(super) fn scores(gguf: &Gguf, tokens: usize) -> Result<Vec<f32>> {
    const KEY: &str = "tokenizer.ggml.scores";
    let wrong = |problem: String| gguf.wrong(format!("{KEY}: {problem}"));
    if gguf.array_opt(KEY).is_none() {
        let problem = "a SentencePiece vocabulary needs this array of floats";
        return Err(wrong(problem.to_owned()));
    }
    let score = |value: &Value| match value {
        Value::F32(score) if score.is_finite() => Ok(*score),
        // Some converters store ranks as whole numbers, all of which fit.
        Value::I32(score) => Ok(*score as f32),
        other => Err(wrong(format!("holds {other:?}, not a finite float"))),
    };
    let values = of_tokens(gguf, KEY, ("scores", "floats"), tokens)?.iter();
    values.map(score).collect()
}

fn kinds(gguf: &Gguf, tokens: usize) -> Result<Vec<TokenKind>> {
    const KEY: &str = "tokenizer.ggml.token_type";
    if gguf.value(KEY).is_none() {
        return Ok(vec![TokenKind::Normal; tokens]);
    }
    let kind = |value: &Value| {
        let number = match value {
            Value::I32(v) => Some(i64::from(*v)),
            Value::I64(v) => Some(*v),
            other => other.to_u64().ok().and_then(|v| i64::try_from(v).ok()),
        };
        number.and_then(TokenKind::from_number).ok_or_else(|| {
            let problem = format!("{KEY}: holds {value:?}, which is no token type (0 to 6)");
            gguf.wrong(problem)
        })
    };
    let values = of_tokens(gguf, KEY, ("types", "integers"), tokens)?.iter();
    values.map(kind).collect()
}
