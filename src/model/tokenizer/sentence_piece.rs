//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): pieces with scores, a visible space, bytes as a last resort.

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};

use crate::error::Result;
use crate::model::gguf::Gguf;

use super::special::token_id;
use super::vocabulary::{TokenKind, Vocabulary, scores};

/// SentencePiece's visible space.
pub(super) const SPACE: char = '\u{2581}';

/// The encoder without its special tokens; `prefix` puts a space before each stretch of text.
///
/// Paper: Kudo and Richardson 2018 (SentencePiece), section 3. Differs: scores are turned into ranked merges,
/// as Hugging Face converts these vocabularies; among merges of equal score the longer left part comes first
/// (SentencePiece: the leftmost in the text).
pub(super) fn build(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    prefix: bool,
) -> Result<tokenizers::Tokenizer> {
    let broken = |e: tokenizers::Error| gguf.wrong(format!("tokenizer: {e}"));
    let scores = scores(gguf, vocabulary.len())?;
    let named = token_id(gguf, "unknown")?;
    let mut unknown = vocabulary.entries();
    let unknown = unknown.find(|(id, _, kind)| Some(*id) == named || *kind == TokenKind::Unknown);
    let mut model = BPE::builder()
        .vocab_and_merges(vocabulary.to_bpe(), ranked_merges(vocabulary, &scores))
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some((_, text, _)) = unknown.filter(|(_, text, _)| !text.is_empty()) {
        model = model.unk_token(text.to_owned());
    }
    let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(broken)?);
    let visible = SPACE.to_string();
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if prefix {
        steps.push(Prepend::new(visible.clone()).into());
    }
    steps.push(Replace::new(" ", visible).map_err(broken)?.into());
    tokenizer
        .with_normalizer(Some(Sequence::new(steps)))
        .map_err(broken)?;
    Ok(tokenizer)
}

/// Every way to join two tokens into a third, the best score first.
fn ranked_merges(vocabulary: &Vocabulary, scores: &[f32]) -> Vec<(String, String)> {
    let mut merges = Vec::new();
    for ((_, text, kind), score) in vocabulary.entries().zip(scores) {
        if !matches!(
            kind,
            TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused
        ) {
            continue;
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if vocabulary.id(left).is_some() && vocabulary.id(right).is_some() {
                merges.push((*score, left, right));
            }
        }
    }
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then_with(|| b.1.chars().count().cmp(&a.1.chars().count()))
    });
    merges
        .into_iter()
        .map(|(_, left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}

/// The byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_byte {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}
