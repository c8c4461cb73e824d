//! One attention layer of SmolLM2-135M's shape with made-up weights, and its cache after a prompt.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use kvprof::error::Result;
use kvprof::model::attention::{AttentionProbe, AttentionView};
use kvprof::model::cache::KvCache;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::{Decoder, PREFILL_RUN};
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;

const HIDDEN: usize = 576;
const VOCABULARY: usize = 512;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const INNER: usize = 64;
const HEAD_DIM: usize = 64;

/// The queries of the last tokens and the cache of a prompt.
pub struct OneLayer {
    /// Queries after RoPE, `(H_q, n, D)`.
    pub queries: Tensor,
    /// Keys and values of all tokens.
    pub cache: KvCache,
}

/// Prefills `tokens` tokens and keeps the queries of the last `rows`.
pub fn one_layer(tokens: usize, rows: usize) -> OneLayer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer.gguf");
    std::fs::write(&path, bytes()).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    let decoder = Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32).unwrap();
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 37 % VOCABULARY) as u32).collect();
    let mut cache = decoder.new_cache(tokens).unwrap();
    let mut last = Last(None);
    let run = PREFILL_RUN;
    decoder.prefill(&ids, &mut cache, run, &mut last).unwrap();
    let queries = last.0.unwrap();
    let n = queries.dim(1).unwrap();
    let queries = queries.narrow(1, n - rows, rows).unwrap();
    OneLayer {
        queries: queries.contiguous().unwrap(),
        cache,
    }
}

/// Remembers the queries of the last run.
struct Last(Option<Tensor>);

impl AttentionProbe for Last {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        self.0 = Some(view.queries.clone());
        Ok(())
    }
}

fn bytes() -> Vec<u8> {
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let shapes = [
        ("token_embd", vec![VOCABULARY, HIDDEN]),
        ("output_norm", vec![HIDDEN]),
        ("blk.0.attn_norm", vec![HIDDEN]),
        ("blk.0.attn_q", vec![q, HIDDEN]),
        ("blk.0.attn_k", vec![kv, HIDDEN]),
        ("blk.0.attn_v", vec![kv, HIDDEN]),
        ("blk.0.attn_output", vec![HIDDEN, q]),
        ("blk.0.ffn_norm", vec![HIDDEN]),
        ("blk.0.ffn_gate", vec![INNER, HIDDEN]),
        ("blk.0.ffn_up", vec![INNER, HIDDEN]),
        ("blk.0.ffn_down", vec![HIDDEN, INNER]),
    ];
    let tensors: Vec<(String, QTensor)> = shapes
        .iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let value = |i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5;
            let values: Vec<f32> = (0..count).map(value).collect();
            let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
            let tensor = QTensor::quantize(&tensor, GgmlDType::F32).unwrap();
            (format!("{name}.weight"), tensor)
        })
        .collect();
    let number = |n: usize| Value::U32(n as u32);
    let fields = [
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", number(1)),
        ("llama.vocab_size", number(VOCABULARY)),
        ("llama.context_length", number(8192)),
        ("llama.embedding_length", number(HIDDEN)),
        ("llama.feed_forward_length", number(INNER)),
        ("llama.attention.head_count", number(HEADS)),
        ("llama.attention.head_count_kv", number(KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    let fields: Vec<(&str, &Value)> = fields.iter().map(|(k, v)| (*k, v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut bytes = Cursor::new(Vec::new());
    write(&mut bytes, &fields, &tensors).unwrap();
    bytes.into_inner()
}
