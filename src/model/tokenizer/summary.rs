//! What a model says of its tokens, read without building what encodes: large vocabularies take seconds to build.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::Described;
use super::json;
use super::special::SpecialIds;
use super::vocabulary::TokenKind;
use crate::error::{Error, Result};
use crate::model::gguf::Gguf;

/// The size of a vocabulary, and its tokens with a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSummary {
    /// How many ids there are: one more than the highest.
    pub tokens: usize,
    /// What a prompt begins with, if the model wants anything there.
    pub bos: Option<(u32, String)>,
    /// Everything that ends a generated text, ascending.
    pub stops: Vec<(u32, String)>,
}

impl TokenSummary {
    /// Of a GGUF file's own vocabulary.
    ///
    /// Errors: as [`super::Tokenizer::from_gguf`], as far as it is read.
    pub fn of_gguf(gguf: &Gguf) -> Result<Self> {
        let described = Described::read(gguf)?;
        let entries: Vec<_> = described.vocabulary.entries().collect();
        let text = |id: u32| entries.get(id as usize).map(|(_, text, _)| *text);
        Ok(Self::of(entries.len(), &described.special, text))
    }

    /// Of a `tokenizer.json` and what lies beside it.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for a file that is no tokenizer.
    pub fn of_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let file = json::parse(path, &bytes)?;
        let entries = entries(&file);
        let Some((&highest, _)) = entries.last_key_value() else {
            return Err(Error::format(path, "has an empty vocabulary"));
        };
        let ids: HashMap<&str, u32> = entries.iter().map(|(id, (text, _))| (*text, *id)).collect();
        let id_of = |text: &str| ids.get(text).copied();
        let encodes_bos = first_special(&file["post_processor"]).and_then(id_of);
        let special = json::special_ids_beside(path, &id_of, encodes_bos)?;
        let tokens = entries.iter().map(|(id, (text, kind))| (*id, *text, *kind));
        let special = special.with_markers(tokens);
        let text = |id: u32| entries.get(&id).map(|(text, _)| *text);
        Ok(Self::of(highest as usize + 1, &special, text))
    }

    fn of<'a>(tokens: usize, special: &SpecialIds, text: impl Fn(u32) -> Option<&'a str>) -> Self {
        let named = |id: u32| (id, text(id).unwrap_or_default().to_owned());
        Self {
            tokens,
            bos: special.bos.filter(|_| special.adds_bos).map(named),
            stops: special.stop.iter().map(|id| named(*id)).collect(),
        }
    }
}

/// Text and kind of every token of a `tokenizer.json`; what was added counts more than the model's own list.
fn entries(file: &Value) -> BTreeMap<u32, (&str, TokenKind)> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let mut entries = BTreeMap::new();
    match &file["model"]["vocab"] {
        Value::Object(tokens) => {
            for (text, value) in tokens {
                if let Some(id) = id(value) {
                    entries.insert(id, (text.as_str(), TokenKind::Normal));
                }
            }
        }
        Value::Array(tokens) => {
            for (id, pair) in (0u32..).zip(tokens) {
                if let Some(text) = pair[0].as_str() {
                    entries.insert(id, (text, TokenKind::Normal));
                }
            }
        }
        _ => {}
    }
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        if let (Some(id), Some(text)) = (id(&token["id"]), token["content"].as_str()) {
            let kind = if token["special"] == true {
                TokenKind::Control
            } else {
                TokenKind::UserDefined
            };
            entries.insert(id, (text, kind));
        }
    }
    entries
}

/// The token that a post-processor puts before every text.
fn first_special(processor: &Value) -> Option<&str> {
    match processor["type"].as_str()? {
        "TemplateProcessing" => processor["single"][0]["SpecialToken"]["id"].as_str(),
        "Sequence" => {
            let mut all = processor["processors"].as_array()?.iter();
            all.find_map(first_special)
        }
        "BertProcessing" | "RobertaProcessing" => processor["cls"][0].as_str(),
        _ => None,
    }
}
