//! A whole model small enough to write in a test.

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// Head dimension.
pub const HEAD_DIM: usize = 4;
/// Layers.
pub const LAYERS: usize = 2;

/// The bytes of a GGUF model of two layers: hidden 8, 12 tokens, context 64.
///
/// `change` may replace any tensor.
pub fn tiny_model(
    heads: usize,
    kv_heads: usize,
    mut change: impl FnMut(&str, Tensor) -> Tensor,
) -> Vec<u8> {
    let (q, kv) = (heads * HEAD_DIM, kv_heads * HEAD_DIM);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("token_embd.weight".into(), vec![12, 8]),
        ("output_norm.weight".into(), vec![8]),
        ("output.weight".into(), vec![12, 8]),
    ];
    for l in 0..LAYERS {
        for (part, shape) in [
            ("attn_norm", vec![8]),
            ("attn_q", vec![q, 8]),
            ("attn_k", vec![kv, 8]),
            ("attn_v", vec![kv, 8]),
            ("attn_output", vec![8, q]),
            ("ffn_norm", vec![8]),
            ("ffn_gate", vec![16, 8]),
            ("ffn_up", vec![16, 8]),
            ("ffn_down", vec![8, 16]),
        ] {
            shapes.push((format!("blk.{l}.{part}.weight"), shape));
        }
    }
    let tensors: Vec<(&str, QTensor)> = shapes
        .iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n)
                .map(|i| ((i * 37 + seed * 11) % 23) as f32 / 11.0 - 1.0)
                .collect();
            let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
            let tensor = change(name, tensor);
            (
                name.as_str(),
                QTensor::quantize(&tensor, GgmlDType::F32).unwrap(),
            )
        })
        .collect();
    let text = |s: &str| Value::String(s.into());
    let number = |n: usize| Value::U32(n as u32);
    let tokens = (0..12).map(|i| text(&format!("t{i}"))).collect();
    let fields: Vec<(&str, Value)> = vec![
        ("general.architecture", text("llama")),
        ("general.alignment", number(32)),
        ("llama.block_count", number(LAYERS)),
        ("llama.context_length", number(64)),
        ("llama.embedding_length", number(8)),
        ("llama.feed_forward_length", number(16)),
        ("llama.attention.head_count", number(heads)),
        ("llama.attention.head_count_kv", number(kv_heads)),
        ("llama.attention.key_length", number(HEAD_DIM)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.merges", Value::Array(vec![])),
    ];
    let fields: Vec<(&str, &Value)> = fields.iter().map(|(k, v)| (*k, v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (*k, v)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    write(&mut bytes, &fields, &tensors).unwrap();
    bytes.into_inner()
}
