//! A few queries: every key and value is read once, where it lies, for all query heads of its group.
//!
//! The work is cut into pieces of one KV head and a fixed run of its keys, so that heads of different
//! length balance, whatever the number of threads; the pieces' outputs are added up in the order of the
//! keys.

use std::ops::Range;

use rayon::prelude::*;

use super::exponential::exponential;
use super::heads::Heads;
use super::held::{Element, Held, by_element};
use crate::compute::lanes::{LANES, Lanes, Vector, widest};

/// Keys of a piece.
const PIECE: usize = 512;

/// Keys whose logits are held at once, while their values are on the way.
const TILE: usize = 64;

/// A tile's logits of one query, in vectors.
type Line = [Vector; TILE / LANES];

/// Products (queries x keys x D) below which waking other threads costs more than it saves.
const WORTH_SHARING: usize = 1 << 18;

/// A run of keys of one KV head.
pub(super) struct Piece {
    pub(super) head: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Attention output of all queries, `(n, H_q, D)`.
pub(super) fn attend(heads: &Heads<'_>, output: &mut [f32]) {
    let (rows, d) = (heads.group() * heads.n, heads.d);
    let pieces = pieces(heads);
    let size = rows * (d + 2); // per query the output, the largest logit and the sum
    let mut partial = vec![0f32; pieces.len() * size];
    let keys: usize = pieces.iter().map(|p| p.end - p.start).sum();
    if size == 0 {
        return;
    }
    if keys * rows * d < WORTH_SHARING {
        for (piece, partial) in pieces.iter().zip(partial.chunks_mut(size)) {
            attend_piece(heads, piece, partial);
        }
    } else {
        let tasks = pieces.par_iter().zip(partial.par_chunks_mut(size));
        tasks
            .with_max_len(1)
            .for_each(|(piece, partial)| attend_piece(heads, piece, partial));
    }
    for head in 0..heads.h_kv() {
        let of_head: Vec<&[f32]> = (pieces.iter().zip(partial.chunks(size)))
            .filter(|(piece, _)| piece.head == head)
            .map(|(_, partial)| partial)
            .collect();
        for row in 0..rows {
            let (g, query) = (row / heads.n, row % heads.n);
            let line = &mut output[(query * heads.h_q + head * heads.group() + g) * d..][..d];
            merge(&of_head, row, rows, line);
        }
    }
}

fn pieces(heads: &Heads<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for head in 0..heads.h_kv() {
        let last = heads.n.saturating_sub(1);
        let (first, seen) = (heads.sight(head, 0).start, heads.sight(head, last).end);
        for start in (first..seen).step_by(PIECE) {
            let end = seen.min(start + PIECE);
            pieces.push(Piece { head, start, end });
        }
    }
    pieces
}

/// Adds the outputs of one query over the pieces of its KV head, each weighted by what it holds.
fn merge(pieces: &[&[f32]], row: usize, rows: usize, line: &mut [f32]) {
    let d = line.len();
    let (largest, sum) = (rows * d + row, rows * (d + 1) + row);
    let top = pieces.iter().map(|p| p[largest]).fold(f32::MIN, f32::max);
    let mut total = 0f32;
    for piece in pieces {
        let weight = (piece[largest] - top).exp();
        total += weight * piece[sum];
        for (x, part) in line.iter_mut().zip(&piece[row * d..][..d]) {
            *x += weight * part;
        }
    }
    line.iter_mut().for_each(|x| *x /= total);
}

fn attend_piece(heads: &Heads<'_>, piece: &Piece, partial: &mut [f32]) {
    widest!(attend_tiles(heads: &Heads<'_>, piece: &Piece, partial: &mut [f32]));
}

/// Outputs `(queries, D)` that are not divided yet, largest scaled logits, and sums.
#[inline(always)]
pub(super) fn attend_tiles<L: Lanes>(heads: &Heads<'_>, piece: &Piece, partial: &mut [f32]) {
    let (rows, d) = (heads.group() * heads.n, heads.d);
    let (output, state) = partial.split_at_mut(rows * d);
    let (largest, sums) = state.split_at_mut(rows);
    largest.fill(f32::MIN);
    let queries = heads.queries(piece.head * heads.group(), 0);
    let held = *heads.held(piece.head);
    let [mut wide_keys, mut wide_values] = [Vec::new(), Vec::new()];
    for start in (piece.start..piece.end).step_by(TILE) {
        let tile = start..piece.end.min(start + TILE);
        let tile = Held {
            keys: held.keys.rows::<L>(tile.clone(), d, &mut wide_keys),
            values: held.values.rows::<L>(tile, d, &mut wide_values),
        };
        let mut row = 0;
        while row < rows {
            // As many queries as there are registers for, of those that remain.
            let together = if L::MANY { (rows - row).min(4) } else { 1 };
            let queries = &queries[row * d..][..together * d];
            let mut work = TileRows {
                queries,
                tile,
                d,
                scale: heads.scale(),
                output: &mut output[row * d..][..together * d],
                largest: &mut largest[row..][..together],
                sums: &mut sums[row..][..together],
            };
            let seen = |r: usize| {
                let sight = heads.sight(piece.head, (row + r) % heads.n);
                sight.start.saturating_sub(start)..sight.end.saturating_sub(start)
            };
            match together {
                4 => work.attend::<L, 4>([seen(0), seen(1), seen(2), seen(3)]),
                3 => work.attend::<L, 3>([seen(0), seen(1), seen(2)]),
                2 => work.attend::<L, 2>([seen(0), seen(1)]),
                _ => work.attend::<L, 1>([seen(0)]),
            }
            row += together;
        }
    }
}

/// Some queries of a group against the keys of one tile, and what they have come to so far.
struct TileRows<'a> {
    queries: &'a [f32],
    tile: Held<'a>,
    d: usize,
    scale: f32,
    output: &'a mut [f32],
    largest: &'a mut [f32],
    sums: &'a mut [f32],
}

impl TileRows<'_> {
    /// Adds the tile to the outputs of `R` queries, which see the keys `seen` of it.
    #[inline(always)]
    fn attend<L: Lanes, const R: usize>(&mut self, seen: [Range<usize>; R]) {
        let mut lines = [[[f32::NEG_INFINITY; LANES]; TILE / LANES]; R];
        by_element!(self.tile.keys, keys => self.logits::<L, _, R>(keys, &mut lines));
        for r in 0..R {
            let line = &mut lines[r];
            let logits = line.as_flattened_mut();
            let passed = seen[r].start.min(TILE);
            logits[..passed].fill(f32::NEG_INFINITY);
            logits[seen[r].end.clamp(passed, TILE)..].fill(f32::NEG_INFINITY);
            let before = self.largest[r];
            let (largest, sum) = weights::<L>(line, before, self.scale);
            if largest > before {
                let factor = (before - largest).exp();
                self.sums[r] *= factor;
                let output = &mut self.output[r * self.d..][..self.d];
                output.iter_mut().for_each(|x| *x *= factor);
                self.largest[r] = largest;
            }
            self.sums[r] += sum;
        }
        by_element!(self.tile.values, values => self.add_values::<L, _, R>(values, &lines));
    }

    /// Dot products of `R` queries with all keys, four keys at a time.
    #[inline(always)]
    fn logits<L: Lanes, E: Element, const R: usize>(&self, held: &[E], lines: &mut [Line; R]) {
        let d = self.d;
        let count = held.len() / d;
        let mut key = 0;
        while key < count {
            // The last keys are computed again rather than one by one.
            let four = if count < 4 { key } else { key.min(count - 4) };
            let step = (count - four).min(4);
            let mut keys = [&held[four * d..][..d]; 4];
            for (k, slice) in keys.iter_mut().enumerate().take(step) {
                *slice = &held[(four + k) * d..][..d];
            }
            let mut queries = [&self.queries[..d]; R];
            for (r, slice) in queries.iter_mut().enumerate() {
                *slice = &self.queries[r * d..][..d];
            }
            let dots = dots::<L, E, R>(queries, keys);
            for (line, dots) in lines.iter_mut().zip(dots) {
                line.as_flattened_mut()[four..four + step].copy_from_slice(&dots[..step]);
            }
            key = four + step;
        }
    }

    /// Adds the weighted values of all keys to the outputs of `R` queries.
    #[inline(always)]
    fn add_values<L: Lanes, E: Element, const R: usize>(&mut self, held: &[E], lines: &[Line; R]) {
        let d = self.d;
        let mut from = 0;
        while from + 4 * LANES <= d {
            self.add_columns::<L, E, R, 4>(held, lines, from);
            from += 4 * LANES;
        }
        while from + LANES <= d {
            self.add_columns::<L, E, R, 1>(held, lines, from);
            from += LANES;
        }
        for (r, line) in lines.iter().enumerate() {
            let weights = line.as_flattened();
            for x in from..d {
                let values = held.chunks_exact(d).map(|v| v[x].widened());
                let sum: f32 = values.zip(weights).map(|(v, w)| v * w).sum();
                self.output[r * d + x] += sum;
            }
        }
    }

    /// The part of [`TileRows::add_values`] in `C` vectors from column `from` on.
    #[inline(always)]
    fn add_columns<L: Lanes, E: Element, const R: usize, const C: usize>(
        &mut self,
        held: &[E],
        lines: &[Line; R],
        from: usize,
    ) {
        let d = self.d;
        let mut sums = [[L::splat(0.0); C]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            let (output, _) = self.output[r * d + from..][..C * LANES].as_chunks::<LANES>();
            for (sum, output) in sums.iter_mut().zip(output) {
                *sum = L::load(output);
            }
        }
        for (key, values) in held.chunks_exact(d).enumerate() {
            let (values, _) = values[from..][..C * LANES].as_chunks::<LANES>();
            for c in 0..C {
                let value = E::load::<L>(&values[c]);
                for r in 0..R {
                    let weight = L::splat(lines[r].as_flattened()[key]);
                    sums[r][c] = L::multiply_add(weight, value, sums[r][c]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let (output, _) = self.output[r * d + from..][..C * LANES].as_chunks_mut::<LANES>();
            for (sum, output) in sums.into_iter().zip(output) {
                L::store(sum, output);
            }
        }
    }
}

/// Dot products of `R` queries with four keys, all of one length.
#[inline(always)]
fn dots<L: Lanes, E: Element, const R: usize>(
    queries: [&[f32]; R],
    keys: [&[E]; 4],
) -> [[f32; 4]; R] {
    let d = keys[0].len();
    let mut sums = [[L::splat(0.0); 4]; R];
    let mut from = 0;
    while from + LANES <= d {
        let mut loaded = [L::splat(0.0); 4];
        for k in 0..4 {
            loaded[k] = load::<L, E>(keys[k], from);
        }
        for r in 0..R {
            let query = load::<L, f32>(queries[r], from);
            for k in 0..4 {
                sums[r][k] = L::multiply_add(query, loaded[k], sums[r][k]);
            }
        }
        from += LANES;
    }
    let mut dots = [[0f32; 4]; R];
    for r in 0..R {
        dots[r] = L::sums(sums[r]);
        for k in 0..4 {
            for x in from..d {
                dots[r][k] += queries[r][x] * keys[k][x].widened();
            }
        }
    }
    dots
}

#[inline(always)]
fn load<L: Lanes, E: Element>(slice: &[E], from: usize) -> L::Float {
    match slice[from..].first_chunk::<LANES>() {
        Some(vector) => E::load::<L>(vector),
        None => L::splat(0.0),
    }
}

/// Replaces logits by `e^(scale * logit - largest)`; the new largest scaled logit, and the sum.
#[inline(always)]
fn weights<L: Lanes>(line: &mut Line, before: f32, scale: f32) -> (f32, f32) {
    let mut top = L::load(&line[0]);
    for vector in &line[1..] {
        top = L::maximum(top, L::load(vector));
    }
    let largest = before.max(L::largest(top) * scale);
    let (scale, offset) = (L::splat(scale), L::splat(-largest));
    let zero = L::splat(0.0);
    let mut sums = [zero; 4];
    for (vector, sum) in line.iter_mut().zip(&mut sums) {
        let weight = exponential::<L>(L::multiply_add(L::load(vector), scale, offset));
        *sum = L::add(*sum, weight);
        L::store(weight, vector);
    }
    (largest, L::sums(sums).iter().sum())
}
