//! Attention in candle operations, one KV head and one block of queries at a time.

use candle_core::{DType, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::watch::{GroupRows, Watch, first_watched};
use super::{QUERY_BLOCK, visible};
use crate::error::Result;
use crate::model::cache::{HeadCache, LayerCache};

/// One KV head with its keys in float32, where logits must be exact, and its positions on the device.
struct Head<'a> {
    cache: &'a HeadCache,
    keys: Tensor,
    positions: Tensor,
}

impl<'a> Head<'a> {
    fn new(cache: &'a HeadCache) -> Result<Self> {
        let keys = cache.keys()?.to_dtype(DType::F32)?;
        let positions = Tensor::new(cache.positions(), keys.device())?;
        Ok(Self {
            cache,
            keys,
            positions,
        })
    }

    /// Float32 probabilities of queries `(G, rows, D)` over the first `seen` keys: `(G, rows, seen)`.
    fn probabilities(&self, queries: &Tensor, first: usize, seen: usize) -> Result<Tensor> {
        let (group, rows, d) = queries.dims3()?;
        let queries = queries.to_dtype(DType::F32)?.reshape((group * rows, d))?;
        let keys = self.keys.narrow(0, 0, seen)?;
        let logits = (queries.matmul(&keys.t()?)? / (d as f64).sqrt())?;
        let logits = logits.reshape((group, rows, seen))?;
        let own = Tensor::arange(first as u32, (first + rows) as u32, keys.device())?;
        let future = (self.positions.narrow(0, 0, seen)?.unsqueeze(0)?)
            .broadcast_gt(&own.unsqueeze(1)?)? // (rows, seen)
            .broadcast_as((group, rows, seen))?;
        let never = Tensor::new(f32::NEG_INFINITY, keys.device())?.broadcast_as(logits.shape())?;
        Ok(softmax_last_dim(&future.where_cond(&never, &logits)?)?)
    }
}

/// See [`super::attend`].
pub(super) fn attend(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<Tensor> {
    let (h_q, n, d) = queries.dims3()?;
    let watched = first_watched(watches).unwrap_or(usize::MAX);
    let group = h_q / cache.heads.len();
    let mut outputs = Vec::new();
    for (h, head) in cache.heads.iter().enumerate() {
        let head = Head::new(head)?;
        let values = head.cache.values()?.to_dtype(DType::F32)?;
        let queries = queries.narrow(0, h * group, group)?;
        let mut blocks = Vec::new();
        for start in (0..n).step_by(QUERY_BLOCK) {
            let rows = QUERY_BLOCK.min(n - start);
            let seen = visible(head.cache.positions(), first + start + rows - 1);
            let block = queries.narrow(1, start, rows)?.contiguous()?;
            let p = head.probabilities(&block, first + start, seen)?;
            if first + start + rows > watched {
                show(&p, h, head.cache.positions(), first + start, watches)?;
            }
            let p = p.reshape((group * rows, seen))?;
            let block = p.matmul(&values.narrow(0, 0, seen)?)?;
            blocks.push(block.reshape((group, rows, d))?);
        }
        outputs.push(Tensor::cat(&blocks, 1)?); // (G, n, D)
    }
    let output = Tensor::cat(&outputs, 0)?.transpose(0, 1)?; // (n, H_q, D)
    Ok(output.reshape((n, h_q * d))?.to_dtype(queries.dtype())?)
}

/// Shows probabilities `(G, rows, seen)` of queries from position `first` on.
fn show(
    probabilities: &Tensor,
    kv_head: usize,
    positions: &[u32],
    first: usize,
    watches: &[Watch<'_>],
) -> Result<()> {
    let (group, rows, keys) = probabilities.dims3()?;
    let values = probabilities.flatten_all()?.to_vec1::<f32>()?;
    let seen: Vec<usize> = (first..first + rows)
        .map(|position| visible(positions, position))
        .collect();
    let block = GroupRows {
        kv_head,
        positions: first..first + rows,
        group,
        values: &values,
        strides: [keys, rows * keys],
        seen: &seen,
    };
    block.show(watches);
    Ok(())
}

/// See [`super::probabilities`].
pub(super) fn probabilities(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    let (h_q, _, _) = queries.dims3()?;
    let group = h_q / cache.heads.len();
    let mut outputs = Vec::new();
    for (h, head) in cache.heads.iter().enumerate() {
        let q = queries.narrow(0, h * group, group)?.contiguous()?;
        outputs.push(Head::new(head)?.probabilities(&q, first, head.len())?);
    }
    Ok(Tensor::cat(&outputs, 0)?)
}
