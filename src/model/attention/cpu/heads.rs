//! Queries, keys, values and positions of one layer as slices.

use std::borrow::Cow;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Storage, Tensor};

use super::super::sight;
use super::held::{Held, Lying};
use crate::compute::packed_rows::rotate;
use crate::error::{Error, Result};
use crate::model::cache::{HeadCache, LayerCache, PackedRows, Side};

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
    /// Rotates what attention gave back, where values are held rotated.
    ///
    /// Shapes: `output` `(n, H_q, D)`.
    pub(super) fn rotate_back(&self, output: &mut [f32]) {
        for (head, held) in self.held.iter().enumerate() {
            let Some(size) = held.values.rotation() else {
                continue;
            };
            for line in output.chunks_exact_mut((self.h_q * self.d).max(1)) {
                let own = head * self.group() * self.d..(head + 1) * self.group() * self.d;
                rotate(&mut line[own], size);
            }
        }
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
    let sides = cache.heads.iter();
    let sides = sides.map(|head| Ok([found(head, Side::Keys)?, found(head, Side::Values)?]));
    let sides = sides.collect::<Result<Vec<_>>>()?;
    let lying = sides.iter().map(|pair| pair.each_ref().map(lying));
    let lying: Vec<_> = lying.collect();
    let held = lying.iter().map(|[keys, values]| {
        Ok(Held {
            keys: keys.numbers()?,
            values: values.numbers()?,
        })
    });
    let queries = rotated_queries(&data[start..end], cache, n * d);
    Ok(work(&Heads {
        queries: &queries,
        held: held.collect::<Result<Vec<_>>>()?,
        positions: cache.heads.iter().map(|head| head.positions()).collect(),
        window: cache.window(),
        h_q,
        n,
        d,
        first,
    }))
}

/// Keys or values of a KV head: a tensor, or packed rows, which are read where they lie.
enum Found<'a> {
    Tensor(Tensor),
    Packed(&'a PackedRows),
}

fn found(head: &HeadCache, side: Side) -> Result<Found<'_>> {
    Ok(match (head.rows(side).packed(), side) {
        (Some(packed), _) => Found::Packed(packed),
        (None, Side::Keys) => Found::Tensor(head.keys()?),
        (None, Side::Values) => Found::Tensor(head.values()?),
    })
}

fn lying<'a>(found: &'a Found<'_>) -> Lying<'a, impl Deref<Target = Storage> + 'a> {
    match found {
        Found::Packed(packed) => Lying::Packed(packed),
        Found::Tensor(tensor) => {
            let (storage, layout) = tensor.storage_and_layout();
            Lying::Tensor(storage, layout)
        }
    }
}

/// The queries `(H_q, n, D)`, rotated as the keys of their KV heads are held; `of_head` numbers belong to a query head.
fn rotated_queries<'q>(queries: &'q [f32], cache: &LayerCache, of_head: usize) -> Cow<'q, [f32]> {
    let rotation = |head: &HeadCache| head.rows(Side::Keys).packed()?.rotation();
    if !cache.heads.iter().any(|head| rotation(head).is_some()) {
        return Cow::Borrowed(queries);
    }
    let mut rotated = queries.to_vec();
    let group = queries.len() / of_head.max(1) / cache.heads.len().max(1);
    for (head, queries) in cache
        .heads
        .iter()
        .zip(rotated.chunks_mut((group * of_head).max(1)))
    {
        if let Some(size) = rotation(head) {
            rotate(queries, size);
        }
    }
    Cow::Owned(rotated)
}
