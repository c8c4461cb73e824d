//! What rules see that judge the tokens of a KV head once some must leave: keys, values, the newest queries.

use std::fmt;

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::recent_queries::RecentQueries;
use crate::budget::Floor;
use crate::compute::exponentials::exponentials;
use crate::compute::product::{Operand, Threads, multiply};
use crate::error::{Error, Result};
use crate::model::cache::{HeadCache, LayerCache};

/// Says what tokens are worth when some must leave.
pub(super) trait Judgement: fmt::Debug + Send + Sync {
    /// How many of the newest queries it looks back from.
    fn looks_back(&self) -> usize {
        0
    }

    /// What each token is worth, in the order of their positions; what stays in any case may have any number.
    ///
    /// Errors: those of tensors; [`crate::error::Error::NotFinite`] for numbers that have no order.
    fn worth(&self, head: &CrowdedHead<'_>) -> Result<Vec<f64>>;
}

/// A KV head that holds more tokens than may stay.
///
/// Differs: tokens come in the order of their positions, whatever their slots; those that a window passes before the next
/// eviction are none of them.
pub(super) struct CrowdedHead<'a> {
    head: &'a HeadCache,
    queries: &'a RecentQueries,
    kv_head: usize,
    kv_heads: usize,
    /// Its place among the KV heads of all layers.
    place: usize,
    /// The position of the next token.
    now: usize,
    /// Slots by ascending position.
    pub slots: Vec<u32>,
    /// Tokens of the text that stay whatever they are worth.
    floor: Floor,
    /// Rows that are left once tokens have left.
    pub stays: usize,
}

impl<'a> CrowdedHead<'a> {
    /// KV head `kv_head` of a layer, of whose slots from `from` on `leaving` leave.
    pub fn of(
        (layer, kv_head): (&'a LayerCache, usize),
        place: usize,
        (from, leaving): (usize, usize),
        queries: &'a RecentQueries,
        now: usize,
        floor: Floor,
    ) -> Self {
        let head = &layer.heads[kv_head];
        let positions = head.positions();
        let mut slots: Vec<u32> = (from as u32..positions.len() as u32).collect();
        slots.sort_unstable_by_key(|slot| positions[*slot as usize]);
        Self {
            head,
            queries,
            kv_head,
            kv_heads: layer.heads.len(),
            place,
            now,
            stays: slots.len().saturating_sub(leaving),
            slots,
            floor,
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.slots.len()
    }

    /// Tokens before the newest ones, which stay.
    pub fn prefix(&self) -> usize {
        self.before(self.now.saturating_sub(self.floor.window))
    }

    /// First tokens of the text, which stay.
    pub fn sinks(&self) -> usize {
        self.before(self.floor.sinks)
    }

    fn before(&self, position: usize) -> usize {
        let positions = self.head.positions();
        (self.slots).partition_point(|slot| (positions[*slot as usize] as usize) < position)
    }

    /// Query heads that share it, as far as there are queries.
    pub fn group(&self, d: usize) -> usize {
        self.queries.group(self.kv_heads, d)
    }

    /// How many of the newest queries there are, up to `most`.
    pub fn queries(&self, most: usize) -> usize {
        self.queries.positions().len().min(most)
    }

    /// Keys after RoPE, `(S, D)` in float32.
    pub fn keys(&self) -> Result<Tensor> {
        self.in_order(&self.head.keys()?)
    }

    /// Values, as the keys.
    pub fn values(&self) -> Result<Tensor> {
        self.in_order(&self.head.values()?)
    }

    fn in_order(&self, rows: &Tensor) -> Result<Tensor> {
        let slots = Tensor::new(&*self.slots, &Device::Cpu)?;
        Ok(rows.index_select(&slots, 0)?.to_dtype(DType::F32)?)
    }

    /// Products of the newest `count` queries of every query head with the first `upto` keys, times `1 / sqrt(D)`.
    ///
    /// Shapes: `(G, n, upto)`, n being what [`CrowdedHead::queries`] says.
    pub fn logits(&self, keys: &Tensor, count: usize, upto: usize) -> Result<Vec<f32>> {
        let d = keys.dim(1)?;
        let (group, n) = (self.group(d), self.queries(count));
        let heads = self.kv_head * group..(self.kv_head + 1) * group;
        let scale = 1.0 / (d as f32).sqrt();
        let mut queries = self.queries.of_heads(heads, d, count);
        queries.iter_mut().for_each(|x| *x *= scale);
        let keys: Vec<f32> = keys.narrow(0, 0, upto)?.flatten_all()?.to_vec1()?;
        let mut logits = vec![0.0; group * n * upto];
        multiply(
            [group * n, upto, d],
            Operand::rows(&queries, d),
            Operand::transposed(&keys, d),
            &mut logits,
            upto,
            Threads::One,
        );
        Ok(logits)
    }

    /// Attention of the newest `count` queries of every query head to the first `upto` tokens alone; a query sees none
    /// that came after it.
    ///
    /// Shapes: `(G, n, upto)`, as [`CrowdedHead::logits`]; rows sum to 1.
    pub fn rows(&self, keys: &Tensor, count: usize, upto: usize) -> Result<Vec<f32>> {
        let mut rows = self.logits(keys, count, upto)?;
        let positions = self.queries.positions();
        let newest = positions.end - self.queries(count)..positions.end;
        for (row, position) in rows.chunks_mut(upto.max(1)).zip(newest.cycle()) {
            let (seen, later) = row.split_at_mut(self.before(position + 1).min(upto));
            later.fill(0.0);
            softmax(seen);
        }
        Ok(rows)
    }

    /// A generator of its own for every KV head and every eviction.
    pub fn generator(&self, seed: u64) -> ChaCha8Rng {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream((self.now as u64) << 32 | self.place as u64);
        generator
    }
}

/// Numbers by which tokens can be ordered.
///
/// Errors: [`Error::NotFinite`], with the name of the residency.
pub(super) fn finite(numbers: Vec<f64>, residency: &str) -> Result<Vec<f64>> {
    if numbers.iter().all(|x| x.is_finite()) {
        return Ok(numbers);
    }
    Err(Error::NotFinite {
        place: format!("what a token is worth to {residency}"),
        advice: "keys or queries hold NaN; the weights may be damaged".into(),
    })
}

/// Logits as shares of 1.
pub(super) fn softmax(logits: &mut [f32]) {
    let reciprocal = 1.0 / exponentials(logits, 1.0);
    logits.iter_mut().for_each(|x| *x *= reciprocal);
}

/// The mean of the n rows of every query head, `(G, n, S)` -> `(G, S)`, added in their order.
///
/// Errors: [`crate::error::Error::Candle`].
pub(super) fn mean_rows(rows: &[f32], n: usize, tokens: usize) -> Result<Tensor> {
    let heads = rows.len() / (n * tokens).max(1);
    let mut means = vec![0.0; heads * tokens];
    let of_heads = rows.chunks((n * tokens).max(1));
    for (mean, rows) in means.chunks_mut(tokens.max(1)).zip(of_heads) {
        for row in rows.chunks(tokens.max(1)) {
            let sums = mean.iter_mut().zip(row);
            sums.for_each(|(sum, x)| *sum += f64::from(*x));
        }
        mean.iter_mut().for_each(|sum| *sum /= n as f64);
    }
    Ok(Tensor::from_vec(means, (heads, tokens), &Device::Cpu)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::cache::KvCache;
    use crate::model::config::{FAMILIES, LayerKind, ModelConfig};

    /// What is said of the only KV head of a cache, of whose tokens a third must leave.
    ///
    /// Shapes: keys and values `(S, d)`; queries `[position][H_q * d]`, the last of the newest token; sinks and window.
    pub fn crowded(
        keys: &[f32],
        values: &[f32],
        queries: &[&[f32]],
        (sinks, window): (usize, usize),
        d: usize,
        say: impl FnOnce(&CrowdedHead<'_>) -> Vec<f64>,
    ) -> Vec<f64> {
        let tokens = keys.len() / d;
        let config = ModelConfig {
            family: FAMILIES[0],
            vocab_size: 8,
            hidden_size: d,
            intermediate_size: 8,
            layers: vec![LayerKind::GLOBAL; 1],
            num_attention_heads: queries.first().map_or(1, |row| row.len() / d),
            num_key_value_heads: 1,
            head_dim: d,
            max_position_embeddings: 1024,
            rms_norm_eps: 1e-5,
            ropes: vec![],
            attention_scale: None,
            tie_word_embeddings: true,
        };
        let rows = |numbers: &[f32]| {
            Tensor::from_vec(numbers.to_vec(), (1, tokens, d), &Device::Cpu).unwrap()
        };
        let cache = KvCache::filled(&config, &rows(keys), &rows(values)).unwrap();
        let mut recent = RecentQueries::up_to(queries.len());
        for (position, row) in (tokens - queries.len()..).zip(queries) {
            recent.push(position, row.to_vec());
        }
        let floor = Floor::of(sinks, window);
        let (layer, leaving) = ((cache.layer(0), 0), (0, tokens / 3));
        say(&CrowdedHead::of(layer, 0, leaving, &recent, tokens, floor))
    }

    #[test]
    fn rows_are_causal_and_over_what_is_asked_for() {
        let keys = [0.0, 2f32.ln(), 0.0, 0.0];
        crowded(
            &keys,
            &keys,
            &[&[0.0, 1.0], &[1.0, 1.0]],
            (1, 2),
            1,
            |head| {
                assert_eq!((head.tokens(), head.sinks(), head.prefix()), (4, 1, 2));
                assert_eq!((head.group(1), head.queries(9), head.stays), (2, 2, 3));
                let close = |got: Vec<f32>, want: &[f32]| {
                    assert_eq!(got.len(), want.len());
                    let mut pairs = got.iter().zip(want);
                    assert!(pairs.all(|(g, w)| (g - w).abs() < 1e-6), "{got:?}");
                };
                let keys = head.keys().unwrap();
                // Query heads one after the other; the first query does not see the last token.
                let [third, half, fifth, quarter] = [1.0 / 3.0, 0.5, 0.2, 0.25];
                let all = [
                    [third, third, third, 0.0],
                    [fifth, 2.0 * fifth, fifth, fifth],
                    [quarter, half, quarter, 0.0],
                    [fifth, 2.0 * fifth, fifth, fifth],
                ];
                close(head.rows(&keys, 2, 4).unwrap(), &all.concat());
                // Of the tokens before the window alone rows sum to 1, too.
                let newest = [third, 2.0 * third, third, 2.0 * third];
                close(head.rows(&keys, 1, 2).unwrap(), &newest);
                let means = mean_rows(&head.rows(&keys, 2, 4).unwrap(), 2, 4).unwrap();
                let means: Vec<Vec<f64>> = means.to_vec2().unwrap();
                assert!(
                    (means[0][1] - (1.0 / 3.0 + 0.4) / 2.0).abs() < 1e-6,
                    "{means:?}"
                );
                Vec::new()
            },
        );
    }
}
