//! Products with few activations: one pass over the packed bytes, weights unpacked in registers.

use rayon::prelude::*;

use super::packed::Packed;

/// Weights below which another task costs more than it brings.
const TASK_WEIGHTS: usize = 1 << 16;

/// Every matrix applied to the same `n` activations, in one parallel region.
///
/// Shapes: `x` `(n, width)` -> `(n, rows)` for each matrix.
pub(super) fn multiply(matrices: &[&Packed], x: &[f32], n: usize) -> Vec<Vec<f32>> {
    let width = x.len() / n.max(1);
    let inputs: Vec<&[f32]> = x.chunks_exact(width.max(1)).collect();
    let mut outputs: Vec<Vec<f32>> = (matrices.iter())
        .map(|matrix| vec![0f32; matrix.rows() * n])
        .collect();
    let total: usize = matrices.iter().map(|m| m.rows()).sum();
    let fair = total.div_ceil(2 * rayon::current_num_threads());
    let rows = fair.max(TASK_WEIGHTS / width.max(1)).max(1);
    let mut tasks: Vec<(&Packed, usize, &mut [f32])> = Vec::new();
    for (matrix, output) in matrices.iter().zip(&mut outputs) {
        let chunks = output.chunks_mut((rows * n).max(1)).enumerate();
        tasks.extend(chunks.map(|(i, chunk)| (*matrix, i * rows, chunk)));
    }
    (tasks.into_par_iter().with_max_len(1))
        .for_each(|(matrix, first, out)| matrix.products(first, &inputs, out));
    match n {
        1 => outputs,
        _ => outputs.iter().map(|output| transposed(output, n)).collect(),
    }
}

/// `(rows, n)` -> `(n, rows)`.
fn transposed(values: &[f32], n: usize) -> Vec<f32> {
    (0..n)
        .flat_map(|i| values.iter().skip(i).step_by(n).copied())
        .collect()
}
