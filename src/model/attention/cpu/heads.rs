//! Queries, keys, values and positions of one layer as slices.

use candle_core::{CpuStorage, Storage, Tensor};

use super::super::visible;
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;

/// Runs `work` on the float32 elements of contiguous CPU tensors.
fn with_slices<R>(tensors: &[&Tensor], work: impl FnOnce(&[&[f32]]) -> R) -> Result<R> {
    let guards: Vec<_> = tensors.iter().map(|t| t.storage_and_layout()).collect();
    let slices = guards
        .iter()
        .map(
            |(storage, layout)| match (&**storage, layout.contiguous_offsets()) {
                (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(&data[start..end]),
                _ => Err(Error::Candle(candle_core::Error::msg(
                    "expected a contiguous float32 tensor on the CPU",
                ))),
            },
        )
        .collect::<Result<Vec<_>>>()?;
    Ok(work(&slices))
}

/// Keys, values and positions of every KV head, and the queries of its group.
pub(super) struct Heads<'a> {
    slices: &'a [&'a [f32]], // queries, then keys and values of each head
    positions: Vec<&'a [u32]>,
    /// Query heads.
    pub(super) h_q: usize,
    /// Queries of each head.
    pub(super) n: usize,
    /// Head dimension.
    pub(super) d: usize,
    /// Position of the first query.
    pub(super) first: usize,
}

impl Heads<'_> {
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
        &self.slices[0][(query_head * self.n + start) * self.d..]
    }
    /// Keys of a KV head, `(S, D)`.
    pub(super) fn keys(&self, head: usize) -> &[f32] {
        self.slices[1 + 2 * head]
    }
    /// Values of a KV head, `(S, D)`.
    pub(super) fn values(&self, head: usize) -> &[f32] {
        self.slices[2 + 2 * head]
    }
    /// How many keys of a KV head the query `row` sees.
    pub(super) fn seen(&self, head: usize, row: usize) -> usize {
        visible(self.positions[head], self.first + row)
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
    let mut tensors = vec![queries.contiguous()?];
    for head in &cache.heads {
        tensors.push(head.keys()?);
        tensors.push(head.values()?);
    }
    let positions = cache.heads.iter().map(|h| h.positions()).collect();
    with_slices(&tensors.iter().collect::<Vec<_>>(), |slices| {
        work(&Heads {
            slices,
            positions,
            h_q,
            n,
            d,
            first,
        })
    })
}
