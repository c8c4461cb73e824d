//! Attention on float32 slices: one task per block of queries and KV head, softmax in place.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use rayon::prelude::*;

use super::softmax::exponentials;
use super::{QUERY_BLOCK, visible};
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;

/// Runs `work` on the float32 elements of contiguous CPU tensors.
pub(in crate::model) fn with_slices<R>(
    tensors: &[&Tensor],
    work: impl FnOnce(&[&[f32]]) -> R,
) -> Result<R> {
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

/// Keys, values and positions of every KV head as slices.
struct Heads<'a> {
    slices: &'a [&'a [f32]], // queries, then keys and values of each head
    positions: Vec<&'a [u32]>,
    h_q: usize,
    n: usize,
    d: usize,
    first: usize,
}

impl Heads<'_> {
    fn group(&self) -> usize {
        self.h_q / self.positions.len()
    }
    fn keys(&self, head: usize) -> &[f32] {
        self.slices[1 + 2 * head]
    }
    fn values(&self, head: usize) -> &[f32] {
        self.slices[2 + 2 * head]
    }

    /// Unnormalised probabilities of query rows `start..start + rows` of one query head over the
    /// first `seen` keys, into `scores` (`rows x seen`), and the reciprocal of each row's sum.
    fn scores(
        &self,
        query_head: usize,
        start: usize,
        seen: usize,
        scores: &mut [f32],
        reciprocals: &mut [f32],
    ) {
        let head = query_head / self.group();
        let queries = &self.slices[0][(query_head * self.n + start) * self.d..];
        let rows = reciprocals.len();
        multiply(
            [rows, seen, self.d],
            scores,
            (queries, [self.d, 1]),
            (self.keys(head), [1, self.d]),
        );
        let scale = 1.0 / (self.d as f32).sqrt();
        for (row, (line, reciprocal)) in scores.chunks_mut(seen).zip(reciprocals).enumerate() {
            let own = visible(&self.positions[head][..seen], self.first + start + row);
            let (past, future) = line.split_at_mut(own);
            *reciprocal = 1.0 / exponentials(past, scale);
            future.fill(0.0);
        }
    }
}

fn with_heads<R>(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    work: impl FnOnce(&Heads<'_>) -> R,
) -> Result<R> {
    let (h_q, n, d) = queries.dims3()?;
    let queries = queries.contiguous()?;
    let mut tensors = vec![queries];
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

/// See [`super::attend`].
pub(super) fn attend(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    let (h_q, n, d) = queries.dims3()?;
    let group = h_q / cache.heads.len();
    let blocks = n.div_ceil(QUERY_BLOCK);
    // The last blocks see the most keys: they start first, so that no thread is left with one.
    let tasks: Vec<(usize, usize)> = (0..blocks)
        .rev()
        .flat_map(|b| (0..cache.heads.len()).map(move |h| (b, h)))
        .collect();
    let done: Vec<Vec<f32>> = with_heads(queries, cache, first, |heads| {
        tasks
            .par_iter()
            .with_max_len(1)
            .map_init(Vec::new, |scratch, &(block, head)| {
                attend_block(heads, block, head, scratch)
            })
            .collect()
    })?;
    let mut output = vec![0f32; n * h_q * d];
    for (&(block, head), values) in tasks.iter().zip(&done) {
        let start = block * QUERY_BLOCK;
        let rows = QUERY_BLOCK.min(n - start);
        for g in 0..group {
            for row in 0..rows {
                let from = &values[(g * rows + row) * d..][..d];
                output[((start + row) * h_q + head * group + g) * d..][..d].copy_from_slice(from);
            }
        }
    }
    Ok(Tensor::from_vec(output, (n, h_q * d), &Device::Cpu)?)
}

/// Output of one block of queries for the query heads of one KV head: `(G, rows, D)`.
fn attend_block(heads: &Heads<'_>, block: usize, head: usize, scratch: &mut Vec<f32>) -> Vec<f32> {
    let (group, d) = (heads.group(), heads.d);
    let start = block * QUERY_BLOCK;
    let rows = QUERY_BLOCK.min(heads.n - start);
    let seen = visible(heads.positions[head], heads.first + start + rows - 1);
    scratch.resize(group * rows * seen, 0.0);
    let mut reciprocals = vec![0f32; group * rows];
    for g in 0..group {
        heads.scores(
            head * group + g,
            start,
            seen,
            &mut scratch[g * rows * seen..][..rows * seen],
            &mut reciprocals[g * rows..][..rows],
        );
    }
    let mut output = vec![0f32; group * rows * d];
    multiply(
        [group * rows, d, seen],
        &mut output,
        (scratch, [seen, 1]),
        (heads.values(head), [d, 1]),
    );
    for (line, reciprocal) in output.chunks_mut(d).zip(&reciprocals) {
        line.iter_mut().for_each(|x| *x *= reciprocal);
    }
    output
}

/// See [`super::probabilities`].
pub(super) fn probabilities(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
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
            .for_each(|(query_head, lines)| {
                let mut reciprocals = vec![0f32; n];
                heads.scores(query_head, 0, seen, lines, &mut reciprocals);
                for (line, reciprocal) in lines.chunks_mut(seen).zip(&reciprocals) {
                    line.iter_mut().for_each(|x| *x *= reciprocal);
                }
            });
    })?;
    Ok(Tensor::from_vec(output, (h_q, n, seen), &Device::Cpu)?)
}

/// `c = a * b` in float32 on one thread; `[m, n, k]`, and each operand with its strides in elements.
fn multiply(
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    (a, [a_row, a_col]): (&[f32], [usize; 2]),
    (b, [b_row, b_col]): (&[f32], [usize; 2]),
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(c.len() >= m * n, "product needs {m} x {n} elements");
    assert!(
        k == 0 || a.len() > (m - 1) * a_row + (k - 1) * a_col,
        "left operand too short"
    );
    assert!(
        k == 0 || b.len() > (k - 1) * b_row + (n - 1) * b_col,
        "right operand too short"
    );
    // SAFETY: the assertions keep every element that the strides reach inside its slice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            a_col as isize,
            a_row as isize,
            b.as_ptr(),
            b_col as isize,
            b_row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
