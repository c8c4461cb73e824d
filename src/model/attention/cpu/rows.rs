//! Rows of attention probabilities, written out for those who look at them.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::super::softmax::exponentials;
use super::heads::{Heads, with_heads};
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;
use crate::model::product::{Operand, Threads, multiply};

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

/// Probabilities of all queries of one query head over all keys, `(n, S)`.
fn probabilities_of_head(heads: &Heads<'_>, query_head: usize, lines: &mut [f32]) {
    let head = query_head / heads.group();
    let seen = lines.len() / heads.n;
    multiply(
        [heads.n, seen, heads.d],
        Operand::rows(heads.queries(query_head, 0), heads.d),
        Operand::transposed(heads.keys(head), heads.d),
        lines,
        seen,
        Threads::One,
    );
    for (row, line) in lines.chunks_mut(seen).enumerate() {
        let (past, future) = line.split_at_mut(heads.seen(head, row));
        let reciprocal = 1.0 / exponentials(past, heads.scale());
        past.iter_mut().for_each(|x| *x *= reciprocal);
        future.fill(0.0);
    }
}
