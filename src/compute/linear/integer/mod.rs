//! Products of many activations with packed weights as integers: weights are the codes of their file, activations
//! are rounded to codes of their own, and what 32 of each give is summed without a rounding.
//!
//! A sum over the width adds what groups of 32 give in float32, from the front, whatever the number of activations, rows or
//! threads and whatever the instruction set: every path rounds alike.

mod activations;
mod kernels;
mod panel;
mod tile;

use std::cell::Cell;

use rayon::prelude::*;

use activations::{GroupInputs, TOGETHER, round};
pub(in crate::compute) use kernels::IntegerKernels;
use panel::{GroupPanel, PANEL};
use tile::{Sums, Tile};

use super::blocks::GROUP;
use super::packed::Packed;
use super::products::Products;

/// Groups of a panel that serve all activations of a task before the next do: 20 KB stay in the first cache.
const DEPTH: usize = 16;
/// Tiles of activations of a task, at most.
const TASK_TILES: usize = 16;

#[derive(Default)]
struct Buffers {
    panels: Vec<GroupPanel>,
    inputs: Vec<GroupInputs>,
}

thread_local! {
    /// Taken while a product runs, so that a product inside another would only allocate its own.
    static BUFFERS: Cell<Buffers> = const { Cell::new(Buffers { panels: Vec::new(), inputs: Vec::new() }) };
}

/// The rows of a matrix as panels, on all threads.
fn pack(
    matrix: &Packed,
    with: &IntegerKernels,
    rows: std::ops::Range<usize>,
    panels: &mut [GroupPanel],
) {
    let (packed, row_bytes) = matrix.row_bytes(rows);
    let groups = matrix.width() / GROUP;
    panels
        .par_chunks_mut(groups)
        .zip(packed.par_chunks(PANEL * row_bytes))
        .for_each(|(panel, rows)| with.pack(rows, row_bytes, panel));
}

/// A matrix of integer codes applied to `n` activations that are rounded to so many levels.
///
/// Paper: none: house definition. Differs: llama.cpp rounds activations to 8 bits in blocks of 32 or 256 with float16 scales;
/// here scales are float32, and levels those of 16 or 8 bits.
/// Shapes: `x` `(n, width)` -> `(n, rows)`.
pub(super) fn multiply(
    matrix: &Packed,
    with: &IntegerKernels,
    levels: Levels,
    x: &[f32],
    n: usize,
) -> Vec<f32> {
    let (rows, width) = (matrix.rows(), matrix.width());
    let (groups, tiles) = (width / GROUP, n.div_ceil(TOGETHER));
    let block = matrix.block_rows().next_multiple_of(PANEL);
    let mut output = vec![0f32; n * rows];
    let mut buffers = BUFFERS.take();
    let panels_of = |rows: usize| rows.div_ceil(PANEL) * groups;
    let panels = resized(&mut buffers.panels, panels_of(block.min(rows)));
    let inputs = resized(&mut buffers.inputs, tiles * groups);
    inputs
        .par_chunks_mut(groups)
        .zip(x.par_chunks(TOGETHER * width))
        .for_each(|(inputs, x)| round(x, width, levels, inputs));
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
                    inputs,
                    panels,
                    groups,
                    rows,
                    tile: with.tile,
                };
                task.multiply(columns.clone(), output);
            });
    }
    BUFFERS.set(buffers);
    output
}

/// To how many levels on either side of zero activations are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels(pub(super) u16);

impl Levels {
    /// Those of a kind of product; none where it does not round to integers.
    pub(super) fn of(products: Products) -> Option<Self> {
        match products {
            Products::Float32 => None,
            Products::Int16 => Some(Self(32767)),
            Products::Int8 => Some(Self(127)),
        }
    }
}

/// As many elements as are asked for, of whatever they held.
fn resized<T: Clone + Default>(buffer: &mut Vec<T>, count: usize) -> &mut [T] {
    buffer.resize(buffer.len().max(count), T::default());
    &mut buffer[..count]
}

/// Some tiles of activations, and panels to multiply them with.
struct Task<'a> {
    /// Tile by tile, `groups` of each.
    inputs: &'a [GroupInputs],
    /// Panel by panel, `groups` of each.
    panels: &'a [GroupPanel],
    groups: usize,
    /// Of the matrix, and so the numbers in a line of the output.
    rows: usize,
    tile: Tile,
}

impl Task<'_> {
    /// Products with the rows `columns`, which the panels hold.
    fn multiply(&self, columns: std::ops::Range<usize>, output: &mut [f32]) {
        let panels = self.panels.chunks_exact(self.groups);
        for (panel, first) in panels.zip(columns.clone().step_by(PANEL)) {
            let columns = first..columns.end.min(first + PANEL);
            for start in (0..self.groups).step_by(DEPTH) {
                let groups = start..self.groups.min(start + DEPTH);
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
        panel: &[GroupPanel],
        inputs: &[GroupInputs],
        columns: std::ops::Range<usize>,
        goes_on: bool,
        lines: &mut [f32],
    ) {
        let mut sums: Sums = [[0.0; PANEL]; TOGETHER];
        if goes_on {
            for (sums, line) in sums.iter_mut().zip(lines.chunks(self.rows)) {
                sums[..columns.len()].copy_from_slice(&line[columns.clone()]);
            }
        }
        self.tile.add(panel, inputs, &mut sums);
        for (sums, line) in sums.iter().zip(lines.chunks_mut(self.rows)) {
            line[columns.clone()].copy_from_slice(&sums[..columns.len()]);
        }
    }
}
