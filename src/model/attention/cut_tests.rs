//! Attention from what a cut left, against attention to all keys of which the others weigh nothing.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{attend, attend_on_device};
use crate::model::cache::{KvCache, Representation};
use crate::model::config::{FAMILIES, LayerKind, ModelConfig};

/// One layer's queries, keys and values, and which keys each KV head keeps.
struct Layer {
    config: ModelConfig,
    tokens: usize,
    /// Queries after the prompt, whose own keys every head has.
    new: usize,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    kept: Vec<Vec<u32>>,
}

impl Layer {
    fn random(seed: u64, kv_heads: usize, group: usize, d: usize, most: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tokens = 1 + random.next_u32() as usize % most;
        let new = 1 + random.next_u32() as usize % 20;
        let mut tensor = |heads: usize, rows: usize| {
            let uniform = |_| (random.next_u32() as f32 / u32::MAX as f32 - 0.5) * 4.0;
            let numbers: Vec<f32> = (0..heads * rows * d).map(uniform).collect();
            Tensor::from_vec(numbers, (heads, rows, d), &Device::Cpu).unwrap()
        };
        let queries = tensor(kv_heads * group, new);
        let (keys, values) = (
            tensor(kv_heads, tokens + new),
            tensor(kv_heads, tokens + new),
        );
        let kept = (0..kv_heads).map(|_| {
            let share = random.next_u32() % 101; // per cent; from nothing to everything
            let chosen = (0..tokens as u32).filter(|_| random.next_u32() % 100 < share);
            chosen.collect()
        });
        let kept = kept.collect();
        Self {
            config: config(kv_heads, group, d),
            tokens,
            new,
            queries,
            keys,
            values,
            kept,
        }
    }

    /// The cache of the prompt, cut, with the new tokens' keys and values behind what was kept.
    fn cut(&self, dtype: DType) -> KvCache {
        let mut cache = KvCache::new(
            &self.config,
            1,
            Representation::of(dtype).unwrap(),
            &Device::Cpu,
        )
        .unwrap();
        let part = |x: &Tensor, from, rows| x.narrow(1, from, rows).unwrap().contiguous().unwrap();
        let add = |cache: &mut KvCache, from: usize, rows: usize| {
            let (keys, values) = (part(&self.keys, from, rows), part(&self.values, from, rows));
            cache.append(0, &keys, &values).unwrap();
            cache.advance(rows).unwrap();
        };
        add(&mut cache, 0, self.tokens);
        cache.retain(std::slice::from_ref(&self.kept), 0).unwrap();
        add(&mut cache, self.tokens, self.new);
        cache
    }

    /// `(n, H_q * D)` by the definition, over all keys, in float64.
    fn masked(&self, dtype: DType) -> Vec<f64> {
        let rounded = |x: &Tensor| -> Vec<Vec<Vec<f64>>> {
            let x = x.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap();
            x.to_vec3().unwrap()
        };
        let (keys, values) = (rounded(&self.keys), rounded(&self.values));
        let queries = self.queries.to_dtype(DType::F64).unwrap();
        let queries: Vec<Vec<Vec<f64>>> = queries.to_vec3().unwrap();
        let (d, group) = (self.config.head_dim, queries.len() / keys.len());
        let mut all = Vec::new();
        for row in 0..self.new {
            for (h, of_head) in queries.iter().enumerate() {
                let kv = h / group;
                let weight = |key: usize| -> f64 {
                    let seen = key <= self.tokens + row;
                    let stays = key >= self.tokens || self.kept[kv].contains(&(key as u32));
                    let dot = of_head[row].iter().zip(&keys[kv][key]).map(|(q, k)| q * k);
                    let logit = dot.sum::<f64>() / (d as f64).sqrt();
                    if seen && stays { logit.exp() } else { 0.0 }
                };
                let weights: Vec<f64> = (0..keys[kv].len()).map(weight).collect();
                let sum: f64 = weights.iter().sum();
                all.extend((0..d).map(|x| {
                    let terms = weights.iter().zip(&values[kv]).map(|(w, v)| w * v[x]);
                    terms.sum::<f64>() / sum
                }));
            }
        }
        all
    }
}

fn config(kv_heads: usize, group: usize, d: usize) -> ModelConfig {
    ModelConfig {
        family: FAMILIES[0],
        vocab_size: 8,
        hidden_size: kv_heads * group * d,
        intermediate_size: 8,
        layers: vec![LayerKind::GLOBAL; 1],
        num_attention_heads: kv_heads * group,
        num_key_value_heads: kv_heads,
        head_dim: d,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        ropes: vec![],
        attention_scale: None,
        tie_word_embeddings: true,
    }
}

fn check(layer: &Layer, dtype: DType) -> Result<(), TestCaseError> {
    let (cache, want) = (layer.cut(dtype), layer.masked(dtype));
    let lengths: Vec<usize> = layer.kept.iter().map(|k| k.len() + layer.new).collect();
    prop_assert_eq!(cache.lengths(), vec![lengths]);
    // A device's kernels round queries and outputs to the cache's type.
    let rounded = match dtype {
        DType::F32 => 1e-5,
        _ => 2e-2,
    };
    for (on_device, allowed) in [(false, 1e-5), (true, rounded)] {
        let attend = if on_device { attend_on_device } else { attend };
        let got = attend(&layer.queries, cache.layer(0), layer.tokens, &[]).unwrap();
        prop_assert_eq!(got.dims()[0], layer.new);
        let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let distance = (f64::from(*got) - want).abs();
            prop_assert!(distance < allowed, "{}, {}: {} {}", on_device, i, got, want);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_cut_cache_equals_masking_what_it_lost(
        seed in any::<u64>(),
        kv_heads in 1usize..4,
        group in 1usize..5,
        d in prop::sample::select(vec![2usize, 8, 20]),
    ) {
        check(&Layer::random(seed, kv_heads, group, d, 60), DType::F32)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Beyond one piece of decoding and one chunk of prefill, in every type.
    #[test]
    fn a_long_cut_cache_equals_masking_what_it_lost(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        check(&Layer::random(seed, 2, 3, 64, 1500), dtype)?;
    }
}
