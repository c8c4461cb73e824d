//! Floating-point operations of a model's layers and head, counted from the geometry.

use serde::Serialize;

use super::config::ModelConfig;

/// Operations of prompts that pass through a model.
///
/// Paper: none: house definition. Differs: norms, activations, rotation and softmax are not counted; nor is measuring.
/// Units: floating-point operations; a multiplication and an addition are two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Operations {
    /// Projections and feed-forward of all layers.
    pub layers: f64,
    /// q·k and p·v in all layers, over the keys that each query sees.
    pub attention: f64,
    /// The output head, for the last token of every prompt.
    pub head: f64,
}

impl Operations {
    /// Of prompts of these lengths, the head included.
    pub fn of_prompts(config: &ModelConfig, lengths: &[usize]) -> Self {
        let tokens: f64 = lengths.iter().map(|&t| t as f64).sum();
        let attention = lengths.iter().map(|&t| attention_flops(config, t));
        Self {
            layers: layer_flops(config) * tokens,
            attention: attention.sum(),
            head: head_flops(config) * lengths.len() as f64,
        }
    }
}

/// Numbers in the matrices of one layer.
pub(crate) fn layer_weights(config: &ModelConfig) -> usize {
    let (hidden, d) = (config.hidden_size, config.head_dim);
    let (q, kv) = (
        config.num_attention_heads * d,
        config.num_key_value_heads * d,
    );
    2 * hidden * q + 2 * hidden * kv + 3 * hidden * config.intermediate_size
}

/// Of all layers' matrices, for one token.
pub(crate) fn layer_flops(config: &ModelConfig) -> f64 {
    2.0 * (layer_weights(config) * config.num_hidden_layers()) as f64
}

/// Of the output head, for one token.
pub(crate) fn head_flops(config: &ModelConfig) -> f64 {
    2.0 * (config.vocab_size * config.hidden_size) as f64
}

/// Of one query and one key in every query head of every layer: D multiplications and additions for q·k, as
/// many for p·v.
pub(crate) fn pair_flops(config: &ModelConfig) -> f64 {
    4.0 * (config.head_dim * config.num_attention_heads * config.num_hidden_layers()) as f64
}

/// Of attention in all layers over a prompt, in each of which a query sees what its window shows.
pub(crate) fn attention_flops(config: &ModelConfig, tokens: usize) -> f64 {
    let per_pair = 4.0 * (config.head_dim * config.num_attention_heads) as f64;
    let layers = config.layers.iter();
    let pairs: f64 = layers.map(|kind| pairs_seen(kind.window, tokens)).sum();
    per_pair * pairs
}

/// Pairs of a query and a key that it sees, in one head over a prompt: query i sees i + 1 keys, at most its window.
pub(crate) fn pairs_seen(window: Option<usize>, tokens: usize) -> f64 {
    let span = window.unwrap_or(tokens).min(tokens) as f64;
    span * (span + 1.0) / 2.0 + (tokens as f64 - span) * span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{FAMILIES, LayerKind};

    /// 4 query and 2 KV heads of 3 dimensions, hidden 5, feed-forward 7, 11 tokens in the vocabulary.
    fn small(layers: Vec<LayerKind>) -> ModelConfig {
        ModelConfig {
            family: FAMILIES[0],
            vocab_size: 11,
            hidden_size: 5,
            intermediate_size: 7,
            layers,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 3,
            max_position_embeddings: 100,
            rms_norm_eps: 1e-5,
            ropes: vec![],
            attention_scale: None,
            tie_word_embeddings: true,
        }
    }

    const NEAR: LayerKind = LayerKind {
        window: Some(2),
        rope: 0,
    };

    #[test]
    fn weights_by_hand() {
        // Layer: q and o 5 x 12, k and v 5 x 6, three of 5 x 7: 120 + 60 + 105.
        assert_eq!(layer_weights(&small(vec![LayerKind::GLOBAL])), 285);
    }

    #[test]
    fn operations_of_prompts_by_hand() {
        let config = small(vec![LayerKind::GLOBAL, NEAR, NEAR]);
        let found = Operations::of_prompts(&config, &[4, 1]);
        assert_eq!(
            found.layers,
            (5 * 3 * 285 * 2) as f64,
            "5 tokens, 3 layers, twice"
        );
        // Keys that queries see: 1 + 2 + 3 + 4 in the global layer, 1 + 2 + 2 + 2 in the others; 1 for the short prompt.
        let pairs = (10 + 2 * 7) + 3;
        // 4 heads of 3 dimensions, two products of two operations.
        assert_eq!(found.attention, (pairs * 4 * 3 * 4) as f64);
        assert_eq!(
            found.head,
            (2 * 2 * 11 * 5) as f64,
            "the last token of each"
        );
        assert_eq!(Operations::of_prompts(&config, &[]), Operations::default());
    }

    #[test]
    fn windows_show_what_a_loop_counts() {
        for window in [None, Some(1), Some(2), Some(7), Some(100)] {
            for tokens in [0, 1, 2, 6, 7, 8, 40] {
                let seen = |i: usize| (i + 1).min(window.unwrap_or(usize::MAX));
                let counted: usize = (0..tokens).map(seen).sum();
                assert_eq!(
                    pairs_seen(window, tokens),
                    counted as f64,
                    "{window:?} {tokens}"
                );
            }
        }
    }
}
