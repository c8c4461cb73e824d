//! Layers whose queries see a window of keys: every implementation against the definition.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};

use super::{GroupRows, RowReader, Watch, attend, attend_on_device, blocks, cpu};
use crate::model::cache::{KvCache, Representation};
use crate::model::config::{FAMILIES, LayerKind, ModelConfig};

const GROUP: usize = 3;
const KV_HEADS: usize = 2;
const D: usize = 24;

fn empty_cache(window: usize, dtype: DType) -> KvCache {
    let config = ModelConfig {
        family: FAMILIES[0],
        vocab_size: 8,
        hidden_size: GROUP * KV_HEADS * D,
        intermediate_size: 8,
        layers: vec![LayerKind {
            window: Some(window),
            rope: 0,
        }],
        num_attention_heads: GROUP * KV_HEADS,
        num_key_value_heads: KV_HEADS,
        head_dim: D,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        ropes: vec![],
        attention_scale: None,
        tie_word_embeddings: true,
    };
    let held_as = Representation::of(dtype).unwrap();
    KvCache::new(&config, 4, held_as, &Device::Cpu).unwrap()
}

fn wave(heads: usize, tokens: usize, step: f64) -> Tensor {
    let value = |i| (((i as f64 * step).sin() * 43_758.547).fract() * 1.5) as f32;
    let values: Vec<f32> = (0..heads * tokens * D).map(value).collect();
    Tensor::from_vec(values, (heads, tokens, D), &Device::Cpu).unwrap()
}

/// A text of `tokens`, with queries of its last `n`.
struct Text {
    queries: Tensor,
    cache: KvCache,
    first: usize,
}

impl Text {
    fn new(tokens: usize, n: usize, window: usize, dtype: DType) -> Self {
        let mut cache = empty_cache(window, dtype);
        let (keys, values) = (wave(KV_HEADS, tokens, 2.3), wave(KV_HEADS, tokens, 0.9));
        cache.append(0, &keys, &values).unwrap();
        cache.advance(tokens).unwrap();
        Self {
            queries: wave(GROUP * KV_HEADS, n, 1.7),
            cache,
            first: tokens - n,
        }
    }

    /// Outputs `(n, H_q, D)` and rows `[head][query][slot]` by the definition, in float64.
    fn by_definition(&self, window: usize) -> (Vec<f64>, Vec<Vec<Vec<f64>>>) {
        let layer = self.cache.layer(0);
        let rows = |x: &Tensor| x.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
        let queries = self.queries.to_vec3::<f32>().unwrap();
        let n = queries[0].len();
        let mut output = vec![0.0; n * GROUP * KV_HEADS * D];
        let mut all_rows = Vec::new();
        for (h, queries) in queries.iter().enumerate() {
            let head = &layer.heads[h / GROUP];
            let (keys, values) = (rows(&head.keys().unwrap()), rows(&head.values().unwrap()));
            let mut of_head = Vec::new();
            for (i, query) in queries.iter().enumerate() {
                let position = self.first + i;
                let sees = |p: usize| p <= position && position - p < window;
                let weight = |slot: usize| {
                    let products = query.iter().zip(&keys[slot]);
                    let product: f64 = products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    let seen = sees(head.positions()[slot] as usize);
                    f64::from(u8::from(seen)) * (product / (D as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..keys.len()).map(weight).collect();
                let sum: f64 = weights.iter().sum();
                let row: Vec<f64> = weights.iter().map(|w| w / sum).collect();
                let line = &mut output[(i * GROUP * KV_HEADS + h) * D..][..D];
                for (p, value) in row.iter().zip(&values) {
                    let sums = line.iter_mut().zip(value);
                    sums.for_each(|(sum, v)| *sum += p * f64::from(*v));
                }
                of_head.push(row);
            }
            all_rows.push(of_head);
        }
        (output, all_rows)
    }
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

fn assert_close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let close = (f64::from(*got) - want).abs() < 2e-6;
        assert!(close, "{what} at {i}: {got} against {want}");
    }
}

/// Texts, queries and windows on both sides of the borders of chunks, tiles and pieces.
const SHAPES: [(usize, usize, usize); 11] = [
    (10, 10, 1),
    (200, 200, 7),
    (200, 130, 64),
    (300, 3, 65),
    (300, 1, 64),
    (300, 4, 100),
    (1300, 1, 600),
    (1300, 2, 1100),
    (1300, 70, 513),
    (90, 90, 90),
    (90, 90, 1000),
];

#[test]
fn every_implementation_equals_the_definition() {
    for (tokens, n, window) in SHAPES {
        for dtype in [DType::F32, DType::BF16] {
            let what = format!("{n} of {tokens} tokens, window {window}, {dtype:?}");
            let text = Text::new(tokens, n, window, dtype);
            let (want, want_rows) = text.by_definition(window);
            let want_rows = want_rows.concat().concat();
            let (layer, first) = (text.cache.layer(0), text.first);
            let attended = attend(&text.queries, layer, first, &[]).unwrap();
            assert_close(&numbers(&attended), &want, &what);
            let by_blocks = blocks::attend(&text.queries, layer, first, &[]).unwrap();
            assert_close(&numbers(&by_blocks), &want, &what);
            for rows in [
                cpu::probabilities(&text.queries, layer, first),
                blocks::probabilities(&text.queries, layer, first),
            ] {
                let rows = numbers(&rows.unwrap());
                assert_close(&rows, &want_rows, &what);
                let unseen = rows
                    .iter()
                    .zip(&want_rows)
                    .filter(|(_, want)| **want == 0.0);
                assert!(unseen.into_iter().all(|(got, _)| *got == 0.0), "{what}");
            }
            if dtype == DType::F32 {
                let on_device = attend_on_device(&text.queries, layer, first, &[]).unwrap();
                assert_close(&numbers(&on_device), &want, &what);
            }
        }
    }
}

/// Rows as they are read, by position and query head.
#[derive(Default)]
struct Read(Mutex<BTreeMap<(usize, usize), Vec<f32>>>);

impl RowReader for Read {
    fn read(&self, rows: &GroupRows<'_>) {
        for position in rows.positions.clone() {
            for g in 0..rows.group {
                let head = rows.kv_head * rows.group + g;
                let row = rows.row(position, g).to_vec();
                let twice = self.0.lock().unwrap().insert((position, head), row);
                assert!(twice.is_none(), "row {position} of head {head} came twice");
            }
        }
    }
}

#[test]
fn watched_rows_are_zero_outside_the_window_and_change_no_bit() {
    for (tokens, n, window) in SHAPES {
        let text = Text::new(tokens, n, window, DType::F32);
        let (_, want) = text.by_definition(window);
        let (layer, first) = (text.cache.layer(0), text.first);
        let bare = attend(&text.queries, layer, first, &[]).unwrap();
        let read = Read::default();
        let watch = Watch {
            from: first + n / 3,
            reader: &read,
        };
        let watched = attend(&text.queries, layer, first, &[watch]).unwrap();
        assert_eq!(numbers(&watched), numbers(&bare));
        let read = read.0.into_inner().unwrap();
        assert_eq!(read.len(), GROUP * KV_HEADS * (n - n / 3));
        for ((position, head), row) in read {
            assert_eq!(row.len(), position + 1);
            let want = &want[head][position - first];
            for (key, (got, want)) in row.iter().zip(want).enumerate() {
                let close = (f64::from(*got) - want).abs() <= 3e-6 * want;
                assert!(close, "key {key} of {position}: {got} against {want}");
            }
        }
    }
}

#[test]
fn only_what_later_tokens_see_is_counted_and_kept() {
    let mut cache = Text::new(50, 1, 20, DType::F32).cache;
    assert_eq!(cache.lengths(), [[20, 20]]);
    assert_eq!(cache.bytes(), 2 * 20 * 2 * D * 4);
    assert!(cache.hides());
    let slots: Vec<u32> = (30..50).collect();
    assert_eq!(cache.slots_in_sight(), [[slots.clone(), slots]]);
    assert_eq!(cache.firsts_in_sight(), [30]);
    let kept = cache.cut(&cache.slots_in_sight(), 0).unwrap();
    assert_eq!(kept.bytes(), cache.bytes());
    assert!(!kept.hides());
    assert!(kept.allocated_bytes() < cache.allocated_bytes());
    // Going back needs what the window had passed, which a full cache still holds.
    cache.rewind(40).unwrap();
    assert_eq!(cache.firsts_in_sight(), [20]);
    assert_eq!(cache.lengths(), [[20, 20]]);
}

/// A head from which tokens left in the middle sees what is left in its window, in order.
#[test]
fn tokens_that_leave_do_not_disturb_the_window() {
    let (tokens, window) = (40, 16);
    let mut text = Text::new(tokens, 1, window, DType::F32);
    text.cache.evict(0, &[vec![3, 25, 30], vec![38]]).unwrap();
    let positions = text.cache.layer(0).heads[0].positions().to_vec();
    assert!(positions.is_sorted() && positions.len() == 37);
    let (want, _) = text.by_definition(window);
    let attended = attend(&text.queries, text.cache.layer(0), tokens - 1, &[]).unwrap();
    assert_close(&numbers(&attended), &want, "after eviction");
    let mut list: Vec<u32> = (0..tokens as u32).collect();
    text.cache.layer(0).without(&[3, 25, 30], &mut list);
    assert_eq!(list, positions);
    assert_eq!(text.cache.lengths(), [[14, 15]]);
}
