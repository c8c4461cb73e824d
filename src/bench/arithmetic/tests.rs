use super::*;
use crate::model::config::{FAMILIES, LayerKind};

/// 2 layers, 4 query and 2 KV heads of 3 dimensions, hidden 5, feed-forward 7, 11 tokens in the vocabulary.
pub(crate) fn small() -> ModelConfig {
    ModelConfig {
        family: FAMILIES[0],
        vocab_size: 11,
        hidden_size: 5,
        intermediate_size: 7,
        layers: vec![LayerKind::GLOBAL; 2],
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

/// All of them in float32: 55 in the embedding, 285 in each layer, five norms of 5.
pub(crate) const WEIGHTS: WeightBytes = WeightBytes {
    held: 2600,
    per_pass: 2600,
};

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
