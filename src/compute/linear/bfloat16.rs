//! Products of many activations with packed weights, both rounded to bfloat16, on processors that multiply its pairs.
//!
//! A pair of activations is broadcast to the rows of a panel. Sums are float32 and run over the width from the front, whatever
//! the number of activations, rows or threads.

use std::arch::x86_64::*;
use std::cell::Cell;

use rayon::prelude::*;

use super::blocks::GROUP;
use super::packed::Packed;
use super::panels::{PANEL, PairProducts, Pairs, VECTORS, joined};
use crate::compute::lanes::{Avx512, LANES, Lanes};

/// Activations that are multiplied at once: their sums fill 24 registers.
const TOGETHER: usize = 6;
/// Pairs of a panel that serve all activations of a task before the next do: 64 KB.
const DEPTH: usize = 256;
/// Activations of a task.
const TASK: usize = 8 * TOGETHER;

#[derive(Default)]
struct Buffers {
    panels: Vec<Pairs>,
    activations: Vec<u32>,
}

thread_local! {
    /// Taken while a product runs, so that a product inside another would only allocate its own.
    static BUFFERS: Cell<Buffers> = const { Cell::new(Buffers { panels: Vec::new(), activations: Vec::new() }) };
}

/// A matrix applied to `n` activations, both rounded to bfloat16.
///
/// Shapes: `x` `(n, width)` -> `(n, rows)`.
pub(super) fn multiply(with: PairProducts, matrix: &Packed, x: &[f32], n: usize) -> Vec<f32> {
    let (rows, width) = (matrix.rows(), matrix.width());
    let (pairs, panel) = (width / 2, VECTORS * width / 2);
    let block = matrix.block_rows().next_multiple_of(PANEL);
    let mut output = vec![0f32; n * rows];
    let mut buffers = BUFFERS.take();
    buffers.panels.resize(
        buffers.panels.len().max(block / PANEL * panel),
        Pairs::default(),
    );
    buffers
        .activations
        .resize(buffers.activations.len().max(n * pairs), 0);
    let activations = &mut buffers.activations[..n * pairs];
    activations
        .par_chunks_mut(TASK * pairs)
        .zip(x.par_chunks(TASK * width))
        .for_each(|(rounded, x)| round(with, x, rounded));
    for first in (0..rows).step_by(block) {
        let columns = first..rows.min(first + block);
        let panels = &mut buffers.panels[..columns.len().div_ceil(PANEL) * panel];
        matrix.unpack_panels(with, columns.clone(), panels);
        output
            .par_chunks_mut(TASK * rows)
            .zip(activations.par_chunks(TASK * pairs))
            .for_each(|(output, activations)| {
                let task = Task {
                    activations,
                    panels,
                    pairs,
                    rows,
                };
                // SAFETY: the proof says that the instructions were detected.
                unsafe { task.multiply(columns.clone(), output) }
            });
    }
    BUFFERS.set(buffers);
    output
}

/// Rounds pairs of numbers to the nearest bfloat16 ones, ties to even.
fn round(_: PairProducts, x: &[f32], rounded: &mut [u32]) {
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn round_with(x: &[f32], rounded: &mut [u32]) {
        let (x, _) = x.as_chunks::<GROUP>();
        let (rounded, _) = rounded.as_chunks_mut::<LANES>();
        for (x, rounded) in x.iter().zip(rounded) {
            // SAFETY: both are whole arrays.
            unsafe {
                let lower = _mm512_loadu_ps(x.as_ptr());
                let upper = _mm512_loadu_ps(x[LANES..].as_ptr());
                _mm512_storeu_si512(rounded.as_mut_ptr().cast(), joined(lower, upper));
            }
        }
    }
    // SAFETY: the proof says that the instructions were detected.
    unsafe { round_with(x, rounded) }
}

/// Some activations, and panels to multiply them with.
struct Task<'a> {
    /// `(n, pairs)`.
    activations: &'a [u32],
    panels: &'a [Pairs],
    /// Of a row.
    pairs: usize,
    /// Of the matrix, and so the numbers in a line of the output.
    rows: usize,
}

impl Task<'_> {
    /// Products with the rows `columns`, which the panels hold.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma,f16c,popcnt")]
    fn multiply(&self, columns: std::ops::Range<usize>, output: &mut [f32]) {
        let (pairs, rows) = (self.pairs, self.rows);
        let panels = self.panels.chunks_exact(VECTORS * pairs);
        for (panel, first) in panels.zip(columns.clone().step_by(PANEL)) {
            let columns = first..columns.end.min(first + PANEL);
            for start in (0..pairs).step_by(DEPTH) {
                let end = pairs.min(start + DEPTH);
                let panel = &panel[start * VECTORS..end * VECTORS];
                let lines = output.chunks_mut(TOGETHER * rows);
                let activations = self.activations.chunks(TOGETHER * pairs);
                for (activations, lines) in activations.zip(lines) {
                    let part = Part {
                        activations,
                        pairs,
                        start,
                        panel,
                        rows,
                        columns: columns.clone(),
                    };
                    match activations.len() / pairs {
                        6 => part.add::<6>(lines),
                        5 => part.add::<5>(lines),
                        4 => part.add::<4>(lines),
                        3 => part.add::<3>(lines),
                        2 => part.add::<2>(lines),
                        _ => part.add::<1>(lines),
                    }
                }
            }
        }
    }
}

/// Pairs from `start` on of up to [`TOGETHER`] activations and of one panel.
struct Part<'a> {
    activations: &'a [u32],
    pairs: usize,
    start: usize,
    panel: &'a [Pairs],
    rows: usize,
    columns: std::ops::Range<usize>,
}

impl Part<'_> {
    /// Adds the products to `R` lines of the output; those of the first pairs replace what was there.
    #[inline(always)]
    fn add<const R: usize>(&self, lines: &mut [f32]) {
        let (panel, _) = self.panel.as_chunks::<VECTORS>();
        let mut activations = [self.activations; R];
        for (r, line) in activations.iter_mut().enumerate() {
            *line = &self.activations[r * self.pairs + self.start..][..panel.len()];
        }
        let width = self.columns.len();
        let mut stored = [[[0f32; LANES]; VECTORS]; R];
        if self.start > 0 {
            for (stored, line) in stored.iter_mut().zip(lines.chunks(self.rows)) {
                let sums = &line[self.columns.clone()];
                stored.as_flattened_mut()[..width].copy_from_slice(sums);
            }
        }
        let mut sums = [[Avx512::splat(0.0); VECTORS]; R];
        for (sums, stored) in sums.iter_mut().zip(&stored) {
            for (sum, stored) in sums.iter_mut().zip(stored) {
                *sum = Avx512::load(stored);
            }
        }
        for (i, weights) in panel.iter().enumerate() {
            // SAFETY: only a function compiled for the instructions calls this one; vectors are whole arrays.
            unsafe {
                let mut vectors = [_mm512_setzero_si512(); VECTORS];
                for v in 0..VECTORS {
                    vectors[v] = _mm512_loadu_si512(weights[v].as_ptr().cast());
                }
                for r in 0..R {
                    let pair = bfloat16(_mm512_set1_epi32(activations[r][i] as i32));
                    for v in 0..VECTORS {
                        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], bfloat16(vectors[v]), pair);
                    }
                }
            }
        }
        for (stored, sums) in stored.iter_mut().zip(sums) {
            for (stored, sum) in stored.iter_mut().zip(sums) {
                Avx512::store(sum, stored);
            }
        }
        for (stored, line) in stored.iter().zip(lines.chunks_mut(self.rows)) {
            line[self.columns.clone()].copy_from_slice(&stored.as_flattened()[..width]);
        }
    }
}

#[inline(always)]
fn bfloat16(x: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without a meaning of their own.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
}
