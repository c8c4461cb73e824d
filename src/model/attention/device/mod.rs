//! Attention in kernels of our own, each with its twin on the CPU.

mod prefill;
mod ragged;

use candle_core::{Tensor, WithDType};

pub use prefill::{PrefillAttention, has_prefill_attention, prefill_attention};
pub use ragged::{RaggedAttention, WIDEST_HEAD, ragged_attention};

use crate::error::{Error, Result};

/// Query heads of each KV head.
///
/// Errors: [`Error::Invalid`] where they are no whole number.
fn group(query_heads: usize, kv_heads: usize) -> Result<usize> {
    if query_heads > 0 && kv_heads > 0 && query_heads.is_multiple_of(kv_heads) {
        return Ok(query_heads / kv_heads);
    }
    let bound = format!("it must be a multiple of the {kv_heads} KV heads");
    Err(Error::invalid("number of query heads", query_heads, bound))
}

/// Refuses values of another shape than the keys'.
fn check_values(keys: &Tensor, values: &Tensor) -> Result<()> {
    if values.dims() == keys.dims() {
        return Ok(());
    }
    let bound = format!("keys are {:?}", keys.dims());
    let found = format!("{:?}", values.dims());
    Err(Error::invalid("shape of values", found, bound))
}

/// The output of one query over keys and values `(S, D)`, in float64.
fn attended<T: WithDType>(query: &[T], [keys, values]: [&[T]; 2], scale: f64) -> Vec<f64> {
    let d = query.len();
    let logits: Vec<f64> = (keys.chunks(d))
        .map(|key| {
            let products = query.iter().zip(key).map(|(q, k)| q.to_f64() * k.to_f64());
            products.sum::<f64>() * scale
        })
        .collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut output = vec![0.0; d];
    for (value, weight) in values.chunks(d).zip(weights) {
        let sums = output.iter_mut().zip(value);
        sums.for_each(|(sum, v)| *sum += weight * v.to_f64());
    }
    output.iter_mut().for_each(|sum| *sum /= total);
    output
}
