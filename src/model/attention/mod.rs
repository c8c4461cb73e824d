//! Causal grouped-query attention over blocks of queries, and the read-only view that probes get.
//!
//! Implementations of the same arithmetic: [`cpu`] on slices, and for every other device kernels of our own where there
//! are some and [`blocks`] in candle operations. None ever holds a T x T matrix.

mod blocks;
mod cpu;
#[cfg(test)]
mod cut_tests;
pub mod device;
mod row_sums;
#[cfg(test)]
mod tests;
mod view;
mod watch;
#[cfg(test)]
mod window_tests;

use std::ops::Range;

use candle_core::{DType, Tensor};

pub(super) use blocks::block_bytes;
pub(super) use cpu::STRIP;
pub use row_sums::RowSums;
pub use view::{AttentionProbe, AttentionRun, AttentionView, NoProbe, Tee};
pub use watch::{DeviceRows, GroupRows, RowReader, Watch};

use super::cache::LayerCache;
use crate::error::{Error, Result};
use device::{WIDEST_HEAD, has_prefill_attention, prefill_attention, ragged_attention};

/// Queries that are worked on at once; also the most rows that [`AttentionView::probabilities`]
/// should be asked for where memory matters.
pub const QUERY_BLOCK: usize = 64;

/// Attention output of consecutive queries over a layer's cache; `watches` read rows as they come.
///
/// Differs: who watches changes no bit of the output.
/// Shapes: `queries` `(H_q, n, D)` after RoPE, at positions `first..first + n`, where the cache
/// already holds their own keys -> `(n, H_q * D)`.
/// Errors: [`crate::error::Error::Candle`].
pub fn attend(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<Tensor> {
    if runs_on_slices(queries) {
        cpu::attend(queries, cache, first, watches)
    } else {
        attend_on_device(queries, cache, first, watches)
    }
}

/// [`attend`] as devices other than the CPU do it, which the CPU can do too.
///
/// Shapes and errors: as [`attend`].
pub fn attend_on_device(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<Tensor> {
    match attend_by_kernel(queries, cache, first)? {
        // Rows that are read are computed apart, so that no bit of the output depends on them.
        Some(output) => {
            blocks::show(queries, cache, first, watches)?;
            Ok(output)
        }
        None => blocks::attend(queries, cache, first, watches),
    }
}

/// The output from a kernel of our own, where one takes such queries.
fn attend_by_kernel(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Option<Tensor>> {
    let (h_q, n, d) = queries.dims3()?;
    // Metal has none, and none knows of windows.
    if queries.device().is_metal() || cache.hides_from(first + n - 1) {
        return Ok(None);
    }
    // On the CPU alone the cache may be of another type than what attends to it.
    let Some(dtype) = cache.dtype() else {
        return Ok(None);
    };
    let rounded = queries.to_dtype(dtype)?;
    let output = if n == 1 && d <= WIDEST_HEAD {
        let packed = cache.packed()?;
        let (heads, appended) = (&packed.heads, packed.appended);
        let queries = rounded.reshape((h_q, d))?;
        ragged_attention(&queries, packed.keys, packed.values, heads, appended)?
    } else if has_prefill_attention(queries.device(), dtype, d)
        && let Some(heads) = cache.seen_by(first, n)
    {
        let [keys, values] = cache.buffers()?;
        prefill_attention(&rounded, keys, values, &heads, dtype)?
    } else {
        return Ok(None);
    };
    let output = output.reshape((n, h_q * d))?;
    Ok(Some(output.to_dtype(queries.dtype())?))
}

/// Causal attention probabilities of the same queries; every row sums to 1.
///
/// Shapes: as [`attend`] -> `(H_q, n, S)`, float32, zero for keys that the query does not see.
/// Errors: [`crate::error::Error::Candle`].
pub fn probabilities(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Tensor> {
    if runs_on_slices(queries) {
        cpu::probabilities(queries, cache, first)
    } else {
        blocks::probabilities(queries, cache, first)
    }
}

/// The same head by head, for heads of any length.
///
/// Shapes: `[kv_head]` of `(G, n, S)` with that head's own S.
/// Errors: [`Error::Unsupported`] on devices other than the CPU.
pub fn rows_of_heads(queries: &Tensor, cache: &LayerCache, first: usize) -> Result<Vec<Vec<f32>>> {
    if runs_on_slices(queries) {
        return cpu::rows_of_heads(queries, cache, first);
    }
    Err(Error::Unsupported {
        what: "looking at attention while decoding on",
        found: format!("{:?}", queries.device().location()),
        supported: "--device cpu".into(),
    })
}

fn runs_on_slices(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// Which of the `positions` a query at `position` sees: none after its own, nor before a window of so many keys.
///
/// Positions ascend; where there is no window it is enough that those after the query come last.
fn sight(positions: &[u32], window: Option<usize>, position: usize) -> Range<usize> {
    let end = positions.partition_point(|&p| p as usize <= position);
    let out_of_sight = |window: usize| {
        let passed = |p: &u32| *p as usize + window <= position;
        positions[..end].partition_point(passed)
    };
    window.map_or(0, out_of_sight)..end
}
