//! What attention's output projection makes of rows.

use crate::compute::product::{Operand, Threads, multiply};

/// The products of rows of concatenated heads with W_o `[hidden, width]`, `(rows, hidden)`.
pub(super) fn projected(weights: &[f32], [hidden, width]: [usize; 2], rows: &[f32]) -> Vec<f32> {
    let count = rows.len() / width.max(1);
    let mut outputs = vec![0f32; count * hidden];
    multiply(
        [count, hidden, width],
        Operand::rows(rows, width),
        Operand::transposed(weights, width),
        &mut outputs,
        hidden,
        Threads::All,
    );
    outputs
}
