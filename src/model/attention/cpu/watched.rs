//! The rows of a task for those who watch: turned from lanes into lines, and divided by their sums.

use std::ops::Range;

use super::exponential::exponential;
use super::heads::Heads;
use super::strips::{Across, CHUNK, WIDTH, ZERO};
use crate::compute::lanes::{LANES, Lanes};
use crate::model::attention::GroupRows;
use crate::model::attention::watch::Watch;

/// Lines of weights, one per query of a task, and what each chunk of them was measured against.
#[derive(Default)]
pub(super) struct WatchedRows {
    values: Vec<f32>,
    stride: usize,
    /// Largest logits when a chunk was weighed, `(strips, chunks)`; in the end its factors.
    largest: Vec<Across>,
    chunks: usize,
}

impl WatchedRows {
    /// Makes room for the queries of `strips` strips over `seen` keys.
    pub(super) fn start(&mut self, strips: usize, seen: usize) {
        // An odd number of vectors, so that the lines of a strip do not compete for the same cache sets.
        self.stride = (seen.div_ceil(LANES) | 1) * LANES;
        self.chunks = seen.div_ceil(CHUNK);
        self.values
            .resize(strips * WIDTH * LANES * self.stride, 0.0);
        self.largest.resize(strips * self.chunks, ZERO);
    }

    /// Takes the weights that the keys from `start` on have in a strip of `queries` queries; whole vectors of
    /// keys, of which the last may lie beyond what is seen.
    #[inline(always)]
    pub(super) fn keep<L: Lanes>(
        &mut self,
        strip: usize,
        queries: usize,
        start: usize,
        weights: &[Across],
        largest: &Across,
    ) {
        self.largest[strip * self.chunks + start / CHUNK] = *largest;
        for v in 0..queries.div_ceil(LANES) {
            for (tile, weights) in weights.chunks_exact(LANES).enumerate() {
                let mut lines = [L::splat(0.0); LANES];
                for (line, weight) in lines.iter_mut().zip(weights) {
                    *line = L::load(&weight[v]);
                }
                let at = start + tile * LANES;
                let first = (strip * WIDTH + v) * LANES;
                for (lane, line) in L::transpose(lines).into_iter().enumerate() {
                    let to = &mut self.values[(first + lane) * self.stride + at..];
                    if let Some(to) = to.first_chunk_mut() {
                        L::store(line, to);
                    }
                }
            }
        }
    }

    /// Turns the weights of a strip into probabilities, given what each query sees and its final largest logit and sum.
    #[inline(always)]
    pub(super) fn divide<L: Lanes>(
        &mut self,
        strip: usize,
        sights: &[Range<usize>],
        largest: &Across,
        sums: &Across,
    ) {
        let factors = &mut self.largest[strip * self.chunks..][..self.chunks];
        for factor in factors.iter_mut() {
            for v in 0..WIDTH {
                let below = L::subtract(L::load(&factor[v]), L::load(&largest[v]));
                L::store(exponential::<L>(below), &mut factor[v]);
                for (factor, sum) in factor[v].iter_mut().zip(&sums[v]) {
                    *factor /= sum;
                }
            }
        }
        let first = strip * WIDTH * LANES;
        for (lane, sight) in sights.iter().enumerate() {
            let line = &mut self.values[(first + lane) * self.stride..][..self.stride];
            for (chunk, factor) in line.chunks_mut(CHUNK).zip(factors.iter()) {
                let factor = factor.as_flattened()[lane];
                chunk.iter_mut().for_each(|p| *p *= factor);
            }
            // Chunks before a window were never weighed.
            line[..sight.start].fill(0.0);
        }
    }

    /// Shows the rows `rows` of the run to the readers.
    pub(super) fn show(
        &self,
        heads: &Heads<'_>,
        head: usize,
        rows: Range<usize>,
        watches: &[Watch<'_>],
    ) {
        let seen: Vec<usize> = rows.clone().map(|row| heads.sight(head, row).end).collect();
        let block = GroupRows {
            kv_head: head,
            positions: heads.first + rows.start..heads.first + rows.end,
            group: heads.group(),
            values: &self.values,
            strides: [heads.group() * self.stride, self.stride],
            seen: &seen,
        };
        block.show(watches);
    }
}
