//! Products of many activations with packed weights: panels of sixteen rows, laid out once for all activations of a run,
//! with six activations at a time.
//!
//! A sum runs over the width from the front, whatever the number of activations, rows or threads.

#[cfg(target_arch = "x86_64")]
mod bytes;
mod integers;
#[cfg(target_arch = "x86_64")]
mod vectors;

use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
pub(in crate::compute) use bytes::Bytes;
pub(in crate::compute) use integers::{IntegerKernels, Integers};

use super::blocks::GROUP;

/// Rows of a panel.
const PANEL: usize = 16;
/// Activations that are multiplied at once: their sums with a panel fill twelve registers of eight numbers.
const TOGETHER: usize = 6;
/// Tiles of activations of a task, at most.
const TASK_TILES: usize = 16;

/// Sums of every activation with every row.
type Sums = [[f32; PANEL]; TOGETHER];

/// How panels and tiles are laid out and multiplied, 32 numbers of the width at a time.
pub(super) trait Arithmetic: Sync + Sized + 'static {
    /// So many weights each of a panel's rows.
    type Weights: Clone + Default + Send + Sync;
    /// So many numbers each of a tile's activations.
    type Inputs: Clone + Default + Send + Sync;
    /// Groups of a panel that serve all activations of a task before the next do: with six activations they stay in the
    /// first cache.
    const DEPTH: usize;

    /// What a thread keeps from product to product.
    fn buffers() -> &'static LocalKey<Cell<Buffers<Self>>>;

    /// Lays out up to [`PANEL`] packed rows of so many bytes; rows that are missing keep what was there.
    fn pack(&self, rows: &[u8], row_bytes: usize, panel: &mut [Self::Weights]);

    /// Lays out up to [`TOGETHER`] activations of so many numbers; those that are missing are zero.
    fn lay_out(&self, x: &[f32], width: usize, inputs: &mut [Self::Inputs]);

    /// Adds the products of groups of a panel with those of a tile.
    fn add(&self, panel: &[Self::Weights], inputs: &[Self::Inputs], sums: &mut Sums);
}

/// Panels and tiles of one product.
///
/// Taken while a product runs, so that a product inside another would only allocate its own.
pub(super) struct Buffers<A: Arithmetic> {
    panels: Vec<A::Weights>,
    inputs: Vec<A::Inputs>,
}

impl<A: Arithmetic> Buffers<A> {
    const EMPTY: Self = Self {
        panels: Vec::new(),
        inputs: Vec::new(),
    };
}

impl<A: Arithmetic> Default for Buffers<A> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A matrix in the blocks of its file.
pub(super) struct PackedRows<'a> {
    /// Row after row.
    pub(super) bytes: &'a [u8],
    /// Bytes of a row.
    pub(super) row_bytes: usize,
    /// How many there are.
    pub(super) rows: usize,
    /// Weights of a row.
    pub(super) width: usize,
    /// Rows that are laid out at once.
    pub(super) block: usize,
}

/// A matrix applied to `n` activations.
///
/// Shapes: `x` `(n, width)` -> `(n, rows)`.
pub(super) fn multiply<A: Arithmetic>(
    matrix: &PackedRows<'_>,
    with: &A,
    x: &[f32],
    n: usize,
) -> Vec<f32> {
    let (rows, width) = (matrix.rows, matrix.width);
    let (groups, tiles) = (width / GROUP, n.div_ceil(TOGETHER));
    let block = matrix.block.next_multiple_of(PANEL);
    let mut output = vec![0f32; n * rows];
    let mut buffers = A::buffers().take();
    let panels_of = |rows: usize| rows.div_ceil(PANEL) * groups;
    let panels = resized(&mut buffers.panels, panels_of(block.min(rows)));
    let inputs = resized(&mut buffers.inputs, tiles * groups);
    inputs
        .par_chunks_mut(groups)
        .zip(x.par_chunks(TOGETHER * width))
        .for_each(|(inputs, x)| with.lay_out(x, width, inputs));
    let task = tiles
        .div_ceil(4 * rayon::current_num_threads())
        .clamp(1, TASK_TILES);
    for first in (0..rows).step_by(block) {
        let columns = first..rows.min(first + block);
        let panels = &mut panels[..panels_of(columns.len())];
        pack(matrix, with, columns.clone(), panels);
        output
            .par_chunks_mut(task * TOGETHER * rows)
            .zip(inputs.par_chunks(task * groups))
            .for_each(|(output, inputs)| {
                let task = Task {
                    with,
                    inputs,
                    panels,
                    groups,
                    rows,
                };
                task.multiply(columns.clone(), output);
            });
    }
    A::buffers().set(buffers);
    output
}

/// Rows of a matrix as panels, on all threads.
fn pack<A: Arithmetic>(
    matrix: &PackedRows<'_>,
    with: &A,
    rows: Range<usize>,
    panels: &mut [A::Weights],
) {
    let row_bytes = matrix.row_bytes;
    let packed = &matrix.bytes[rows.start * row_bytes..rows.end * row_bytes];
    panels
        .par_chunks_mut(matrix.width / GROUP)
        .zip(packed.par_chunks(PANEL * row_bytes))
        .for_each(|(panel, rows)| with.pack(rows, row_bytes, panel));
}

/// As many elements as are asked for, of whatever they held.
fn resized<T: Clone + Default>(buffer: &mut Vec<T>, count: usize) -> &mut [T] {
    buffer.resize(buffer.len().max(count), T::default());
    &mut buffer[..count]
}

/// Some tiles of activations, and panels to multiply them with.
struct Task<'a, A: Arithmetic> {
    with: &'a A,
    /// Tile by tile, `groups` of each.
    inputs: &'a [A::Inputs],
    /// Panel by panel, `groups` of each.
    panels: &'a [A::Weights],
    groups: usize,
    /// Of the matrix, and so the numbers in a line of the output.
    rows: usize,
}

impl<A: Arithmetic> Task<'_, A> {
    /// Products with the rows `columns`, which the panels hold.
    fn multiply(&self, columns: Range<usize>, output: &mut [f32]) {
        let panels = self.panels.chunks_exact(self.groups);
        for (panel, first) in panels.zip(columns.clone().step_by(PANEL)) {
            let columns = first..columns.end.min(first + PANEL);
            for start in (0..self.groups).step_by(A::DEPTH) {
                let groups = start..self.groups.min(start + A::DEPTH);
                let lines = output.chunks_mut(TOGETHER * self.rows);
                let tiles = self.inputs.chunks_exact(self.groups);
                for (inputs, lines) in tiles.zip(lines) {
                    let (panel, inputs) = (&panel[groups.clone()], &inputs[groups.clone()]);
                    self.add(panel, inputs, columns.clone(), start > 0, lines);
                }
            }
        }
    }

    /// Adds the products of some groups to what the output holds of those before, if there are any.
    fn add(
        &self,
        panel: &[A::Weights],
        inputs: &[A::Inputs],
        columns: Range<usize>,
        goes_on: bool,
        lines: &mut [f32],
    ) {
        let mut sums: Sums = [[0.0; PANEL]; TOGETHER];
        if goes_on {
            for (sums, line) in sums.iter_mut().zip(lines.chunks(self.rows)) {
                sums[..columns.len()].copy_from_slice(&line[columns.clone()]);
            }
        }
        self.with.add(panel, inputs, &mut sums);
        for (sums, line) in sums.iter().zip(lines.chunks_mut(self.rows)) {
            line[columns.clone()].copy_from_slice(&sums[..columns.len()]);
        }
    }
}
