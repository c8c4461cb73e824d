//! Every implementation against the definition, and what watching may not change.

use super::*;
use crate::model::cache::{KvCache, Representation};
use crate::model::config::{FAMILIES, LayerKind, ModelConfig};
use candle_core::Device;

fn config(h_q: usize, h_kv: usize, d: usize) -> ModelConfig {
    ModelConfig {
        family: FAMILIES[0],
        vocab_size: 8,
        hidden_size: h_q * d,
        intermediate_size: 8,
        layers: vec![LayerKind::GLOBAL; 1],
        num_attention_heads: h_q,
        num_key_value_heads: h_kv,
        head_dim: d,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        ropes: vec![],
        attention_scale: None,
        tie_word_embeddings: true,
    }
}

/// Queries, a cache of a type, and the keys and values that it holds, in float32.
fn filled(
    config: &ModelConfig,
    t: usize,
    scale: f64,
    dtype: DType,
) -> (Tensor, KvCache, Tensor, Tensor) {
    let device = Device::Cpu;
    let (h_q, h_kv, d) = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    );
    let wave = |n: usize, step: f64| -> Vec<f32> {
        (0..n)
            .map(|i| (((i as f64 * step).sin() * 43_758.547).fract() * scale) as f32)
            .collect()
    };
    let tensor =
        |h: usize, step| Tensor::from_vec(wave(h * t * d, step), (h, t, d), &device).unwrap();
    let (q, k, v) = (tensor(h_q, 1.7), tensor(h_kv, 2.3), tensor(h_kv, 0.9));
    let mut cache = KvCache::new(config, 3, Representation::of(dtype).unwrap(), &device).unwrap();
    cache.append(0, &k, &v).unwrap();
    cache.advance(t).unwrap();
    let rounded = |x: Tensor| x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
    (q, cache, rounded(k), rounded(v))
}

/// The definition, in float64, with loops.
fn by_hand(q: &Tensor, k: &Tensor, v: &Tensor, group: usize) -> (Vec<f64>, Vec<f64>) {
    let (h_q, t, d) = q.dims3().unwrap();
    let flat = |x: &Tensor| -> Vec<f64> {
        x.flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect()
    };
    let (q, k, v) = (flat(q), flat(k), flat(v));
    let mut probs = vec![0.0; h_q * t * t];
    let mut out = vec![0.0; t * h_q * d];
    for h in 0..h_q {
        let kv = h / group;
        for i in 0..t {
            let logit = |j: usize| -> f64 {
                (0..d)
                    .map(|x| q[(h * t + i) * d + x] * k[(kv * t + j) * d + x])
                    .sum::<f64>()
                    / (d as f64).sqrt()
            };
            let max = (0..=i).map(logit).fold(f64::MIN, f64::max);
            let sum: f64 = (0..=i).map(|j| (logit(j) - max).exp()).sum();
            for j in 0..=i {
                let p = (logit(j) - max).exp() / sum;
                probs[(h * t + i) * t + j] = p;
                for x in 0..d {
                    out[(i * h_q + h) * d + x] += p * v[(kv * t + j) * d + x];
                }
            }
        }
    }
    (out, probs)
}

fn assert_close(got: &Tensor, want: &[f64], what: &str) {
    let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*g) - w).abs() < 3e-6,
            "{what} at {i}: {g} against {w}"
        );
    }
}

#[test]
fn both_implementations_equal_the_definition() {
    let shapes = [(1, 1, 2, 1), (4, 2, 8, 5), (9, 3, 64, 130), (6, 6, 16, 65)];
    let with = |shape| [DType::F32, DType::BF16, DType::F16].map(|dtype| (shape, dtype));
    for ((h_q, h_kv, d, t), dtype) in shapes.into_iter().flat_map(with) {
        let config = config(h_q, h_kv, d);
        let (q, cache, k, v) = filled(&config, t, 1.5, dtype);
        let (out, probs) = by_hand(&q, &k, &v, h_q / h_kv);
        let layer = cache.layer(0);
        assert_close(&cpu::attend(&q, layer, 0, &[]).unwrap(), &out, "cpu output");
        assert_close(
            &blocks::attend(&q, layer, 0, &[]).unwrap(),
            &out,
            "block output",
        );
        assert_close(
            &cpu::probabilities(&q, layer, 0).unwrap(),
            &probs,
            "cpu rows",
        );
        assert_close(
            &blocks::probabilities(&q, layer, 0).unwrap(),
            &probs,
            "block rows",
        );
    }
}

/// Rows that are looked at, as they come.
#[derive(Default)]
struct Rows(std::sync::Mutex<Vec<(usize, usize, Vec<f32>)>>);

impl RowReader for Rows {
    fn read(&self, rows: &GroupRows<'_>) {
        let mut seen = self.0.lock().unwrap();
        for position in rows.positions.clone() {
            for head in 0..rows.group {
                let query_head = rows.kv_head * rows.group + head;
                seen.push((query_head, position, rows.row(position, head).to_vec()));
            }
        }
    }
}

/// A kernel computes the output, whoever watches; what is watched are the rows of blocks. Heads have gaps.
#[test]
fn a_device_shows_rows_that_change_no_bit_of_its_output() {
    let (config, n) = (config(6, 3, 16), 21);
    for (dtype, close) in [(DType::BF16, 1e-2), (DType::F16, 1e-3)] {
        let (q, full, _, _) = filled(&config, 50, 1.5, dtype);
        let last = q.narrow(1, 50 - n, n).unwrap().contiguous().unwrap();
        let kept: Vec<Vec<u32>> = [2, 7, 1]
            .map(|step| (0..50).filter(|i| i % step == 0 || *i >= 29).collect())
            .into();
        let cut = full.cut(&[kept], 2).unwrap();
        let layer = cut.layer(0);
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let alone = attend_on_device(&last, layer, 29, &[]).unwrap();
        let rows = Rows::default();
        let watch = |from| Watch {
            from,
            reader: &rows,
        };
        for watches in [vec![watch(40)], vec![watch(0), watch(60)], vec![watch(50)]] {
            rows.0.lock().unwrap().clear();
            let watched = attend_on_device(&last, layer, 29, &watches).unwrap();
            assert_eq!(flat(&alone), flat(&watched));
            let first = watches[0].from.clamp(29, 50);
            let seen = rows.0.lock().unwrap();
            assert_eq!(seen.len(), 6 * (50 - first));
            for (head, position, row) in seen.iter() {
                let held = sight(layer.heads[head / 2].positions(), None, *position).end;
                assert_eq!(row.len(), held);
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
        // Queries and outputs are rounded to the cache's type, as they are on a device.
        let blocks = blocks::attend(&last, layer, 29, &[]).unwrap();
        for (a, b) in flat(&alone).iter().zip(flat(&blocks)) {
            assert!((a - b).abs() < close, "{dtype:?}: {a} {b}");
        }
    }
}

#[test]
fn a_single_position_has_one_output_watched_or_not() {
    let config = config(4, 2, 8);
    let (q, cache, _, _) = filled(&config, 30, 1.5, DType::F32);
    let last = q.narrow(1, 29, 1).unwrap().contiguous().unwrap();
    let rows = Rows::default();
    let watch = Watch {
        from: 0,
        reader: &rows,
    };
    let outputs = [&[][..], &[watch]].map(|watches| {
        let output = attend_on_device(&last, cache.layer(0), 29, watches).unwrap();
        output.to_vec2::<f32>().unwrap()
    });
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(rows.0.lock().unwrap().len(), 4);
}

#[test]
fn queries_whose_own_keys_are_missing_go_through_blocks() {
    let config = config(2, 1, 8);
    let (q, full, _, _) = filled(&config, 20, 1.5, DType::F16);
    let kept = (0..20).filter(|i| *i != 15).collect();
    let cut = full.cut(&[vec![kept]], 0).unwrap();
    assert!(cut.layer(0).seen_by(10, 10).is_none());
    let last = q.narrow(1, 10, 10).unwrap().contiguous().unwrap();
    let got = attend_on_device(&last, cut.layer(0), 10, &[]).unwrap();
    let want = blocks::attend(&last, cut.layer(0), 10, &[]).unwrap();
    let rows = |x: Tensor| x.to_vec2::<f32>().unwrap();
    assert_eq!(rows(got), rows(want));
    let heads = full.layer(0).seen_by(5, 3).unwrap();
    assert_eq!((heads[0].start, heads[0].length), (0, 8));
}

/// Heads too wide for the kernel over ragged caches go through blocks, also where a position comes alone.
#[test]
fn heads_of_any_width_decode_as_on_a_device() {
    for d in [WIDEST_HEAD, WIDEST_HEAD + 2] {
        let config = config(4, 2, d);
        let (q, cache, _, _) = filled(&config, 20, 0.1, DType::F32);
        let mut cache = cache;
        cache
            .retain(&[vec![vec![3, 19], (0..20).collect()]], 0)
            .unwrap();
        let last = q.narrow(1, 19, 1).unwrap().contiguous().unwrap();
        let want = cpu::attend(&last, cache.layer(0), 19, &[]).unwrap();
        let want = want.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let want: Vec<f64> = want.into_iter().map(f64::from).collect();
        let got = attend_on_device(&last, cache.layer(0), 19, &[]).unwrap();
        assert_close(&got, &want, "one position");
    }
}

#[test]
fn later_rows_alone_equal_the_same_rows_of_all() {
    let config = config(4, 2, 8);
    let (q, cache, _, _) = filled(&config, 100, 2.0, DType::F32);
    let all = probabilities(&q, cache.layer(0), 0).unwrap();
    let tail = q.narrow(1, 70, 30).unwrap().contiguous().unwrap();
    let some = probabilities(&tail, cache.layer(0), 70).unwrap();
    let want = all.narrow(1, 70, 30).unwrap().flatten_all().unwrap();
    assert_close(
        &some,
        &want
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect::<Vec<_>>(),
        "tail",
    );
}

#[test]
fn huge_logits_stay_finite() {
    let config = config(2, 1, 4);
    let (q, cache, _, _) = filled(&config, 20, 500.0, DType::F32);
    let rows = probabilities(&q, cache.layer(0), 0)
        .unwrap()
        .sum(2)
        .unwrap();
    for sum in rows.flatten_all().unwrap().to_vec1::<f32>().unwrap() {
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}

/// Evicting keys must be the same as giving them no weight, in both implementations.
#[test]
fn a_cut_ragged_cache_equals_masking_the_same_keys() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        check_cutting(dtype);
    }
}

fn check_cutting(dtype: DType) {
    let (config, element) = (config(6, 3, 8), dtype.size_in_bytes());
    let (q, full, k, v) = filled(&config, 50, 1.5, dtype);
    let last = q.narrow(1, 49, 1).unwrap().contiguous().unwrap();
    let kept: Vec<Vec<u32>> = vec![
        (0..50).filter(|i| i % 3 == 0 || *i == 49).collect(),
        vec![49],
        (0..50).collect(),
    ];
    let cut = full.cut(std::slice::from_ref(&kept), 4).unwrap();
    assert_eq!(cut.lengths(), [[18, 1, 50]]);
    assert_eq!(cut.bytes(), (18 + 1 + 50) * 8 * 2 * element);
    assert_eq!(
        full.bytes(),
        150 * 8 * 2 * element,
        "the original is untouched"
    );
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (q, k, v) = (flat(&last), flat(&k), flat(&v));
    let mut want = vec![0f64; 6 * 8];
    for h in 0..6 {
        let kv = h / 2;
        let logit = |j: u32| -> f64 {
            let j = (kv * 50 + j as usize) * 8;
            let dot = (0..8).map(|x| f64::from(q[h * 8 + x]) * f64::from(k[j + x]));
            dot.sum::<f64>() / 8f64.sqrt()
        };
        let sum: f64 = kept[kv].iter().map(|&j| logit(j).exp()).sum();
        for &j in &kept[kv] {
            for x in 0..8 {
                let value = f64::from(v[(kv * 50 + j as usize) * 8 + x]);
                want[h * 8 + x] += logit(j).exp() / sum * value;
            }
        }
    }
    for got in [
        cpu::attend(&last, cut.layer(0), 49, &[]),
        blocks::attend(&last, cut.layer(0), 49, &[]),
    ] {
        assert_close(&got.unwrap(), &want, "cut");
    }
    let all: Vec<Vec<u32>> = vec![(0..50).collect(); 3];
    let mut same = full.copy(3).unwrap();
    same.retain(&[all], 0).unwrap();
    let (a, b) = (
        attend(&last, same.layer(0), 49, &[]),
        attend(&last, full.layer(0), 49, &[]),
    );
    assert_eq!(
        flat(&a.unwrap()),
        flat(&b.unwrap()),
        "a budget of T changes no bit"
    );
    assert!(same.retain(&[vec![vec![1, 1], vec![], vec![]]], 0).is_err());
    assert!(same.retain(&[vec![vec![50], vec![], vec![]]], 0).is_err());
    assert!(same.retain(&[vec![vec![0]]], 0).is_err());
    assert!(same.retain(&[], 0).is_err());
}
