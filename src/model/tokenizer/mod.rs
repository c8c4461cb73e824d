//! Text to token ids and back, from a GGUF's own metadata or from a `tokenizer.json`.
//!
//! | metadata | read by |
//! |---|---|
//! | `tokenizer.ggml.tokens`, `token_type`, `scores`, `merges` | `vocabulary` |
//! | `tokenizer.ggml.pre` | `pre_tokenizer`, a table with one row per rule |
//! | `tokenizer.ggml.model` = `gpt2` | `byte_level` |
//! | `tokenizer.ggml.model` = `llama` | `sentence_piece` |
//! | `bos`, `eos`, `eot`, `eom` ids, `add_*` flags | `special` |

mod byte_level;
mod json;
mod piece;
mod pre_tokenizer;
mod sentence_piece;
mod special;
mod stream;
mod summary;
mod vocabulary;

use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::model::gguf::Gguf;

use piece::Piece;
use pre_tokenizer::PreTokenizer;
use special::SpecialIds;
pub use stream::TextStream;
pub use summary::TokenSummary;
use vocabulary::{TokenKind, Vocabulary};

/// The values of `tokenizer.ggml.model` that this program can build.
const MODELS: &str = "gpt2 (byte-level BPE), llama (SentencePiece BPE)";

/// A model's tokenizer with everything that the model says about its special tokens.
///
/// Paper: none: house definition. Differs: ids equal those of the model's own `tokenizer.json` (Hugging
/// Face) and of llama.cpp, except that a byte with no token of its own is left out as in the former (SmolLM2
/// has no token for 20 control and never-used bytes).
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// One per id; ids that a `tokenizer.json` skips are `None`.
    pieces: Vec<Option<Piece>>,
    /// Encoding put a space before the text, which decoding takes away again.
    strips_first_space: bool,
    special: SpecialIds,
}

impl Tokenizer {
    /// Builds the tokenizer from the metadata of a GGUF file.
    ///
    /// Errors: [`Error::Unsupported`] for another kind of vocabulary, [`Error::UnknownName`] for a
    /// pre-tokenizer that is not in the table, [`Error::Format`] for metadata that contradicts itself.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let Described {
            vocabulary,
            spelling,
            special,
        } = Described::read(gguf)?;
        let spell: fn(&str, TokenKind) -> Piece;
        let (mut inner, strips_first_space) = match spelling {
            Spelling::ByteLevel(rule) => {
                spell = Piece::byte_level;
                (byte_level::build(gguf, &vocabulary, rule)?, false)
            }
            Spelling::SentencePiece { prefix } => {
                spell = Piece::sentence_piece;
                (sentence_piece::build(gguf, &vocabulary, prefix)?, prefix)
            }
        };
        let strips_spaces = special::spaces_after_are_stripped(gguf);
        let entries = || vocabulary.entries();
        let verbatim = |(_, text, kind)| verbatim(text, kind, strips_spaces);
        inner
            .add_tokens(entries().filter_map(verbatim))
            .map_err(|e| gguf.wrong(format!("special tokens: {e}")))?;
        let pieces = entries().map(|(_, text, kind)| Some(spell(text, kind)));
        Ok(Self {
            path: gguf.path().to_owned(),
            inner,
            pieces: pieces.collect(),
            strips_first_space,
            special,
        })
    }

    /// Builds the tokenizer from a `tokenizer.json`; the special ids come from `gguf`, or without it from the
    /// `tokenizer_config.json` and `generation_config.json` in the same folder.
    ///
    /// Errors: [`Error::Io`], [`Error::Format`] for a damaged file or one that belongs to another model than
    /// `gguf`, [`Error::Unsupported`] for a decoder that is neither byte-level nor SentencePiece.
    pub fn from_file(path: &Path, gguf: Option<&Gguf>) -> Result<Self> {
        let (inner, pieces, strips_first_space) = json::read(path)?;
        let nothing = inner.encode_fast("", true).ok();
        let encodes_bos = nothing.and_then(|encoding| encoding.get_ids().first().copied());
        let special = match gguf {
            Some(gguf) => {
                json::check_same_vocabulary(path, gguf, &pieces)?;
                let adds_bos = encodes_bos.is_some();
                let mut defaults = SpecialIds::byte_level(adds_bos);
                if gguf.text_opt("tokenizer.ggml.model") == Some("llama") {
                    defaults = SpecialIds::sentence_piece(pieces.len());
                }
                SpecialIds::read(gguf, defaults)?
            }
            None => {
                let id_of = |text: &str| inner.token_to_id(text);
                json::special_ids_beside(path, &id_of, encodes_bos)?
            }
        };
        special.check_range(path, pieces.len())?;
        let special = special.with_markers(pieces.iter().enumerate().filter_map(|(id, piece)| {
            let piece = piece.as_ref()?;
            let kind = if piece.special {
                TokenKind::Control
            } else {
                TokenKind::Normal
            };
            Some((u32::try_from(id).ok()?, piece.text.as_str(), kind))
        }));
        Ok(Self {
            path: path.to_owned(),
            inner,
            pieces,
            strips_first_space,
            special,
        })
    }

    /// The ids of `text`, special tokens in it recognised, nothing added around it.
    ///
    /// Errors: [`Error::Format`] if the vocabulary cannot express the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |e| Error::format(&self.path, format!("cannot encode a text: {e}"));
        let encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a prompt: as [`encode`](Self::encode), after the beginning-of-text id if the model wants one.
    ///
    /// Differs: a text that already starts with that token (most chat templates write it) gets no second one;
    /// an end-of-text id is never appended, since a prompt is to be continued.
    pub fn encode_with_bos(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if let Some(bos) = self.special.bos
            && self.special.adds_bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The text of `ids`, special tokens written out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// Errors: [`Error::Invalid`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_as(ids, true)
    }

    /// The text of `ids` without special tokens; see [`decode`](Self::decode).
    pub fn decode_plain(&self, ids: &[u32]) -> Result<String> {
        self.decode_as(ids, false)
    }

    /// Where the text of every id lies in [`decode`](Self::decode) of all of them.
    ///
    /// Units: bytes. A character may be spread over several ids; where bytes are not UTF-8, the text that
    /// `decode` shows has other bytes there.
    /// Errors: as [`decode`](Self::decode).
    pub fn byte_spans(&self, ids: &[u32]) -> Result<Vec<Range<usize>>> {
        let mut bytes = Vec::new();
        let mut spans = Vec::with_capacity(ids.len());
        for &id in ids {
            let start = bytes.len();
            self.append(id, true, &mut bytes)?;
            spans.push(start..bytes.len());
        }
        if self.strips_first_space && bytes.first() == Some(&b' ') {
            for span in &mut spans {
                *span = span.start.saturating_sub(1)..span.end.saturating_sub(1);
            }
        }
        Ok(spans)
    }

    fn decode_as(&self, ids: &[u32], shows_special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            self.append(id, shows_special, &mut bytes)?;
        }
        let text = match bytes.first() {
            Some(b' ') if self.strips_first_space => &bytes[1..],
            _ => &bytes[..],
        };
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// A decoder for ids that arrive one by one, as the continuation of a prompt.
    pub fn stream(&self, shows_special: bool) -> TextStream<'_> {
        TextStream::new(self, shows_special)
    }

    /// Appends the bytes of one token.
    fn append(&self, id: u32, shows_special: bool, bytes: &mut Vec<u8>) -> Result<()> {
        let piece = self.piece(id).ok_or_else(|| {
            let bound = format!("the vocabulary has {} tokens", self.pieces.len());
            Error::invalid("token id", id, bound)
        })?;
        if shows_special || !piece.special {
            bytes.extend_from_slice(&piece.bytes);
        }
        Ok(())
    }

    fn piece(&self, id: u32) -> Option<&Piece> {
        self.pieces.get(id as usize)?.as_ref()
    }

    /// Every id that ends a generated text, ascending.
    pub fn stop_ids(&self) -> &[u32] {
        &self.special.stop
    }

    /// The beginning-of-text id.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos
    }

    /// The end-of-text id that the model names first; [`stop_ids`](Self::stop_ids) has all of them.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether a prompt starts with the beginning-of-text id.
    pub fn adds_bos(&self) -> bool {
        self.special.adds_bos && self.special.bos.is_some()
    }

    /// Whether the model's texts end with the end-of-text id (nothing here appends it).
    pub fn adds_eos(&self) -> bool {
        self.special.adds_eos && self.special.eos.is_some()
    }

    /// How many ids there are: one more than the highest.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// One more than the highest id of a token that is not special.
    pub fn plain_tokens(&self) -> usize {
        let is_plain = |piece: &Option<Piece>| piece.as_ref().is_some_and(|piece| !piece.special);
        self.pieces
            .iter()
            .rposition(is_plain)
            .map_or(0, |id| id + 1)
    }

    /// A token as the vocabulary spells it (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token(&self, id: u32) -> Option<&str> {
        self.piece(id).map(|piece| piece.text.as_str())
    }

    /// The id of a token in the vocabulary's own spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.pieces.len())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

/// How the tokens of a GGUF's vocabulary spell text.
enum Spelling {
    /// Byte by byte, in words that a rule cuts.
    ByteLevel(&'static PreTokenizer),
    /// In characters, perhaps with a space before the first.
    SentencePiece { prefix: bool },
}

/// What the metadata of a GGUF says of its tokens, before anything is built of them.
struct Described {
    vocabulary: Vocabulary,
    spelling: Spelling,
    special: SpecialIds,
}

impl Described {
    fn read(gguf: &Gguf) -> Result<Self> {
        let kind = gguf.text("tokenizer.ggml.model")?;
        let mut vocabulary = Vocabulary::read(gguf)?;
        let (spelling, special) = match kind {
            "gpt2" => {
                let rule = pre_tokenizer::of_gguf(gguf)?;
                let special = SpecialIds::read(gguf, SpecialIds::byte_level(rule.adds_bos))?;
                (Spelling::ByteLevel(rule), special)
            }
            "llama" => {
                let special = SpecialIds::read(gguf, SpecialIds::sentence_piece(vocabulary.len()))?;
                let prefix = special::flag(gguf, "tokenizer.ggml.add_space_prefix")?;
                let prefix = prefix.unwrap_or(true);
                (Spelling::SentencePiece { prefix }, special)
            }
            other => {
                return Err(Error::Unsupported {
                    what: "tokenizer",
                    found: other.to_owned(),
                    supported: format!(
                        "{MODELS}; or put the model's tokenizer.json beside the weights"
                    ),
                });
            }
        };
        let special = special.with_markers(vocabulary.entries());
        for &id in &special.stop {
            // A marker that ends the text is never text, whatever type the converter gave it.
            vocabulary.make_control(id);
        }
        Ok(Self {
            vocabulary,
            spelling,
            special,
        })
    }
}

/// A token that is looked for in the text as it stands, before anything else happens to the text.
fn verbatim(text: &str, kind: TokenKind, strips_spaces: bool) -> Option<AddedToken> {
    let special = kind.is_special();
    if text.is_empty() || !(special || kind == TokenKind::UserDefined) {
        return None;
    }
    let strips = strips_spaces && !special::KEEPS_SPACES_AFTER.contains(&text);
    let token = AddedToken::from(text, special);
    Some(token.normalized(false).rstrip(strips))
}

#[cfg(test)]
mod tests;
