//! Products with many activations: weights are unpacked a cache's worth at a time, then multiplied.

use std::cell::Cell;

use super::packed::Packed;

/// Float32 weights that are unpacked at once: 4 MiB stay in the caches next to the activations.
const BLOCK_WEIGHTS: usize = 1 << 20;
/// Rows that a block has at least: every block reads all activations again.
const BLOCK_ROWS: usize = 256;

thread_local! {
    /// Taken while a product runs, so that a product inside another would only allocate its own.
    static WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A matrix applied to `n` activations; every sum runs over the width in the order of a product with
/// the dense matrix.
///
/// Shapes: `x` `(n, width)` -> `(n, rows)`.
pub(super) fn multiply(matrix: &Packed, x: &[f32], n: usize) -> Vec<f32> {
    let (rows, width) = (matrix.rows(), matrix.width());
    let block = (BLOCK_WEIGHTS / width).max(BLOCK_ROWS).min(rows);
    let mut output = vec![0f32; n * rows];
    let mut weights = WEIGHTS.take();
    weights.resize(weights.len().max(block * width), 0.0);
    for first in (0..rows).step_by(block) {
        let block = block.min(rows - first);
        let weights = &mut weights[..block * width];
        matrix.unpack_rows(first, weights);
        multiply_dense([n, block, width], x, weights, &mut output[first..], rows);
    }
    WEIGHTS.set(weights);
    output
}

/// `c = a * bᵀ` on all threads for a `(m, k)` and b `(n, k)`; rows of c are `stride` elements apart.
fn multiply_dense([m, n, k]: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32], stride: usize) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        a.len() >= m * k && b.len() >= n * k && c.len() >= (m - 1) * stride + n && stride >= n,
        "operands too short for {m} x {n} x {k}"
    );
    let threads = rayon::current_num_threads();
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        _ => gemm::Parallelism::Rayon(threads),
    };
    // SAFETY: the assertion keeps every element that the strides reach inside its slice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
