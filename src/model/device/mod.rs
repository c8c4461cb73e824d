//! Operations that stay on the model's device: what is measured, kept and attended to there.
//!
//! Each is a kernel of `kernels/*.cu` and its twin on the CPU, behind one function over tensors. What is launched for
//! which shapes is data ([`Program`]), so that tests run the same launches of the same sources without a GPU.

mod best_tokens;
#[cfg(feature = "cuda")]
mod cuda;
mod head_pooling;
mod key_norms;
mod key_order;
mod mass_sums;
mod prefill_attention;
mod program;
mod ragged_attention;
mod row_budgets;
mod row_sums;
mod running_sums;

use candle_core::{CpuStorage, Layout, WithDType};

pub use best_tokens::{BestTokens, Wanted, best_tokens};
pub use head_pooling::{GroupReduce, HeadPooling, Order, PoolHeads, Pooling, pool_heads};
pub use key_norms::{KeyNorms, key_norms};
pub use key_order::{KeyOrder, key_order};
pub use mass_sums::{MassSums, mass_sums};
pub use prefill_attention::{PrefillAttention, has_prefill_attention, prefill_attention};
pub use program::{Argument, Buffer, Launch, Program, Source};
pub use ragged_attention::{
    RaggedAttention, RaggedHead, RaggedHeads, WIDEST_HEAD, ragged_attention,
};
pub use row_budgets::{NOT_FINITE, RowBudgets, row_budgets};
pub use row_sums::{AddRows, add_rows, add_rows_in_order};
pub use running_sums::{RunningSums, running_sums};

/// The numbers of a contiguous tensor on the CPU.
fn numbers<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
    op: &'static str,
) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<T>()?[from..to]),
        None => Err(candle_core::Error::RequiresContiguous { op }),
    }
}
