//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): merges over bytes that are spelled as printable characters.

use std::collections::HashSet;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::error::Result;
use crate::model::gguf::Gguf;

use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::{Vocabulary, strings};

/// The encoder without its special tokens.
///
/// Paper: Radford et al. 2019 (GPT-2), section 2.2. Differs: as published; the split rule is the model's own.
pub(super) fn build(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    rule: &PreTokenizer,
) -> Result<tokenizers::Tokenizer> {
    let mut merges = Vec::new();
    let mut seen = HashSet::new();
    for (index, merge) in strings(gguf, "tokenizer.ggml.merges")?.iter().enumerate() {
        let pair = vocabulary.merge(index, merge)?;
        // The rank of a merge is that of its first occurrence.
        if seen.insert(pair.clone()) {
            merges.push(pair);
        }
    }
    let broken = |e: tokenizers::Error| gguf.wrong(format!("tokenizer: {e}"));
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.to_bpe(), merges)
        .ignore_merges(rule.whole_words)
        .build()
        .map_err(broken)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(rule.build().map_err(broken)?));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// The byte that a character stands for in a byte-level vocabulary.
///
/// Printable characters of Latin-1 stand for themselves, the other 68 bytes in ascending order for U+0100 onwards.
pub(super) fn byte_of(symbol: char) -> Option<u8> {
    let code = u32::from(symbol);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        // Bytes 0 to 0x20.
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        // Bytes 0x7f to 0xa0.
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_symbol() {
        let bytes: HashSet<u8> = (0..0x200)
            .filter_map(char::from_u32)
            .filter_map(byte_of)
            .collect();
        assert_eq!(bytes.len(), 256);
        let symbols = ByteLevel::alphabet();
        assert!(symbols.iter().all(|c| byte_of(*c).is_some()));
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
    }
}
