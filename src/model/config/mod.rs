//! The geometry of a model and what its family does differently, read from its files.

mod checkpoint;
mod family;
mod metadata;
mod rope;

use std::path::Path;

pub use family::{Activation, FAMILIES, Family, RopePairs, WindowedLayers};
pub use rope::{LongTexts, Rope};

use super::cache::Representation;
use crate::error::{Error, Result};

/// What one layer's queries see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// The keys that a query sees, its own included and the nearest first; `None` is all before it.
    pub window: Option<usize>,
    /// Which of [`ModelConfig::ropes`] rotates its queries and keys.
    pub rope: usize,
}

impl LayerKind {
    /// A layer that sees all keys.
    pub const GLOBAL: Self = Self {
        window: None,
        rope: 0,
    };
}

/// The geometry of one model, with the field names of a Hugging Face `config.json`.
///
/// Paper: none: house definition. Units: counts, except `rms_norm_eps` and the RoPE parameters.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Family row this model belongs to.
    pub family: Family,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// One per layer.
    pub layers: Vec<LayerKind>,
    /// H_q.
    pub num_attention_heads: usize,
    /// H_kv.
    pub num_key_value_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMS normalisation.
    pub rms_norm_eps: f64,
    /// The rotary embeddings that its layers use.
    pub ropes: Vec<Rope>,
    /// What products of queries and keys are multiplied by; `None` is one over the root of D.
    pub attention_scale: Option<f64>,
    /// Whether the output head shares the embedding's weights.
    pub tie_word_embeddings: bool,
}

impl ModelConfig {
    /// L.
    pub fn num_hidden_layers(&self) -> usize {
        self.layers.len()
    }

    /// G, the query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// The keys that a query of a layer sees at most, in a text of so many tokens.
    pub fn span(&self, layer: usize, tokens: usize) -> usize {
        let window = self.layers.get(layer).and_then(|kind| kind.window);
        window.map_or(tokens, |window| window.min(tokens))
    }

    /// The window of every layer; none where all layers see everything.
    pub fn windows(&self) -> Vec<Option<usize>> {
        if self.layers.iter().all(|kind| kind.window.is_none()) {
            return Vec::new();
        }
        self.layers.iter().map(|kind| kind.window).collect()
    }

    /// Bytes that one cached token among many takes over all layers and KV heads.
    pub fn cache_bytes_per_token(&self, representation: Representation) -> usize {
        let heads = self.num_hidden_layers() * self.num_key_value_heads;
        (heads as f64 * representation.bytes_per_token(self.head_dim)).round() as usize
    }

    /// Bytes that so many cached tokens take over all layers and KV heads.
    pub fn cache_bytes(&self, tokens: usize, representation: Representation) -> usize {
        let heads = self.num_hidden_layers() * self.num_key_value_heads;
        heads.saturating_mul(representation.bytes(tokens, self.head_dim))
    }

    /// The longest text that a prompt of so many tokens can grow to: the context, or the length from which on all of a
    /// text is rotated by other frequencies.
    pub fn context_of(&self, prompt_tokens: usize) -> usize {
        let borders = self.ropes.iter().filter_map(|rope| rope.long.as_ref());
        let borders = borders
            .map(|long| long.above)
            .filter(|above| prompt_tokens <= *above);
        borders
            .min()
            .unwrap_or(usize::MAX)
            .min(self.max_position_embeddings)
    }

    /// Refuses a prompt that the model cannot prefill; `name` is what the error calls it.
    ///
    /// Errors: [`Error::PromptTooLong`]; [`Error::Invalid`] without a token, or with one outside the vocabulary.
    pub fn check_prompt(&self, name: &str, ids: &[u32]) -> Result<()> {
        if ids.len() > self.max_position_embeddings {
            return Err(Error::PromptTooLong {
                prompt: name.into(),
                tokens: ids.len(),
                context: self.max_position_embeddings,
            });
        }
        let what = || format!("prompt {name}");
        if ids.is_empty() {
            return Err(Error::invalid(
                what(),
                "empty",
                "at least one token is needed",
            ));
        }
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => {
                let bound = format!("the vocabulary has {} tokens", self.vocab_size);
                Err(Error::invalid(what(), format!("token id {id}"), bound))
            }
            None => Ok(()),
        }
    }

    /// Refuses numbers that do not fit together, or that no model has.
    fn check(&self, path: &Path) -> Result<()> {
        let bad = |problem: String| Err(Error::format(path, problem));
        for (name, value, most) in [
            ("vocabulary", self.vocab_size, 1 << 24),
            ("embedding length", self.hidden_size, 1 << 20),
            ("feed-forward length", self.intermediate_size, 1 << 22),
            ("number of layers", self.num_hidden_layers(), MOST_LAYERS),
            ("number of heads", self.num_attention_heads, 1 << 12),
            ("number of KV heads", self.num_key_value_heads, 1 << 12),
            ("head dimension", self.head_dim, 1 << 12),
            ("context length", self.max_position_embeddings, MOST_TOKENS),
        ] {
            if value == 0 || value > most {
                return bad(format!(
                    "declares a {name} of {value}, expected 1 to {most}"
                ));
            }
        }
        let windows = self.layers.iter().filter_map(|kind| kind.window);
        if let Some(window) = windows.filter(|w| *w > MOST_TOKENS).max() {
            return bad(format!(
                "declares a sliding window of {window}, expected at most {MOST_TOKENS}"
            ));
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return bad(format!(
                "declares {} query heads, not a multiple of its {} KV heads",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad(format!(
                "declares an odd head dimension of {}",
                self.head_dim
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return bad(format!(
                "declares an epsilon of {} for its norms",
                self.rms_norm_eps
            ));
        }
        if let Some(scale) = self
            .attention_scale
            .filter(|s| !(s.is_finite() && *s > 0.0))
        {
            return bad(format!("declares an attention scale of {scale}"));
        }
        Ok(())
    }
}

/// Tokens that a context or a window has at most.
const MOST_TOKENS: usize = 1 << 30;

/// Layers that a model has at most.
const MOST_LAYERS: usize = 1 << 12;

/// So many layers of one kind; a number that no model has is left to [`ModelConfig::check`], without memory for it.
fn layers(count: usize, kind: impl Fn(usize) -> LayerKind) -> Vec<LayerKind> {
    (0..count.min(MOST_LAYERS + 1)).map(kind).collect()
}

/// How many dimensions of a head are rotated.
///
/// Errors: [`Error::Format`] for more than there are, or an odd number.
fn check_rotated(path: &Path, rotated: usize, head_dim: usize) -> Result<()> {
    if rotated >= 2 && rotated.is_multiple_of(2) && rotated <= head_dim {
        return Ok(());
    }
    Err(Error::format(
        path,
        format!(
            "declares a rotary embedding of {rotated} dimensions, expected an even number of 2 to {head_dim}"
        ),
    ))
}

/// Refuses "all but every zeroth layer".
fn check_every(path: &Path, key: &str, every: usize) -> Result<()> {
    if every > 0 {
        return Ok(());
    }
    Err(Error::format(
        path,
        format!("has {key} = 0, expected how many layers come to one that sees all keys"),
    ))
}

/// An error of the rotary embedding as one of the file that declares it.
fn declared(path: &Path, error: Error) -> Error {
    match error {
        Error::Invalid { .. } => Error::format(path, format!("declares what cannot be: {error}")),
        other => other,
    }
}
