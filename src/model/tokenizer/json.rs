//! A `tokenizer.json`: read by the `tokenizers` crate, after the checks that the crate leaves out.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::gguf::Gguf;
use crate::model::json_fields::JsonFields;

use super::piece::Piece;
use super::special::SpecialIds;
use super::vocabulary::{TokenKind, Vocabulary};

/// The encoder, the token of each id, and whether decoding drops a leading space.
pub(super) type Parts = (tokenizers::Tokenizer, Vec<Option<Piece>>, bool);

/// Reads the file.
///
/// Errors: [`Error::Io`], [`Error::Format`], [`Error::Unsupported`] for an unusual decoder.
pub(super) fn read(path: &Path) -> Result<Parts> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let json = parse(path, &bytes)?;
    check_merges(path, &json["model"])?;
    let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
        .map_err(|e| Error::format(path, format!("is no tokenizer.json that can be read: {e}")))?;
    // Files saved in the middle of a training carry its cuts and fillings.
    inner
        .with_truncation(None)
        .map_err(|e| Error::format(path, format!("truncation: {e}")))?;
    inner.with_padding(None);
    let (spelling, strips_first_space) = spelling(path, &json["decoder"])?;
    let pieces = pieces(path, &inner, &spelling)?;
    Ok((inner, pieces, strips_first_space))
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::format_at(path, e.line(), format!("is not valid JSON: {e}")))
}

/// Merges must join tokens into a token; the BPE builder panics where they do not.
fn check_merges(path: &Path, model: &Value) -> Result<()> {
    let Some(merges) = model["merges"].as_array() else {
        return Ok(());
    };
    let Some(vocabulary) = model["vocab"].as_object() else {
        return Err(Error::format(path, "has merges but no vocabulary"));
    };
    let prefix = model["continuing_subword_prefix"].as_str();
    let prefix = prefix.unwrap_or_default();
    for (index, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            other => other[0].as_str().zip(other[1].as_str()),
        };
        let joins = pair.is_some_and(|(left, right)| {
            right.strip_prefix(prefix).is_some_and(|rest| {
                let parts = [left, right, &[left, rest].concat()];
                parts.iter().all(|part| vocabulary.contains_key(*part))
            })
        });
        if !joins {
            let problem = format!("merge {index}, {merge}, does not join two tokens into a third");
            return Err(Error::format(path, problem));
        }
    }
    Ok(())
}

type Spelling = fn(&str, TokenKind) -> Piece;

/// How tokens spell bytes, from the decoder steps.
fn spelling(path: &Path, decoder: &Value) -> Result<(Spelling, bool)> {
    let steps = match decoder["decoders"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(decoder),
    };
    let kind = |step: &Value| step["type"].as_str().unwrap_or_default().to_owned();
    let has = |wanted: &str| steps.iter().any(|step| kind(step) == wanted);
    let strips = steps.iter().any(|step| match kind(step).as_str() {
        "Strip" => step["start"].as_u64().is_some_and(|n| n > 0),
        "Metaspace" => step["prepend_scheme"] != "never" && step["add_prefix_space"] != false,
        _ => false,
    });
    if has("ByteLevel") {
        Ok((Piece::byte_level, false))
    } else if has("ByteFallback") || has("Metaspace") {
        Ok((Piece::sentence_piece, strips))
    } else {
        Err(Error::Unsupported {
            what: "tokenizer decoder",
            found: format!("{decoder} in {}", path.display()),
            supported: "ByteLevel, ByteFallback, Metaspace".into(),
        })
    }
}

fn pieces(
    path: &Path,
    inner: &tokenizers::Tokenizer,
    spell: &Spelling,
) -> Result<Vec<Option<Piece>>> {
    let added = inner.get_added_tokens_decoder();
    let tokens = inner.get_vocab(true);
    let highest = tokens.values().max();
    let highest = highest.ok_or_else(|| Error::format(path, "has an empty vocabulary"))?;
    let size = *highest as usize + 1;
    // A few ids may be left out; a wild one must not decide how much memory is taken.
    if size > tokens.len().saturating_mul(2).saturating_add(1 << 16) {
        let problem = format!("has {} tokens, but one has the id {highest}", tokens.len());
        return Err(Error::format(path, problem));
    }
    let mut pieces: Vec<Option<Piece>> = (0..size).map(|_| None).collect();
    for (text, id) in &tokens {
        let kind = match added.get(id) {
            Some(token) if token.special => TokenKind::Control,
            Some(_) => TokenKind::UserDefined,
            None if super::sentence_piece::byte_of(text).is_some() => TokenKind::Byte,
            None => TokenKind::Normal,
        };
        pieces[*id as usize] = Some(spell(text, kind));
    }
    Ok(pieces)
}

/// Refuses a `tokenizer.json` that lies beside the weights but belongs to others.
pub(super) fn check_same_vocabulary(
    path: &Path,
    gguf: &Gguf,
    pieces: &[Option<Piece>],
) -> Result<()> {
    let vocabulary = Vocabulary::read(gguf)?;
    let words = vocabulary.entries();
    let words = words.filter(|(_, _, kind)| *kind == TokenKind::Normal);
    let same = |id: u32, text: &str| {
        let piece = pieces.get(id as usize).and_then(Option::as_ref);
        piece.is_some_and(|piece| piece.text == text)
    };
    let total = words.clone().count();
    let mut differing = words.filter(|&(id, text, _)| !same(id, text));
    let first = differing.next();
    let count = differing.count() + 1;
    // Converters pad vocabularies and respell a few tokens.
    match first.filter(|_| count > total / 20) {
        None => Ok(()),
        Some((id, text, _)) => {
            let other = gguf.path().display();
            let problem = format!(
                "belongs to another model than {other}: {count} of {total} tokens differ, the first with id {id} \
                 ({text:?}); move it away to use the tokenizer inside the GGUF file"
            );
            Err(Error::format(path, problem))
        }
    }
}

/// Special ids from the two configuration files that Hugging Face keeps beside a `tokenizer.json`.
pub(super) fn special_ids_beside(
    path: &Path,
    id_of: &dyn Fn(&str) -> Option<u32>,
    encodes_bos: Option<u32>,
) -> Result<SpecialIds> {
    let beside = |name: &str| {
        let file = path.with_file_name(name);
        let is_there = file.is_file();
        is_there.then(|| JsonFields::read(&file)).transpose()
    };
    let tokenizer = beside("tokenizer_config.json")?;
    let generation = beside("generation_config.json")?;
    // A token is written as its text, or as an object with the text in it.
    let named = |key: &str| {
        let value = tokenizer.as_ref().and_then(|fields| fields.value(key))?;
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        id_of(text)
    };
    let numbers = |key: &str| {
        generation
            .as_ref()
            .map_or(Ok(Vec::new()), |all| all.ids(key))
    };
    let flag = |key: &str| tokenizer.as_ref().map_or(Ok(None), |all| all.flag(key));
    let ends = numbers("eos_token_id")?;
    let eos = named("eos_token").or_else(|| ends.first().copied());
    let begins = numbers("bos_token_id")?;
    let bos = named("bos_token").or_else(|| begins.first().copied());
    Ok(SpecialIds {
        bos: bos.or(encodes_bos),
        eos,
        stop: ends.into_iter().chain(eos).collect(),
        adds_bos: flag("add_bos_token")?.unwrap_or(encodes_bos.is_some()),
        adds_eos: flag("add_eos_token")?.unwrap_or(false),
    })
}
