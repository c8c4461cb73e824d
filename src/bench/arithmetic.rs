//! Floating-point operations and bytes that a forward pass cannot do without, counted from the geometry.

use serde::Serialize;

use crate::model::cache::Representation;
use crate::model::config::ModelConfig;
use crate::model::decoder::{PREFILL_RUN, WeightBytes};

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
    /// attention, in which query i sees i + 1 keys.
    pub fn of_prefill(shape: &Shape<'_>) -> Self {
        let (config, tokens) = (shape.config, shape.tokens);
        let passes = tokens.div_ceil(PREFILL_RUN) as f64;
        let pairs = tokens as f64 * (tokens as f64 + 1.0) / 2.0;
        Self {
            tokens,
            linear_flops: layer_flops(config) * tokens as f64 + head_flops(config),
            attention_flops: pair_flops(config) * pairs,
            bytes: passes * shape.weights.per_pass as f64
                + (tokens * config.cache_bytes_per_token(shape.cache)) as f64,
        }
    }

    /// Of the timed steps after a prompt of which every KV head holds `held` tokens.
    ///
    /// The step before the timed ones adds a token too, so that timed step k (from 1) sees `held + 1 + k` keys.
    pub fn of_decoding(shape: &Shape<'_>, held: usize) -> Self {
        let (config, steps) = (shape.config, shape.steps as f64);
        let seen = steps * (held as f64 + 1.0) + steps * (steps + 1.0) / 2.0;
        Self {
            tokens: shape.steps,
            linear_flops: steps * (layer_flops(config) + head_flops(config)),
            attention_flops: pair_flops(config) * seen,
            bytes: steps * shape.weights.per_pass as f64
                + seen * config.cache_bytes_per_token(shape.cache) as f64,
        }
    }

    /// All operations.
    pub fn flops(&self) -> f64 {
        self.linear_flops + self.attention_flops
    }
}

/// Numbers in the matrices of one layer.
fn layer_weights(config: &ModelConfig) -> usize {
    let (hidden, d) = (config.hidden_size, config.head_dim);
    let (q, kv) = (
        config.num_attention_heads * d,
        config.num_key_value_heads * d,
    );
    2 * hidden * q + 2 * hidden * kv + 3 * hidden * config.intermediate_size
}

/// Of all layers' matrices, for one token.
pub(super) fn layer_flops(config: &ModelConfig) -> f64 {
    2.0 * (layer_weights(config) * config.num_hidden_layers) as f64
}

/// Of the output head, for one token.
pub(super) fn head_flops(config: &ModelConfig) -> f64 {
    2.0 * (config.vocab_size * config.hidden_size) as f64
}

/// Of one query and one key in every query head of every layer: D multiplications and additions for q·k, as
/// many for p·v.
pub(super) fn pair_flops(config: &ModelConfig) -> f64 {
    4.0 * (config.head_dim * config.num_attention_heads * config.num_hidden_layers) as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::config::FAMILIES;

    /// 2 layers, 4 query and 2 KV heads of 3 dimensions, hidden 5, feed-forward 7, 11 tokens in the vocabulary.
    pub(crate) fn small() -> ModelConfig {
        ModelConfig {
            family: FAMILIES[0],
            vocab_size: 11,
            hidden_size: 5,
            intermediate_size: 7,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 3,
            max_position_embeddings: 100,
            rms_norm_eps: 1e-5,
            rope_frequencies: vec![],
            tie_word_embeddings: true,
        }
    }

    /// All of them in float32: 55 in the embedding, 285 in each layer, five norms of 5.
    pub(crate) const WEIGHTS: WeightBytes = WeightBytes {
        held: 2600,
        per_pass: 2600,
    };

    #[test]
    fn weights_by_hand() {
        // Layer: q and o 5 x 12, k and v 5 x 6, three of 5 x 7: 120 + 60 + 105.
        assert_eq!(layer_weights(&small()), 285);
    }

    #[test]
    fn operations_by_hand() {
        let config = small();
        let shape = Shape {
            config: &config,
            weights: WEIGHTS,
            cache: Representation::FLOAT32,
            tokens: 3,
            steps: 2,
        };
        let prefill = Arithmetic::of_prefill(&shape);
        // 3 tokens x 570 weights and the head once, two operations each.
        assert_eq!(prefill.linear_flops, 2.0 * (3.0 * 570.0 + 55.0));
        // 1 + 2 + 3 pairs, 2 layers, 4 heads, 3 dimensions, two products of two operations.
        assert_eq!(prefill.attention_flops, 6.0 * 2.0 * 4.0 * 3.0 * 4.0);
        // The weights once, and 3 tokens of 2 x 2 layers x 2 heads x 3 numbers.
        assert_eq!(prefill.bytes, 2600.0 + (3 * 24 * 4) as f64);
        assert_eq!((prefill.tokens, prefill.flops()), (3, 3530.0 + 576.0));
        let decoding = Arithmetic::of_decoding(&shape, 3);
        // One token before them: the timed steps see 5 and 6 keys.
        assert_eq!(decoding.attention_flops, 11.0 * 96.0);
        assert_eq!(decoding.linear_flops, 2.0 * 2.0 * (570.0 + 55.0));
        assert_eq!(decoding.bytes, 2.0 * 2600.0 + 11.0 * 96.0);
    }

    #[test]
    fn long_prompts_read_the_weights_once_a_run() {
        let config = small();
        let shape = |tokens| Shape {
            config: &config,
            weights: WEIGHTS,
            cache: Representation::FLOAT32,
            tokens,
            steps: 1,
        };
        let bytes = |tokens| Arithmetic::of_prefill(&shape(tokens)).bytes;
        assert_eq!(bytes(PREFILL_RUN + 1) - bytes(PREFILL_RUN), 2600.0 + 96.0);
    }
}
