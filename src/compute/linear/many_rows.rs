//! Products with many activations: weights are unpacked a cache's worth at a time, then multiplied.

use std::cell::Cell;

#[cfg(target_arch = "x86_64")]
use super::bfloat16;
use super::packed::Packed;
#[cfg(target_arch = "x86_64")]
use super::panels::PairProducts;
use super::tiled;
use crate::compute::product::{self, Operand, Threads};

thread_local! {
    /// Taken while a product runs, so that a product inside another would only allocate its own.
    static WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A matrix applied to `n` activations; every sum runs over the width in the order of a product with
/// the dense matrix.
///
/// Differs: for a bfloat16 model both are rounded to that type where the processor multiplies its pairs; elsewhere
/// the product is the float32 one. Integer products round activations ([`tiled`]).
/// Shapes: `x` `(n, width)` -> `(n, rows)`.
pub(super) fn multiply(matrix: &Packed, x: &[f32], n: usize) -> Vec<f32> {
    if matrix.rounds_to_bfloat16() {
        #[cfg(target_arch = "x86_64")]
        if let Some(with) = PairProducts::of_this_processor() {
            return bfloat16::multiply(with, matrix, x, n);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(with) = matrix.bytes_at_once() {
        return tiled::multiply(&matrix.packed_rows(), &with, x, n);
    }
    if let Some(with) = matrix.integers() {
        return tiled::multiply(&matrix.packed_rows(), &with, x, n);
    }
    let (rows, width) = (matrix.rows(), matrix.width());
    let block = matrix.block_rows();
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
