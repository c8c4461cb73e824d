//! Attention in candle operations: all KV heads of one length together, blocks of queries one by one.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::visible;
use super::watch::{DeviceRows, Watch, first_watched};
use crate::error::{Error, Result};
use crate::model::cache::LayerCache;

/// Bytes that the probabilities of a block of queries may take; three tensors of that size live at once.
const BLOCK_BYTES: usize = 256 << 20;

/// Queries that are worked on at once by so many query heads over so many keys.
pub(in crate::model) fn block_queries(query_heads: usize, keys: usize) -> usize {
    (BLOCK_BYTES / (4 * (query_heads * keys).max(1))).max(1)
}

/// KV heads of one length, with keys and values in float32, where sums must be exact.
struct Heads<'a> {
    first: usize,
    /// `(heads, S, D)`.
    keys: Tensor,
    values: Tensor,
    positions: &'a [u32],
}

impl<'a> Heads<'a> {
    /// All heads in one batch if they hold the same positions, else each by itself.
    fn of(cache: &'a LayerCache) -> Result<Vec<Self>> {
        let heads = &cache.heads;
        let alike = heads
            .windows(2)
            .all(|two| two[0].positions() == two[1].positions());
        let ranges: Vec<std::ops::Range<usize>> = match alike {
            true => std::iter::once(0..heads.len()).collect(),
            false => (0..heads.len()).map(|h| h..h + 1).collect(),
        };
        let batch = |range: std::ops::Range<usize>| {
            let (first, own) = (range.start, &heads[range]);
            let stacked = |part: &dyn Fn(usize) -> Result<Tensor>| -> Result<Tensor> {
                let tensors: Vec<Tensor> = (0..own.len()).map(part).collect::<Result<_>>()?;
                Ok(Tensor::stack(&tensors, 0)?)
            };
            Ok(Self {
                first,
                keys: stacked(&|h| Ok(own[h].keys()?.to_dtype(DType::F32)?))?,
                values: stacked(&|h| Ok(own[h].values()?.to_dtype(DType::F32)?))?,
                positions: own[0].positions(),
            })
        };
        ranges.into_iter().map(batch).collect()
    }

    fn count(&self) -> Result<usize> {
        Ok(self.keys.dim(0)?)
    }

    /// Float32 probabilities of queries `(heads, G, rows, D)` from position `first` on over the first
    /// `seen` keys: `(heads, G, rows, seen)`.
    fn probabilities(&self, queries: &Tensor, first: usize, seen: usize) -> Result<Tensor> {
        let (heads, group, rows, d) = queries.dims4()?;
        // Scaled before the product: the queries are few, the logits are not.
        let queries = (queries.to_dtype(DType::F32)? / (d as f64).sqrt())?;
        let queries = queries.reshape((heads, group * rows, d))?;
        let keys = self.keys.narrow(1, 0, seen)?;
        let logits = queries.matmul(&keys.transpose(1, 2)?)?;
        let logits = logits.reshape((heads, group, rows, seen))?;
        let hidden = self.hidden(first, rows, seen, queries.device())?;
        Ok(softmax_last_dim(&logits.broadcast_add(&hidden)?)?)
    }

    /// What is added to logits: nothing to those of keys in sight, minus infinity to the others,
    /// `(rows, seen)`.
    fn hidden(&self, first: usize, rows: usize, seen: usize, device: &Device) -> Result<Tensor> {
        let positions = Tensor::new(&self.positions[..seen], device)?.unsqueeze(0)?;
        let own = Tensor::arange(first as u32, (first + rows) as u32, device)?.unsqueeze(1)?;
        let future = positions.broadcast_gt(&own)?;
        let zeros = Tensor::zeros((rows, seen), DType::F32, device)?;
        let never = Tensor::new(f32::NEG_INFINITY, device)?.broadcast_as((rows, seen))?;
        Ok(future.where_cond(&never, &zeros)?)
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
    for heads in Heads::of(cache)? {
        let count = heads.count()?;
        let own = queries.narrow(0, heads.first * group, count * group)?;
        let own = own.reshape((count, group, n, d))?;
        let mut blocks = Vec::new();
        let mut start = 0;
        let most = visible(heads.positions, first + n - 1);
        while start < n {
            let rows = block_queries(count * group, most).min(n - start);
            let seen = visible(heads.positions, first + start + rows - 1);
            let block = own.narrow(2, start, rows)?.contiguous()?;
            let p = heads.probabilities(&block, first + start, seen)?;
            if first + start + rows > watched {
                show(&p, &heads, first + start, watches)?;
            }
            let p = p.reshape((count, group * rows, seen))?;
            let block = p.matmul(&heads.values.narrow(1, 0, seen)?)?;
            blocks.push(block.reshape((count * group, rows, d))?);
            start += rows;
        }
        outputs.push(Tensor::cat(&blocks, 1)?); // (heads * G, n, D)
    }
    let output = Tensor::cat(&outputs, 0)?.transpose(0, 1)?; // (n, H_q, D)
    Ok(output.reshape((n, h_q * d))?.to_dtype(queries.dtype())?)
}

/// Shows probabilities `(heads, G, rows, seen)` of queries from position `first` on.
fn show(
    probabilities: &Tensor,
    heads: &Heads<'_>,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<()> {
    let (count, _, rows, _) = probabilities.dims4()?;
    let seen: Vec<usize> = (first..first + rows)
        .map(|position| visible(heads.positions, position))
        .collect();
    for head in 0..count {
        let block = DeviceRows {
            kv_head: heads.first + head,
            positions: first..first + rows,
            probabilities: probabilities.get(head)?,
            seen: &seen,
        };
        block.show(watches)?;
    }
    Ok(())
}

/// See [`super::probabilities`].
pub(super) fn probabilities(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    let (h_q, n, d) = queries.dims3()?;
    let seen = cache.heads.first().map_or(0, |head| head.len());
    if cache.heads.iter().any(|head| head.len() != seen) {
        return Err(Error::invalid(
            "cache",
            "ragged",
            "attention probabilities of a whole layer need heads of one length",
        ));
    }
    let group = h_q / cache.heads.len();
    let batches = Heads::of(cache)?.into_iter().map(|heads| {
        let count = heads.count()?;
        let own = queries.narrow(0, heads.first * group, count * group)?;
        let own = own.reshape((count, group, n, d))?.contiguous()?;
        let p = heads.probabilities(&own, first, seen)?;
        Ok(p.reshape((count * group, n, seen))?)
    });
    Ok(Tensor::cat(&batches.collect::<Result<Vec<_>>>()?, 0)?)
}
