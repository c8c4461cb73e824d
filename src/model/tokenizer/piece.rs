//! The bytes that a token stands for.

use super::vocabulary::TokenKind;
use super::{byte_level, sentence_piece};

/// One token: its spelling in the vocabulary and the bytes it adds to a text.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) bytes: Box<[u8]>,
    pub(super) special: bool,
}

impl Piece {
    /// A token of a byte-level vocabulary.
    pub(super) fn byte_level(text: &str, kind: TokenKind) -> Self {
        let spelled = || {
            text.chars()
                .map(byte_level::byte_of)
                .collect::<Option<Vec<u8>>>()
        };
        let bytes = match kind {
            TokenKind::Normal | TokenKind::Unused => spelled(),
            TokenKind::Byte => sentence_piece::byte_of(text)
                .map(|byte| vec![byte])
                .or_else(spelled),
            _ => None,
        };
        Self::new(text, kind, bytes)
    }

    /// A token of a SentencePiece vocabulary.
    pub(super) fn sentence_piece(text: &str, kind: TokenKind) -> Self {
        let bytes = match kind {
            TokenKind::Normal | TokenKind::Unused => {
                Some(text.replace(sentence_piece::SPACE, " ").into_bytes())
            }
            TokenKind::Byte => sentence_piece::byte_of(text).map(|byte| vec![byte]),
            _ => None,
        };
        Self::new(text, kind, bytes)
    }

    /// Without bytes of its own, a token stands for its spelling.
    fn new(text: &str, kind: TokenKind, bytes: Option<Vec<u8>>) -> Self {
        let bytes = bytes
            .unwrap_or_else(|| text.as_bytes().to_vec())
            .into_boxed_slice();
        Self {
            text: text.to_owned(),
            bytes,
            special: kind.is_special(),
        }
    }
}
