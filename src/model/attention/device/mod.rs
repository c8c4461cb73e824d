//! Attention in kernels of our own, each with its twin on the CPU.

mod prefill;
mod ragged;

pub use prefill::{PrefillAttention, has_prefill_attention, prefill_attention};
pub use ragged::{RaggedAttention, WIDEST_HEAD, ragged_attention};
