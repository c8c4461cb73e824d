//! L2 norms of a matrix's rows.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// L2 norm of every row.
///
/// Differs: squares are added in float64, on the CPU column by column.
/// Shapes: `(rows, columns)` -> `(rows)`, float64.
/// Errors: [`crate::error::Error::Candle`].
pub fn row_norms(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.to_dtype(DType::F64)?.sqr()?.sum(1)?.sqrt()?)
}
