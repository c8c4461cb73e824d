//! Attention in candle operations, one block of queries and one KV head at a time.

use candle_core::{D, DType, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::{QUERY_BLOCK, visible};
use crate::error::Result;
use crate::model::cache::{HeadCache, LayerCache};

/// See [`super::attend`].
pub(super) fn attend(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    let (h_q, n, d) = queries.dims3()?;
    let group = h_q / cache.heads.len();
    let mut blocks = Vec::new();
    for start in (0..n).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(n - start);
        let mut outputs = Vec::new();
        for (h, head) in cache.heads.iter().enumerate() {
            let q = queries
                .narrow(0, h * group, group)?
                .narrow(1, start, rows)?
                .contiguous()?;
            let seen = visible(head.positions(), first + start + rows - 1);
            let p = block_probabilities(&q, head, first + start, seen)?;
            let v = head.values()?.narrow(0, 0, seen)?;
            let p = p.reshape((group * rows, seen))?.to_dtype(v.dtype())?;
            outputs.push(p.matmul(&v)?.reshape((group, rows, d))?);
        }
        let block = Tensor::cat(&outputs, 0)?; // (H_q, rows, D)
        blocks.push(block.transpose(0, 1)?.reshape((rows, h_q * d))?);
    }
    Ok(Tensor::cat(&blocks, 0)?)
}

/// See [`super::probabilities`].
pub(super) fn probabilities(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    let (h_q, _, _) = queries.dims3()?;
    let group = h_q / cache.heads.len();
    let mut outputs = Vec::new();
    for (h, head) in cache.heads.iter().enumerate() {
        let q = queries.narrow(0, h * group, group)?.contiguous()?;
        outputs.push(block_probabilities(&q, head, first, head.len())?);
    }
    Ok(Tensor::cat(&outputs, 0)?)
}

/// Float32 probabilities of queries `(G, rows, D)` over the first `seen` keys: `(G, rows, seen)`.
fn block_probabilities(
    queries: &Tensor,
    head: &HeadCache,
    first: usize,
    seen: usize,
) -> Result<Tensor> {
    let (group, rows, d) = queries.dims3()?;
    let keys = head.keys()?.narrow(0, 0, seen)?;
    let logits = queries.reshape((group * rows, d))?.matmul(&keys.t()?)?;
    let logits = (logits.to_dtype(DType::F32)? / (d as f64).sqrt())?;
    let mut mask = vec![0f32; rows * seen];
    for (row, line) in mask.chunks_mut(seen).enumerate() {
        line[visible(&head.positions()[..seen], first + row)..].fill(f32::NEG_INFINITY);
    }
    let mask = Tensor::from_vec(mask, (1, rows, seen), queries.device())?;
    let logits = logits.reshape((group, rows, seen))?.broadcast_add(&mask)?;
    debug_assert_eq!(logits.dim(D::Minus1)?, seen);
    Ok(softmax_last_dim(&logits)?)
}
