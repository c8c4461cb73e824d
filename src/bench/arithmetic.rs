//! Floating-point operations and bytes that a forward pass cannot do without, counted from the geometry.

use serde::Serialize;

use crate::model::cache::Representation;
use crate::model::config::ModelConfig;
use crate::model::decoder::{PREFILL_RUN, WeightBytes};
use crate::model::operations::{attention_flops, head_flops, layer_flops, pair_flops};

/// What a workload works on.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The model's geometry.
    pub config: &'a ModelConfig,
    /// Bytes of the weights.
    pub weights: WeightBytes,
    /// In which elements the cache holds keys and values.
    pub cache: Representation,
    /// T, the prompt's tokens.
    pub tokens: usize,
    /// Timed decoding steps.
    pub steps: usize,
}

/// What a piece of work cannot do without.
///
/// Units: floating-point operations (a multiplication and an addition are two), bytes, tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Arithmetic {
    /// Tokens that went through the model.
    pub tokens: usize,
    /// Of the linear layers: projections, feed-forward, output head.
    pub linear_flops: f64,
    /// Of attention: q·k and p·v over the keys that each query sees; the softmax is not counted.
    pub attention_flops: f64,
    /// Bytes to be read: the weights once a pass and the keys and values that are held.
    pub bytes: f64,
}

impl Arithmetic {
    /// Of a prompt: 2 operations per weight and token, the output head for the last token only, and causal
    /// attention, in which query i sees i + 1 keys, or those of its layer's window.
    pub fn of_prefill(shape: &Shape<'_>) -> Self {
        let (config, tokens) = (shape.config, shape.tokens);
        let passes = tokens.div_ceil(PREFILL_RUN) as f64;
        Self {
            tokens,
            linear_flops: layer_flops(config) * tokens as f64 + head_flops(config),
            attention_flops: attention_flops(config, tokens),
            bytes: passes * shape.weights.per_pass as f64
                + config.cache_bytes(tokens, shape.cache) as f64,
        }
    }

    /// Of the timed steps after a prompt of which every KV head holds `held` tokens.
    ///
    /// The step before the timed ones adds a token too, so that timed step k (from 1) sees `held + 1 + k` keys.
    pub fn of_decoding(shape: &Shape<'_>, held: usize) -> Self {
        let (config, steps) = (shape.config, shape.steps as f64);
        let seen = steps * (held as f64 + 1.0) + steps * (steps + 1.0) / 2.0;
        let bytes_of = |step| config.cache_bytes(held + 1 + step, shape.cache) as f64;
        let bytes_seen: f64 = (1..=shape.steps).map(bytes_of).sum();
        Self {
            tokens: shape.steps,
            linear_flops: steps * (layer_flops(config) + head_flops(config)),
            attention_flops: pair_flops(config) * seen,
            bytes: steps * shape.weights.per_pass as f64 + bytes_seen,
        }
    }

    /// All operations.
    pub fn flops(&self) -> f64 {
        self.linear_flops + self.attention_flops
    }
}

#[cfg(test)]
pub(super) mod tests;
