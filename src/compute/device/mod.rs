//! Operations that stay on the device where their operands are.
//!
//! Each is a kernel of `kernels/*.cu` and its twin on the CPU, behind one function over tensors. What is launched for
//! which shapes is data ([`Program`]), so that tests run the same launches of the same sources without a GPU.

mod add_rows;
mod counts_to_mass;
#[cfg(feature = "cuda")]
mod cuda;
mod falling_order;
mod largest_entries;
mod operation;
mod prefix_sums;
mod program;
mod row_norms;
mod row_pooling;
mod running_sums;

pub use add_rows::{AddRows, add_rows, add_rows_in_order};
pub use counts_to_mass::{CountsToMass, NOT_FINITE, counts_to_mass};
pub use falling_order::{FallingOrder, falling_order};
pub use largest_entries::{LargestEntries, Quotas, largest_entries};
pub(crate) use operation::{OnCpu, Operation};
pub use prefix_sums::{PrefixSums, prefix_sums};
pub use program::{Argument, Buffer, Launch, Program, Source};
pub(crate) use program::{size, source};
pub use row_norms::row_norms;
pub use row_pooling::{GroupReduce, Order, PoolRows, Pooling, RowPooling, pool_rows};
pub use running_sums::{RunningSums, running_sums};
