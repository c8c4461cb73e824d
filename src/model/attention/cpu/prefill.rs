//! Many queries: a block of a KV head's queries goes over the keys it sees in chunks.
//!
//! Queries lie across the lanes of vectors: logits are `keys x queries` and outputs `D x queries`, so
//! that keys and values are read where they lie, one number for sixteen queries, and a softmax never
//! adds across lanes. Logits of one chunk stay in the nearest cache; running maxima and sums join the
//! chunks. Keys and values of half the bytes are widened chunk by chunk, once for all queries of a block.

use std::ops::Range;

use rayon::prelude::*;

use super::exponential::exponential;
use super::heads::Heads;
use super::strips::{Across, CHUNK, STRIP, WIDTH, ZERO};
use super::watched::WatchedRows;
use crate::compute::lanes::{LANES, Lanes, widest};
use crate::model::attention::watch::{Watch, first_watched};

/// Queries of all heads of a group that share the keys while these are in the second cache.
const BLOCK: usize = 4 * STRIP;

/// Consecutive queries of one KV head: the lines of the output that they give, one per position.
pub(super) struct Task<'a> {
    head: usize,
    start: usize,
    /// Whether somebody reads its rows.
    watched: bool,
    lines: Vec<&'a mut [f32]>, // (G, D) each
}

/// Attention output of all queries, `(n, H_q, D)`; rows are shown as they come.
pub(super) fn attend(heads: &Heads<'_>, watches: &[Watch<'_>], output: &mut [f32]) {
    let watched = first_watched(watches).map_or(heads.n, |at| at.saturating_sub(heads.first));
    tasks(heads, watched, output)
        .into_par_iter()
        .with_max_len(1)
        .for_each_init(Scratch::default, |scratch, mut task| {
            attend_task(heads, &mut task, scratch);
            if task.watched {
                let rows = task.start..task.start + task.lines.len();
                scratch.rows.show(heads, task.head, rows, watches);
            }
        });
}

/// Tasks of all queries; those from row `watched` on are watched.
pub(super) fn tasks<'a>(heads: &Heads<'_>, watched: usize, output: &'a mut [f32]) -> Vec<Task<'a>> {
    let watched = watched.min(heads.n);
    // Fewer rows where they are kept: those of one strip fit into the second cache.
    let rows = |queries: usize| (queries / heads.group()).max(1);
    let starts = (0..watched).step_by(rows(BLOCK));
    let starts = starts.chain((watched..heads.n).step_by(rows(STRIP)));
    let mut tasks: Vec<Task<'a>> = starts
        .flat_map(|start| (0..heads.h_kv()).map(move |head| (head, start)))
        .map(|(head, start)| Task {
            head,
            start,
            watched: start >= watched,
            lines: Vec::new(),
        })
        .collect();
    let mut block = 0;
    for (line, part) in output.chunks_mut(heads.group() * heads.d).enumerate() {
        let (row, head) = (line / heads.h_kv(), line % heads.h_kv());
        if head == 0 && (tasks.get(block + heads.h_kv())).is_some_and(|next| next.start == row) {
            block += heads.h_kv();
        }
        tasks[block + head].lines.push(part);
    }
    // The last blocks see the most keys: they start first, so that no thread is left with one.
    tasks.reverse();
    tasks
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    strips: Vec<Strip>,
    logits: Vec<Across>,
    /// A chunk's keys and values where the cache does not hold float32.
    widened: [Vec<f32>; 2],
    rows: WatchedRows,
}

/// Queries side by side: those of one position after another, all heads of the group each.
#[derive(Default)]
struct Strip {
    /// Divided by the root of D, `(D, queries)`.
    queries: Vec<Across>,
    /// Weighted values so far, `(D, queries)`.
    output: Vec<Across>,
    largest: Across,
    sums: Across,
    /// Keys that each query sees, from the first to before the last; both ascend.
    sights: Vec<Range<usize>>,
}

fn attend_task(heads: &Heads<'_>, task: &mut Task<'_>, scratch: &mut Scratch) {
    widest!(attend_strips(heads: &Heads<'_>, task: &mut Task<'_>, scratch: &mut Scratch));
}

#[inline(always)]
pub(super) fn attend_strips<L: Lanes>(
    heads: &Heads<'_>,
    task: &mut Task<'_>,
    scratch: &mut Scratch,
) {
    let d = heads.d;
    let queries = task.lines.len() * heads.group();
    let count = queries.div_ceil(STRIP);
    let Scratch {
        strips,
        logits: chunk,
        widened: [wide_keys, wide_values],
        rows,
    } = scratch;
    strips.resize_with(count.max(strips.len()), Strip::default);
    chunk.resize(CHUNK, ZERO);
    let strips = &mut strips[..count];
    for (s, strip) in strips.iter_mut().enumerate() {
        let from = s * STRIP;
        strip.fill(heads, task, from..queries.min(from + STRIP));
    }
    let seen = strips.last().map_or(0, Strip::end);
    if task.watched {
        rows.start(count, seen);
    }
    let held = heads.held(task.head);
    let first = strips.first().map_or(0, Strip::start) / CHUNK * CHUNK;
    for start in (first..seen).step_by(CHUNK) {
        let chunk_rows = start..seen.min(start + CHUNK);
        let keys = held.keys.widened::<L>(chunk_rows.clone(), d, wide_keys);
        let values = held.values.widened::<L>(chunk_rows, d, wide_values);
        for (s, strip) in strips.iter_mut().enumerate() {
            let end = strip.end().min(start + CHUNK);
            if end <= start.max(strip.start()) {
                continue;
            }
            let (keys, values) = (&keys[..(end - start) * d], &values[..(end - start) * d]);
            let logits = &mut chunk[..end - start];
            match (L::MANY, strip.sights.len().div_ceil(LANES)) {
                (true, 3) => strip.attend::<L, 3, 8>(0, start, keys, values, logits),
                (true, 2) => strip.attend::<L, 2, 8>(0, start, keys, values, logits),
                (true, _) => strip.attend::<L, 1, 8>(0, start, keys, values, logits),
                (false, vectors) => {
                    for v in 0..vectors {
                        strip.attend::<L, 1, 4>(v, start, keys, values, logits);
                    }
                }
            }
            if task.watched {
                let whole = (end - start).next_multiple_of(LANES);
                rows.keep::<L>(
                    s,
                    strip.sights.len(),
                    start,
                    &chunk[..whole],
                    &strip.largest,
                );
            }
        }
    }
    for (s, strip) in strips.iter().enumerate() {
        strip.write(heads, task, s * STRIP);
        if task.watched {
            rows.divide::<L>(s, &strip.sights, &strip.largest, &strip.sums);
        }
    }
}

impl Strip {
    /// Takes the queries `range` of a task, all heads of a position after another.
    fn fill(&mut self, heads: &Heads<'_>, task: &Task<'_>, range: std::ops::Range<usize>) {
        let (group, scale) = (heads.group(), heads.scale());
        self.queries.clear();
        self.queries.resize(heads.d, ZERO);
        self.output.clear();
        self.output.resize(heads.d, ZERO);
        self.largest = [[f32::MIN; LANES]; WIDTH];
        self.sums = ZERO;
        self.sights.clear();
        for (lane, query) in range.enumerate() {
            let (row, g) = (task.start + query / group, query % group);
            let line = heads.queries(task.head * group + g, row);
            for (across, x) in self.queries.iter_mut().zip(line) {
                across.as_flattened_mut()[lane] = x * scale;
            }
            self.sights.push(heads.sight(task.head, row));
        }
    }

    /// The first key that any query sees.
    fn start(&self) -> usize {
        self.sights.first().map_or(0, |sight| sight.start)
    }

    /// Where the keys end that any query sees.
    fn end(&self) -> usize {
        self.sights.last().map_or(0, |sight| sight.end)
    }

    /// Adds a chunk of keys, of which `start` is the first, to the queries in `M` vectors from `v` on.
    ///
    /// `N` keys are multiplied at a time, and as many columns of values.
    #[inline(always)]
    fn attend<L: Lanes, const M: usize, const N: usize>(
        &mut self,
        v: usize,
        start: usize,
        keys: &[f32],
        values: &[f32],
        logits: &mut [Across],
    ) {
        let d = self.queries.len();
        for (keys, logits) in keys.chunks(N * d).zip(logits.chunks_mut(N)) {
            if logits.len() == N {
                multiply::<L, M, N>(&self.queries, v, keys, logits);
            } else {
                for (key, logits) in keys.chunks(d).zip(logits.chunks_mut(1)) {
                    multiply::<L, M, 1>(&self.queries, v, key, logits);
                }
            }
        }
        self.hide(start, logits);
        self.weigh::<L, M>(v, logits);
        let mut column = 0;
        while column + N <= d {
            add_values::<L, M, N>(&mut self.output[column..], v, logits, values, column, d);
            column += N;
        }
        while column < d {
            add_values::<L, M, 1>(&mut self.output[column..], v, logits, values, column, d);
            column += 1;
        }
    }

    /// Gives keys that a query does not see yet, or no longer, no weight.
    fn hide(&self, start: usize, logits: &mut [Across]) {
        let chunk = start..start + logits.len();
        let first_ends = self
            .sights
            .first()
            .is_none_or(|sight| sight.end >= chunk.end);
        let last_starts = self
            .sights
            .last()
            .is_none_or(|sight| sight.start <= chunk.start);
        if first_ends && last_starts {
            return;
        }
        for (lane, sight) in self.sights.iter().enumerate() {
            let passed = sight.start.saturating_sub(start).min(logits.len());
            let (passed, rest) = logits.split_at_mut(passed);
            let seen = sight.end.saturating_sub(start).saturating_sub(passed.len());
            for logit in passed.iter_mut().chain(rest.iter_mut().skip(seen)) {
                logit.as_flattened_mut()[lane] = f32::NEG_INFINITY;
            }
        }
    }

    /// Replaces logits by `e^(logit - largest)`, and lowers what there is to a new largest.
    #[inline(always)]
    fn weigh<L: Lanes, const M: usize>(&mut self, v: usize, logits: &mut [Across]) {
        let mut largest = [L::splat(0.0); M];
        let mut sums = [L::splat(0.0); M];
        for (largest, before) in largest.iter_mut().zip(&self.largest[v..]) {
            *largest = L::load(before);
        }
        for logit in logits.iter() {
            for m in 0..M {
                largest[m] = L::maximum(largest[m], L::load(&logit[v + m]));
            }
        }
        for m in 0..M {
            let before = self.largest[v + m];
            L::store(largest[m], &mut self.largest[v + m]);
            if before != self.largest[v + m] {
                let factor = exponential::<L>(L::subtract(L::load(&before), largest[m]));
                let lowered = L::multiply(L::load(&self.sums[v + m]), factor);
                L::store(lowered, &mut self.sums[v + m]);
                for across in &mut self.output {
                    let lowered = L::multiply(L::load(&across[v + m]), factor);
                    L::store(lowered, &mut across[v + m]);
                }
            }
        }
        for logit in logits.iter_mut() {
            for m in 0..M {
                let weight = exponential::<L>(L::subtract(L::load(&logit[v + m]), largest[m]));
                sums[m] = L::add(sums[m], weight);
                L::store(weight, &mut logit[v + m]);
            }
        }
        // Chunk by chunk: added one after another, small weights would be lost in a long row's sum.
        for (sum, stored) in sums.into_iter().zip(&mut self.sums[v..]) {
            L::store(L::add(sum, L::load(stored)), stored);
        }
    }

    /// Divides the outputs by the sums and writes them where they belong.
    fn write(&self, heads: &Heads<'_>, task: &mut Task<'_>, from: usize) {
        let (group, d) = (heads.group(), heads.d);
        for lane in 0..self.sights.len() {
            let (row, g) = ((from + lane) / group, (from + lane) % group);
            let reciprocal = 1.0 / self.sums.as_flattened()[lane];
            let line = &mut task.lines[row][g * d..][..d];
            for (x, across) in line.iter_mut().zip(&self.output) {
                *x = across.as_flattened()[lane] * reciprocal;
            }
        }
    }
}

/// Products of `M` vectors of queries with `N` keys.
#[inline(always)]
fn multiply<L: Lanes, const M: usize, const N: usize>(
    queries: &[Across],
    v: usize,
    keys: &[f32],
    logits: &mut [Across],
) {
    let d = queries.len();
    let mut rows = [&keys[..d]; N];
    for (n, row) in rows.iter_mut().enumerate() {
        *row = &keys[n * d..][..d];
    }
    let mut sums = [[L::splat(0.0); M]; N];
    for (x, query) in queries.iter().enumerate() {
        let mut vectors = [L::splat(0.0); M];
        for m in 0..M {
            vectors[m] = L::load(&query[v + m]);
        }
        for n in 0..N {
            let key = L::splat(rows[n][x]);
            for m in 0..M {
                sums[n][m] = L::multiply_add(vectors[m], key, sums[n][m]);
            }
        }
    }
    for (logit, sums) in logits.iter_mut().zip(sums) {
        for m in 0..M {
            L::store(sums[m], &mut logit[v + m]);
        }
    }
}

/// Adds the weighted values of all keys to `N` columns of the outputs of `M` vectors of queries.
#[inline(always)]
fn add_values<L: Lanes, const M: usize, const N: usize>(
    output: &mut [Across],
    v: usize,
    weights: &[Across],
    values: &[f32],
    column: usize,
    d: usize,
) {
    let mut sums = [[L::splat(0.0); M]; N];
    for (weight, value) in weights.iter().zip(values.chunks_exact(d)) {
        let value = &value[column..][..N];
        let mut vectors = [L::splat(0.0); M];
        for m in 0..M {
            vectors[m] = L::load(&weight[v + m]);
        }
        for n in 0..N {
            let value = L::splat(value[n]);
            for m in 0..M {
                sums[n][m] = L::multiply_add(vectors[m], value, sums[n][m]);
            }
        }
    }
    for (sums, across) in sums.iter().zip(output.iter_mut()) {
        for m in 0..M {
            let sum = L::add(sums[m], L::load(&across[v + m]));
            L::store(sum, &mut across[v + m]);
        }
    }
}
