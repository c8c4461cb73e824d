//! The elements of every KV head of a model.

use std::fmt;

use super::representation::Representation;
use crate::error::{Error, Result};

/// In which elements every KV head of every layer is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Representations {
    /// All alike.
    Alike(Representation),
    /// `[layer][kv_head]`.
    ByHead(Vec<Vec<Representation>>),
}

impl Representations {
    /// Those of a cache, said once where they are alike.
    pub fn of_heads(heads: Vec<Vec<Representation>>) -> Self {
        let mut all = heads.iter().flatten();
        match all.next() {
            None => Self::Alike(Representation::FLOAT32),
            Some(&first) if all.all(|one| *one == first) => Self::Alike(first),
            Some(_) => Self::ByHead(heads),
        }
    }

    /// Those of a layer's KV heads.
    ///
    /// Errors: [`Error::Invalid`] for a layer that they do not have, or another number of heads.
    pub fn of_layer(&self, layer: usize, kv_heads: usize) -> Result<Vec<Representation>> {
        match self {
            Self::Alike(one) => Ok(vec![*one; kv_heads]),
            Self::ByHead(layers) => match layers.get(layer) {
                Some(heads) if heads.len() == kv_heads => Ok(heads.clone()),
                other => {
                    let bound = format!("layer {layer} of the cache has {kv_heads} KV heads");
                    let found = other.map_or(0, Vec::len);
                    Err(Error::invalid("types of a layer's KV heads", found, bound))
                }
            },
        }
    }

    /// Those of all KV heads, or the one that all have.
    pub fn each(&self) -> impl Iterator<Item = Representation> {
        let (alike, by_head) = match self {
            Self::Alike(one) => (Some(*one), &[][..]),
            Self::ByHead(layers) => (None, &layers[..]),
        };
        alike.into_iter().chain(by_head.iter().flatten().copied())
    }

    /// Bytes of so many tokens of every KV head, `[layer][kv_head]`.
    pub fn bytes(&self, tokens: &[Vec<usize>], head_dim: usize) -> usize {
        let of_layer = |(l, heads): (usize, &Vec<usize>)| -> usize {
            let of_head = |(h, tokens): (usize, &usize)| match self {
                Self::Alike(one) => one.bytes(*tokens, head_dim),
                Self::ByHead(layers) => {
                    let one = layers.get(l).and_then(|heads| heads.get(h));
                    one.map_or(0, |one| one.bytes(*tokens, head_dim))
                }
            };
            heads.iter().enumerate().map(of_head).sum()
        };
        tokens.iter().enumerate().map(of_layer).sum()
    }

    /// Tokens of a head that are coded together, the most of any.
    pub fn coded_together(&self) -> usize {
        self.each()
            .map(Representation::coded_together)
            .max()
            .unwrap_or(1)
    }
}

impl From<Representation> for Representations {
    fn from(one: Representation) -> Self {
        Self::Alike(one)
    }
}

impl fmt::Display for Representations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alike(one) => one.fmt(f),
            Self::ByHead(_) => f.write_str("by KV head"),
        }
    }
}
