//! Both kernels against the definition on ragged caches, on every instruction set.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};

use super::decode::{self, Piece};
use super::exponential::{SMALLEST, exponential};
use super::heads::{Heads, with_heads};
use super::{attend, prefill, probabilities};
use crate::compute::lanes::{LANES, Lanes, Portable};
use crate::model::attention::{GroupRows, RowReader, Watch};
use crate::model::cache::{KvCache, Representation};
use crate::model::config::{FAMILIES, LayerKind, ModelConfig};

/// Tokens of the text that caches are cut from.
const TOKENS: usize = 1100;

fn wave(shape: (usize, usize, usize), step: f64) -> Tensor {
    let value = |i| (((i as f64 * step).sin() * 43_758.547).fract() * 1.5) as f32;
    let values: Vec<f32> = (0..shape.0 * shape.1 * shape.2).map(value).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

const F32: &str = "f32";

/// Types of caches for heads of any dimension: the same for keys and values, and different ones.
const TYPES: [&str; 9] = [
    F32,
    "bf16",
    "f16",
    "k=bf16,v=f32",
    "k=f16,v=bf16",
    "q8",
    "k=q4(group=16,residual=40),v=q2",
    "k=f32,v=q4",
    "k=q2(residual=0),v=bf16",
];

/// Types for heads of a multiple of 64 dimensions.
const BLOCK_TYPES: [&str; 8] = [
    "q8_0",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "q8_0-hadamard",
    "k=q4_0-hadamard,v=q5_1",
    "k=f16,v=q4_1-hadamard",
];

/// A cache of one layer that keeps `lengths` tokens per KV head, the last `n` of the text among them.
fn cut_cache(
    held_as: &str,
    group: usize,
    d: usize,
    n: usize,
    lengths: &[usize],
) -> (Tensor, KvCache) {
    let h_kv = lengths.len();
    let config = ModelConfig {
        family: FAMILIES[0],
        vocab_size: 8,
        hidden_size: group * h_kv * d,
        intermediate_size: 8,
        layers: vec![LayerKind::GLOBAL; 1],
        num_attention_heads: group * h_kv,
        num_key_value_heads: h_kv,
        head_dim: d,
        max_position_embeddings: TOKENS,
        rms_norm_eps: 1e-5,
        ropes: vec![],
        attention_scale: None,
        tie_word_embeddings: true,
    };
    let held_as: Representation = held_as.parse().unwrap();
    let mut full = KvCache::new(&config, TOKENS, held_as, &Device::Cpu).unwrap();
    let (k, v) = (wave((h_kv, TOKENS, d), 2.3), wave((h_kv, TOKENS, d), 0.9));
    full.append(0, &k, &v).unwrap();
    full.advance(TOKENS).unwrap();
    let prefix = TOKENS - n;
    let kept = |&length: &usize| -> Vec<u32> {
        let early = (0..length - n).map(|i| i * prefix / (length - n));
        early.chain(prefix..TOKENS).map(|i| i as u32).collect()
    };
    let kept = lengths.iter().map(kept).collect();
    let queries = wave((group * h_kv, n, d), 1.7);
    (queries, full.cut(&[kept], 0).unwrap())
}

/// The definition on the numbers that are held, in float64, with loops: `(n, H_q, D)`.
fn by_definition(heads: &Heads<'_>) -> Vec<f64> {
    let (n, d) = (heads.n, heads.d);
    let mut output = vec![0.0; n * heads.h_q * d];
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    for h in 0..heads.h_q {
        let head = h / heads.group();
        let ([mut key_room, mut value_room], held) = (<[Vec<f32>; 2]>::default(), heads.held(head));
        let all = 0..heads.sight(head, n - 1).end;
        let keys = held.keys.widened::<Portable>(all.clone(), d, &mut key_room);
        let values = held.values.widened::<Portable>(all, d, &mut value_room);
        for row in 0..n {
            let query = &heads.queries(h, row)[..d];
            let keys = keys.chunks(d).take(heads.sight(head, row).end);
            let weights: Vec<f64> = keys
                .map(|key| (product(query, key) / (d as f64).sqrt()).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            let line = &mut output[(row * heads.h_q + h) * d..][..d];
            for (weight, value) in weights.iter().zip(values.chunks(d)) {
                for (x, v) in line.iter_mut().zip(value) {
                    *x += weight / sum * f64::from(*v);
                }
            }
        }
    }
    output
}

fn assert_close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*got) - want).abs() < 2e-6,
            "{what} at {i}: {got} against {want}"
        );
    }
}

/// Lengths on both sides of a tile's and a piece's border.
const LENGTHS: [[usize; 3]; 4] = [
    [63, 64, 65],
    [511, 512, 513],
    [1024, 1025, 4],
    [128, TOKENS, 577],
];

#[test]
fn both_kernels_equal_the_definition_on_ragged_caches() {
    for lengths in LENGTHS {
        for group in 1..=3 {
            for n in 1..=4 {
                for (d, dtype) in [64, 24, 4]
                    .into_iter()
                    .zip(TYPES.into_iter().cycle().skip(2 * n + group))
                {
                    let (queries, cache) = cut_cache(dtype, group, d, n, &lengths);
                    with_heads(&queries, cache.layer(0), TOKENS - n, |heads| {
                        let want = by_definition(heads);
                        let what =
                            format!("{lengths:?} x {group} heads of {d}, {n} queries, {dtype}");
                        let mut output = vec![0.0; want.len()];
                        decode::attend(heads, &mut output);
                        assert_close(&output, &want, &what);
                        output.fill(0.0);
                        prefill::attend(heads, &[], &mut output);
                        assert_close(&output, &want, &what);
                    })
                    .unwrap();
                }
            }
        }
    }
}

/// Attention in the model's own terms, whatever rows are rotated by while they are held, `(n, H_q * D)`.
fn in_own_terms(queries: &Tensor, cache: &KvCache, n: usize) -> Vec<f64> {
    let (h_q, _, d) = queries.dims3().unwrap();
    let rows = |x: Tensor| x.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    let queries = queries.to_vec3::<f32>().unwrap();
    let heads = &cache.layer(0).heads;
    let product = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let mut output = vec![0.0; n * h_q * d];
    for h in 0..h_q {
        let head = &heads[h * heads.len() / h_q];
        let (keys, values) = (rows(head.keys().unwrap()), rows(head.values().unwrap()));
        for row in 0..n {
            let seen = keys.len() - (n - 1 - row);
            let weights = keys[..seen]
                .iter()
                .map(|key| product(&queries[h][row], key));
            let weights: Vec<f64> = weights.map(|x| (x / (d as f64).sqrt()).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let line = &mut output[(row * h_q + h) * d..][..d];
            for (weight, value) in weights.iter().zip(&values) {
                for (x, v) in line.iter_mut().zip(value) {
                    *x += weight / sum * f64::from(*v);
                }
            }
        }
    }
    output
}

#[test]
fn blocks_and_rotations_give_what_their_rows_stand_for() {
    for (group, n, d) in [(3, 1, 64), (2, 4, 128), (7, 40, 64), (1, 1, 256)] {
        for dtype in BLOCK_TYPES.into_iter().chain(TYPES) {
            let (queries, cache) = cut_cache(dtype, group, d, n, &[n, 300, 577]);
            let got = attend(&queries, cache.layer(0), TOKENS - n, &[]).unwrap();
            let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let want = in_own_terms(&queries, &cache, n);
            assert_close(&got, &want, &format!("{n} queries, heads of {d}, {dtype}"));
        }
    }
}

#[test]
fn blocks_of_queries_equal_the_definition() {
    for (group, n, d) in [
        (1, 70, 20),
        (3, 65, 64),
        (3, 130, 8),
        (7, 40, 16),
        (200, 3, 8),
    ] {
        for dtype in TYPES {
            let (queries, cache) = cut_cache(dtype, group, d, n, &[n, 300, n + 1]);
            with_heads(&queries, cache.layer(0), TOKENS - n, |heads| {
                let want = by_definition(heads);
                let mut output = vec![0.0; want.len()];
                prefill::attend(heads, &[], &mut output);
                let what = format!("{n} queries of {group} heads, {dtype}");
                assert_close(&output, &want, &what);
            })
            .unwrap();
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
fn watched_rows_are_the_probabilities_and_change_no_bit() {
    for (group, n, length, dtype) in [
        (1, 70, 300, F32),
        (3, 130, 1035, F32),
        (3, 4, 64, "f16"),
        (7, 40, 129, "bf16"),
        (3, 70, 1035, "f16"),
        (3, 70, 1035, "k=q4,v=q2"),
        (3, 4, 300, "q8"),
        (60, 3, 90, F32),
    ] {
        let (queries, cache) = cut_cache(dtype, group, 24, n, &[length; 2]);
        let first = TOKENS - n;
        let bare = attend(&queries, cache.layer(0), first, &[]).unwrap();
        let want = probabilities(&queries, cache.layer(0), first).unwrap();
        let want = want.to_vec3::<f32>().unwrap();
        let (all, some) = (Read::default(), Read::default());
        let from = first + n / 3;
        let watch = |from, reader| Watch { from, reader };
        let watches = [watch(from, &some as &dyn RowReader), watch(0, &all)];
        for watches in [&watches[..1], &watches[..]] {
            some.0.lock().unwrap().clear();
            let watched = attend(&queries, cache.layer(0), first, watches).unwrap();
            let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(&watched), bits(&bare), "{n} queries of {group} heads");
        }
        let (all, some) = (all.0.into_inner().unwrap(), some.0.into_inner().unwrap());
        assert_eq!(all.len(), 2 * group * n);
        assert_eq!(some.len(), 2 * group * (n - n / 3));
        for ((position, head), row) in all {
            let want = &want[head][position - first];
            assert_eq!(row.len(), length - (TOKENS - 1 - position));
            for (key, (got, want)) in row.iter().zip(want).enumerate() {
                assert!(
                    (got - want).abs() <= 3e-6 * want + 1e-9,
                    "key {key} of {position}, head {head}: {got} against {want}"
                );
            }
            if position >= from {
                assert_eq!(some[&(position, head)], row);
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (n, dtype) in [1, 3, 100, 1, 3, 100, 1, 3, 100].into_iter().zip(TYPES) {
        let (queries, cache) = cut_cache(dtype, 3, 64, n, &[TOKENS, 600, 130]);
        let with = |threads: usize| -> Vec<f32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let output = (pool.build().unwrap())
                .install(|| attend(&queries, cache.layer(0), TOKENS - n, &[]));
            output.unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let alone = with(1);
        assert_eq!(alone, with(2));
        assert_eq!(alone, with(5));
    }
}

/// Both kernels on every type of cache, and the exponential, with the vectors of one instruction set.
fn check_lanes<L: Lanes>(name: &str) {
    for dtype in TYPES {
        check_kernels::<L>(dtype, 40, &format!("{name}, {dtype}"));
        check_kernels::<L>(dtype, 64, &format!("{name}, {dtype}"));
    }
    for dtype in BLOCK_TYPES {
        check_kernels::<L>(dtype, 128, &format!("{name}, {dtype}"));
    }
    check_exponential::<L>(name);
}

fn check_kernels<L: Lanes>(dtype: &str, d: usize, name: &str) {
    let (queries, cache) = cut_cache(dtype, 3, d, 2, &[200, 64, 67]);
    with_heads(&queries, cache.layer(0), TOKENS - 2, |heads| {
        let want = by_definition(heads);
        let mut output = vec![0f32; want.len()];
        for mut task in prefill::tasks(heads, 1, &mut output) {
            prefill::attend_strips::<L>(heads, &mut task, &mut prefill::Scratch::default());
        }
        assert_close(&output, &want, name);
        let mut piece_output = vec![0f32; 6 * (d + 2)];
        let piece = Piece {
            head: 0,
            start: 0,
            end: 200,
        };
        decode::attend_tiles::<L>(heads, &piece, &mut piece_output);
        for row in 0..6 {
            let sum = piece_output[6 * (d + 1) + row];
            let line: Vec<f32> = piece_output[row * d..][..d]
                .iter()
                .map(|x| x / sum)
                .collect();
            let (g, query) = (row / 2, row % 2);
            assert_close(&line, &want[(query * 9 + g) * d..][..d], name);
        }
    })
    .unwrap();
}

fn check_exponential<L: Lanes>(name: &str) {
    for i in 0..60_000 {
        let x = [-(i as f32) * 1.5e-3; LANES];
        let mut got = [0.0; LANES];
        L::store(exponential::<L>(L::load(&x)), &mut got);
        let want = if x[0] > SMALLEST {
            f64::from(x[0]).exp()
        } else {
            0.0
        };
        assert!(
            (f64::from(got[7]) - want).abs() <= 2.4e-7 * want,
            "{name}: {} {want}",
            got[7]
        );
    }
    let mut hidden = [1.0; LANES];
    L::store(exponential::<L>(L::splat(f32::NEG_INFINITY)), &mut hidden);
    assert_eq!(hidden, [0.0; LANES], "{name}");
}

#[test]
fn every_instruction_set_of_this_processor_gives_the_definition() {
    check_lanes::<Portable>("portable");
    #[cfg(target_arch = "x86_64")]
    {
        use crate::compute::lanes::{Avx2, Avx512, has_256, has_512};
        if has_256() {
            check_lanes::<Avx2>("AVX2");
        }
        if has_512() {
            check_lanes::<Avx512>("AVX-512");
        }
    }
}
