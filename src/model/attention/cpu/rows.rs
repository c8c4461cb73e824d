//! Rows of attention probabilities, written out for those who look at them.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::heads::{Heads, with_heads};
use super::held::Numbers;
use crate::compute::exponentials::exponentials;
use crate::compute::lanes::{Lanes, widest};
use crate::compute::product::{Operand, Threads, multiply};
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;

/// Keys that are widened at a time where the cache does not hold float32.
const WIDENED: usize = 512;

/// See [`super::super::probabilities`].
pub(in super::super) fn probabilities(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
) -> Result<Tensor> {
    let (h_q, n, _) = queries.dims3()?;
    let seen = cache.heads.iter().map(|h| h.len()).max().unwrap_or(0);
    if cache.heads.iter().any(|h| h.len() != seen) {
        return Err(Error::invalid(
            "cache",
            "ragged",
            "attention probabilities of a whole layer need heads of one length",
        ));
    }
    let mut output = vec![0f32; h_q * n * seen];
    with_heads(queries, cache, first, |heads| {
        output
            .par_chunks_mut((n * seen).max(1))
            .enumerate()
            .for_each(|(query_head, lines)| probabilities_of_head(heads, query_head, lines));
    })?;
    Ok(Tensor::from_vec(output, (h_q, n, seen), &Device::Cpu)?)
}

/// See [`super::super::rows_of_heads`].
pub(in super::super) fn rows_of_heads(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
) -> Result<Vec<Vec<f32>>> {
    with_heads(queries, cache, first, |heads| {
        let of_head = |head: usize| {
            let seen = (heads.n.checked_sub(1)).map_or(0, |row| heads.sight(head, row).end);
            let mut rows = vec![0f32; heads.group() * heads.n * seen];
            let lines = rows.chunks_mut((heads.n * seen).max(1)).enumerate();
            lines.for_each(|(g, lines)| {
                probabilities_of_head(heads, head * heads.group() + g, lines)
            });
            rows
        };
        (0..heads.h_kv()).map(of_head).collect()
    })
}

/// Probabilities of all queries of one query head over all keys, `(n, S)`.
fn probabilities_of_head(heads: &Heads<'_>, query_head: usize, lines: &mut [f32]) {
    let (head, seen) = (query_head / heads.group(), lines.len() / heads.n);
    logits_of_head(heads, query_head, lines);
    for (row, line) in lines.chunks_mut(seen).enumerate() {
        let sight = heads.sight(head, row);
        line[..sight.start].fill(0.0);
        line[sight.end..].fill(0.0);
        let seen = &mut line[sight];
        let reciprocal = 1.0 / exponentials(seen, heads.scale());
        seen.iter_mut().for_each(|x| *x *= reciprocal);
    }
}

fn logits_of_head(heads: &Heads<'_>, query_head: usize, lines: &mut [f32]) {
    widest!(logits(heads: &Heads<'_>, query_head: usize, lines: &mut [f32]));
}

/// Products of all queries of one query head with all keys, `(n, S)`.
#[inline(always)]
fn logits<L: Lanes>(heads: &Heads<'_>, query_head: usize, lines: &mut [f32]) {
    let (d, seen) = (heads.d, lines.len() / heads.n);
    let held = heads.held(query_head / heads.group());
    let together = match held.keys {
        Numbers::Float32(_) => seen,
        Numbers::Bfloat16(_) | Numbers::Float16(_) | Numbers::Packed(_) => WIDENED,
    };
    let mut room = Vec::new();
    for first in (0..seen).step_by(together.max(1)) {
        let end = seen.min(first + together);
        multiply(
            [heads.n, end - first, d],
            Operand::rows(heads.queries(query_head, 0), d),
            Operand::transposed(held.keys.widened::<L>(first..end, d, &mut room), d),
            &mut lines[first..],
            seen,
            Threads::One,
        );
    }
}
