//! Products with many activations: weights are unpacked a cache's worth at a time, then multiplied.

use std::cell::Cell;

#[cfg(target_arch = "x86_64")]
use super::bfloat16::{self, PairProducts};
use super::packed::Packed;
use crate::compute::product::{self, Operand, Threads};

/// Float32 weights that are unpacked at once: 4 MiB stay in the caches next to the activations.
const BLOCK_WEIGHTS: usize = 1 << 20;
/// Rows that a block has at least: every block reads all activations again.
const BLOCK_ROWS: usize = 256;

thread_local! {
    /// Taken while a product runs, so that a product inside another would only allocate its own.
    static WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Rows that are unpacked at once.
pub(super) fn block_rows(matrix: &Packed) -> usize {
    let rows = (BLOCK_WEIGHTS / matrix.width()).max(BLOCK_ROWS);
    rows.min(matrix.rows()).max(1)
}

/// A matrix applied to `n` activations; every sum runs over the width in the order of a product with
/// the dense matrix.
///
/// Differs: for a bfloat16 model both are rounded to that type where the processor multiplies its pairs; elsewhere
/// the product is the float32 one.
/// Shapes: `x` `(n, width)` -> `(n, rows)`.
pub(super) fn multiply(matrix: &Packed, x: &[f32], n: usize) -> Vec<f32> {
    if matrix.rounds_to_bfloat16() {
        #[cfg(target_arch = "x86_64")]
        if let Some(with) = PairProducts::of_this_processor() {
            return bfloat16::multiply(with, matrix, x, n);
        }
    }
    let (rows, width) = (matrix.rows(), matrix.width());
    let block = block_rows(matrix);
    let mut output = vec![0f32; n * rows];
    let mut weights = WEIGHTS.take();
    weights.resize(weights.len().max(block * width), 0.0);
    for first in (0..rows).step_by(block) {
        let block = block.min(rows - first);
        let weights = &mut weights[..block * width];
        matrix.unpack_rows(first, weights);
        product::multiply(
            [n, block, width],
            Operand::rows(x, width),
            Operand::transposed(weights, width),
            &mut output[first..],
            rows,
            Threads::All,
        );
    }
    WEIGHTS.set(weights);
    output
}
