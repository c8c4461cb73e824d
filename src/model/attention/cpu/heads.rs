//! Queries, keys, values and positions of one layer as slices.

use std::ops::Range;

use candle_core::{CpuStorage, Storage, Tensor};

use super::super::sight;
use super::held::Held;
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;

/// Keys, values and positions of every KV head, and the queries of its group.
pub(super) struct Heads<'a> {
    queries: &'a [f32],
    held: Vec<Held<'a>>,
    positions: Vec<&'a [u32]>,
    window: Option<usize>,
    /// Query heads.
    pub(super) h_q: usize,
    /// Queries of each head.
    pub(super) n: usize,
    /// Head dimension.
    pub(super) d: usize,
    /// Position of the first query.
    pub(super) first: usize,
}

impl<'a> Heads<'a> {
    /// KV heads.
    pub(super) fn h_kv(&self) -> usize {
        self.positions.len()
    }
    /// Query heads of each KV head.
    pub(super) fn group(&self) -> usize {
        self.h_q / self.h_kv()
    }
    /// Queries `start..` of a query head, `(n - start, D)`, and those of later heads after them.
    pub(super) fn queries(&self, query_head: usize, start: usize) -> &[f32] {
        &self.queries[(query_head * self.n + start) * self.d..]
    }
    /// Keys and values of a KV head, `(S, D)` each.
    pub(super) fn held(&self, head: usize) -> &Held<'a> {
        &self.held[head]
    }
    /// Which keys of a KV head the query `row` sees.
    pub(super) fn sight(&self, head: usize, row: usize) -> Range<usize> {
        sight(self.positions[head], self.window, self.first + row)
    }
    /// What logits are multiplied by: `1 / sqrt(D)`.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }
}

/// Runs `work` on a layer's cache and the queries `(H_q, n, D)` at the positions from `first` on.
pub(super) fn with_heads<R>(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    work: impl FnOnce(&Heads<'_>) -> R,
) -> Result<R> {
    let (h_q, n, d) = queries.dims3()?;
    let queries = queries.contiguous()?;
    let (storage, layout) = queries.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return Err(Error::Candle(candle_core::Error::msg(
            "expected float32 queries on the CPU",
        )));
    };
    let tensors = (cache.heads.iter()).map(|head| Ok([head.keys()?, head.values()?]));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = (tensors.iter())
        .map(|pair| pair.each_ref().map(Tensor::storage_and_layout))
        .collect();
    let held = (guards.iter()).map(|pair| {
        Held::of(
            pair.each_ref()
                .map(|(storage, layout)| (&**storage, *layout)),
        )
    });
    Ok(work(&Heads {
        queries: &data[start..end],
        held: held.collect::<Result<_>>()?,
        positions: cache.heads.iter().map(|head| head.positions()).collect(),
        window: cache.window(),
        h_q,
        n,
        d,
        first,
    }))
}
