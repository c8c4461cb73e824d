//! Attention in candle operations: all KV heads of one length together, blocks of queries one by one.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::sight;
use super::watch::{DeviceRows, Watch, first_watched};
use crate::error::{Error, Result};
use crate::model::cache::{HeadCache, LayerCache};

/// Bytes that the probabilities of a block of queries may take; three tensors of that size live at once.
const BLOCK_BYTES: usize = 256 << 20;

/// Queries that are worked on at once by so many query heads over so many keys.
fn block_queries(query_heads: usize, keys: usize) -> usize {
    (BLOCK_BYTES / (4 * (query_heads * keys).max(1))).max(1)
}

/// Most bytes that the probabilities of a block of `rows` queries take, over at most so many keys.
pub(in crate::model) fn block_bytes(query_heads: usize, rows: usize, keys: usize) -> usize {
    let row = 4 * query_heads * keys;
    (row * rows).min(BLOCK_BYTES.max(row))
}

/// KV heads of one length, in float32, where sums must be exact.
struct Heads<'a> {
    first: usize,
    own: &'a [HeadCache],
    /// `(heads, S, D)`.
    keys: Tensor,
    positions: &'a [u32],
    window: Option<usize>,
}

impl<'a> Heads<'a> {
    /// All heads in one batch if they hold the same positions, else each by itself.
    fn of(cache: &'a LayerCache) -> Result<Vec<Self>> {
        let heads = &cache.heads;
        let alike = heads
            .windows(2)
            .all(|two| two[0].positions() == two[1].positions());
        let ranges: Vec<std::ops::Range<usize>> = if alike {
            std::iter::once(0..heads.len()).collect()
        } else {
            (0..heads.len()).map(|h| h..h + 1).collect()
        };
        let batch = |range: std::ops::Range<usize>| {
            let (first, own) = (range.start, &heads[range]);
            Ok(Self {
                first,
                own,
                keys: stacked(own, HeadCache::keys)?,
                positions: own[0].positions(),
                window: cache.window(),
            })
        };
        ranges.into_iter().map(batch).collect()
    }

    /// Where the keys end that a query sees.
    fn seen(&self, position: usize) -> usize {
        sight(self.positions, None, position).end
    }

    /// `(heads, S, D)`.
    fn values(&self) -> Result<Tensor> {
        stacked(self.own, HeadCache::values)
    }

    /// Their queries among those of all heads, `(heads, G, n, D)`.
    fn queries(&self, of_all: &Tensor, group: usize) -> Result<Tensor> {
        let (_, n, d) = of_all.dims3()?;
        let own = of_all.narrow(0, self.first * group, self.own.len() * group)?;
        Ok(own.reshape((self.own.len(), group, n, d))?)
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
        let mut unseen = positions.broadcast_gt(&own)?;
        if let Some(window) = self.window {
            let ends = positions.broadcast_add(&Tensor::new(&[[to_u32(window)]], device)?)?;
            unseen = unseen.maximum(&ends.broadcast_le(&own)?)?;
        }
        let zeros = Tensor::zeros((rows, seen), DType::F32, device)?;
        let never = Tensor::new(f32::NEG_INFINITY, device)?.broadcast_as((rows, seen))?;
        Ok(unseen.where_cond(&never, &zeros)?)
    }
}

/// A window as a number of the device; no text is longer than the largest of these.
fn to_u32(window: usize) -> u32 {
    u32::try_from(window)
        .unwrap_or(u32::MAX / 2)
        .min(u32::MAX / 2)
}

/// Keys or values of heads of one length, in float32.
fn stacked(own: &[HeadCache], part: fn(&HeadCache) -> Result<Tensor>) -> Result<Tensor> {
    let wide = |head: &HeadCache| Ok(part(head)?.to_dtype(DType::F32)?);
    let tensors: Vec<Tensor> = own.iter().map(wide).collect::<Result<_>>()?;
    Ok(Tensor::stack(&tensors, 0)?)
}

/// Rows `from..` of queries `(heads, G, n, D)` from position `first` on, block by block: `each` gets the block's first
/// row and its probabilities `(heads, G, rows, seen)`.
fn in_blocks(
    heads: &Heads<'_>,
    queries: &Tensor,
    first: usize,
    from: usize,
    each: &mut dyn FnMut(usize, Tensor) -> Result<()>,
) -> Result<()> {
    let (count, group, n, _) = queries.dims4()?;
    let most = heads.seen(first + n - 1);
    let mut start = from;
    while start < n {
        let rows = block_queries(count * group, most).min(n - start);
        let seen = heads.seen(first + start + rows - 1);
        let block = queries.narrow(2, start, rows)?.contiguous()?;
        each(start, heads.probabilities(&block, first + start, seen)?)?;
        start += rows;
    }
    Ok(())
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
        let own = heads.queries(queries, group)?;
        let values = heads.values()?;
        let mut blocks = Vec::new();
        in_blocks(&heads, &own, first, 0, &mut |start, p| {
            let (count, _, rows, seen) = p.dims4()?;
            if first + start + rows > watched {
                show_block(&p, &heads, first + start, watches)?;
            }
            let p = p.reshape((count, group * rows, seen))?;
            let block = p.matmul(&values.narrow(1, 0, seen)?)?;
            blocks.push(block.reshape((count * group, rows, d))?);
            Ok(())
        })?;
        outputs.push(Tensor::cat(&blocks, 1)?); // (heads * G, n, D)
    }
    let output = Tensor::cat(&outputs, 0)?.transpose(0, 1)?; // (n, H_q, D)
    Ok(output.reshape((n, h_q * d))?.to_dtype(queries.dtype())?)
}

/// Shows the rows that somebody reads, of queries whose output is computed elsewhere.
pub(super) fn show(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<()> {
    let (h_q, n, _) = queries.dims3()?;
    let from = match first_watched(watches) {
        Some(watched) if watched < first + n => watched.saturating_sub(first),
        _ => return Ok(()),
    };
    for heads in Heads::of(cache)? {
        let own = heads.queries(queries, h_q / cache.heads.len())?;
        in_blocks(&heads, &own, first, from, &mut |start, p| {
            show_block(&p, &heads, first + start, watches)
        })?;
    }
    Ok(())
}

/// Shows probabilities `(heads, G, rows, seen)` of queries from position `first` on.
fn show_block(
    probabilities: &Tensor,
    heads: &Heads<'_>,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<()> {
    let (count, _, rows, _) = probabilities.dims4()?;
    let seen: Vec<usize> = (first..first + rows)
        .map(|position| heads.seen(position))
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
    let (h_q, n, _) = queries.dims3()?;
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
        let own = heads.queries(queries, group)?.contiguous()?;
        let p = heads.probabilities(&own, first, seen)?;
        Ok(p.reshape((heads.own.len() * group, n, seen))?)
    });
    Ok(Tensor::cat(&batches.collect::<Result<Vec<_>>>()?, 0)?)
}
