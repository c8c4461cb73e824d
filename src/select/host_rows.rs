//! Rows of keys or values on the CPU, for rules that no device has an operation for.

use candle_core::{DType, Device, Tensor};

use crate::compute::product::{Operand, Threads, multiply};
use crate::error::Result;
use crate::model::attention::AttentionView;

/// Values that W_o is applied to at a time.
const PROJECTED_AT_ONCE: usize = 512;

/// The numbers of `(T, D)`, row after row.
///
/// Errors: [`crate::error::Error::Candle`].
pub(super) fn host_rows(rows: &Tensor) -> Result<Vec<f32>> {
    let rows = rows.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    Ok(rows.flatten_all()?.to_vec1()?)
}

/// The L1 norm of every row.
pub(super) fn l1_norms(rows: &[f32], width: usize) -> Vec<f64> {
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(x.abs())).sum();
    rows.chunks(width.max(1)).map(norm).collect()
}

/// The L2 norm of every row.
pub(super) fn l2_norms(rows: &[f32], width: usize) -> Vec<f64> {
    let squares = squared_norms(rows, width).into_iter();
    squares.map(f64::sqrt).collect()
}

/// The square of the L2 norm of every row.
pub(super) fn squared_norms(rows: &[f32], width: usize) -> Vec<f64> {
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum();
    rows.chunks(width.max(1)).map(norm).collect()
}

/// The norms of W_o's columns of every query head times each value, `[query_head][token]`, by `norms` of rows and their width.
///
/// Differs: products are float32, 512 values at a time, and norms are added up in float64.
/// Shapes: values `(T, D)` per KV head. Errors: [`crate::error::Error::Candle`].
pub(super) fn projected_norms(
    view: &AttentionView<'_>,
    values: &[Tensor],
    query_heads: usize,
    norms_of: fn(&[f32], usize) -> Vec<f64>,
) -> Result<Vec<Vec<f64>>> {
    let projection = view.output_projection()?;
    let (hidden, width) = projection.dims2()?;
    let weights = host_rows(&projection)?;
    let d = width / query_heads.max(1);
    let group = query_heads / values.len().max(1);
    let mut norms = Vec::with_capacity(query_heads);
    let mut outputs = vec![0f32; PROJECTED_AT_ONCE * hidden];
    for (kv_head, values) in values.iter().enumerate() {
        let values = host_rows(values)?;
        for head in kv_head * group..(kv_head + 1) * group {
            let mut own = Vec::with_capacity(values.len() / d.max(1));
            for rows in values.chunks((PROJECTED_AT_ONCE * d).max(1)) {
                let count = rows.len() / d;
                multiply(
                    [count, hidden, d],
                    Operand::rows(rows, d),
                    Operand::transposed(&weights[head * d..], width),
                    &mut outputs,
                    hidden,
                    Threads::All,
                );
                own.extend(norms_of(&outputs[..count * hidden], hidden));
            }
            norms.push(own);
        }
    }
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_of_rows() {
        let rows = [3.0, -4.0, 0.0, 1.5];
        assert_eq!(l1_norms(&rows, 2), [7.0, 1.5]);
        assert_eq!(squared_norms(&rows, 2), [25.0, 2.25]);
    }
}
