//! Attention on slices of the ragged cache, which is read in place: float32 queries and sums, keys and values
//! of any type that a cache can have.

mod decode;
mod exponential;
mod heads;
mod held;
mod prefill;
mod rows;
mod strips;
#[cfg(test)]
mod tests;
mod watched;

use candle_core::{Device, Tensor};

pub(super) use rows::{probabilities, rows_of_heads};
pub(in crate::model) use strips::STRIP;

use heads::with_heads;

use super::watch::{Watch, first_watched};
use crate::error::Result;
use crate::model::cache::LayerCache;

/// Most queries of a group's heads together that decoding's kernel serves faster than prefill's, whose
/// vectors would lie half empty.
const FEW_QUERIES: usize = 12;

/// See [`super::attend`].
pub(super) fn attend(
    queries: &Tensor,
    cache: &LayerCache,
    first: usize,
    watches: &[Watch<'_>],
) -> Result<Tensor> {
    let (h_q, n, d) = queries.dims3()?;
    let mut output = vec![0f32; n * h_q * d];
    with_heads(queries, cache, first, |heads| {
        // A single position always: only that kernel shares one head's keys between threads.
        if n == 1 || n * heads.group() <= FEW_QUERIES {
            if first_watched(watches).is_some_and(|row| row < first + n) {
                // Only the rows are wanted: watching must not change a bit of what attention gives.
                prefill::attend(heads, watches, &mut output);
                output.fill(0.0);
            }
            decode::attend(heads, &mut output);
        } else {
            prefill::attend(heads, watches, &mut output);
        }
        heads.rotate_back(&mut output);
    })?;
    Ok(Tensor::from_vec(output, (n, h_q * d), &Device::Cpu)?)
}
