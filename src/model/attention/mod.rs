//! Causal grouped-query attention over blocks of queries, and the read-only view that probes get.
//!
//! Two implementations of the same arithmetic: [`cpu`] on slices and [`blocks`] in candle operations for every
//! other device. Neither ever holds a T x T matrix.

mod blocks;
mod cpu;
#[cfg(test)]
mod cut_tests;
mod row_sums;
pub mod softmax;
mod view;
mod watch;

use candle_core::{DType, Tensor};

pub(super) use blocks::block_queries;
pub(super) use cpu::STRIP;
pub use row_sums::RowSums;
pub(super) use row_sums::rounding as rounding_of_row_sums;
pub use view::{AttentionProbe, AttentionRun, AttentionView, NoProbe, Tee};
pub use watch::{DeviceRows, GroupRows, RowReader, Watch};

use super::cache::LayerCache;
use super::device::{WIDEST_HEAD, ragged_attention};
use crate::error::Result;

/// Queries that are worked on at once; also the most rows that [`AttentionView::probabilities`]
/// should be asked for where memory matters.
pub const QUERY_BLOCK: usize = 64;

/// Attention output of consecutive queries over a layer's cache; `watches` read rows as they come.
///
/// Differs: who watches changes no bit of the output.
/// Shapes: `queries` `(H_q, n, D)` after RoPE, at positions `first..first + n`, where the cache
/// already holds their own keys -> `(n, H_q * D)`.
/// Errors: [`crate::error::Error::Candle`].
pub fn attend(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<Tensor> {
    if runs_on_slices(queries) {
        cpu::attend(queries, cache, first, watches)
    } else {
        attend_on_device(queries, cache, first, watches)
    }
}

/// [`attend`] as devices other than the CPU do it, which the CPU can do too.
///
/// Shapes and errors: as [`attend`].
pub fn attend_on_device(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<Tensor> {
    let (h_q, n, d) = queries.dims3()?;
    // One kernel for heads of any lengths; Metal has none of ours.
    let packs = d <= WIDEST_HEAD && !queries.device().is_metal();
    if n == 1 && watches.is_empty() && packs {
        let packed = cache.packed()?;
        // On the CPU alone the cache may be of another type than what attends to it.
        let rounded = (queries.reshape((h_q, d))?).to_dtype(packed.keys.dtype())?;
        let (heads, appended) = (&packed.heads, packed.appended);
        let output = ragged_attention(&rounded, packed.keys, packed.values, heads, appended)?;
        return Ok(output.reshape((1, h_q * d))?.to_dtype(queries.dtype())?);
    }
    blocks::attend(queries, cache, first, watches)
}

/// Causal attention probabilities of the same queries; every row sums to 1.
///
/// Shapes: as [`attend`] -> `(H_q, n, S)`, float32, zero for keys after the query.
/// Errors: [`crate::error::Error::Candle`].
pub fn probabilities(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    if runs_on_slices(queries) {
        cpu::probabilities(queries, cache, first)
    } else {
        blocks::probabilities(queries, cache, first)
    }
}

fn runs_on_slices(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// How many of the ascending `positions` a query at `position` may see.
fn visible(positions: &[u32], position: usize) -> usize {
    positions.partition_point(|&p| p as usize <= position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::KvCache;
    use crate::model::config::{FAMILIES, ModelConfig};
    use candle_core::Device;

    fn config(h_q: usize, h_kv: usize, d: usize) -> ModelConfig {
        ModelConfig {
            family: FAMILIES[0],
            vocab_size: 8,
            hidden_size: h_q * d,
            intermediate_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: h_q,
            num_key_value_heads: h_kv,
            head_dim: d,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-5,
            rope_frequencies: vec![1.0; d / 2],
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
        let mut cache = KvCache::new(config, 3, dtype, &device).unwrap();
        cache.append(0, &k, &v).unwrap();
        cache.advance(t);
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
}
