//! Keys or values of one KV head in few bits.

use std::ops::Range;

use super::elements::{Elements, Grouped};
use super::side::Side;
use crate::compute::lanes::Lanes;
use crate::compute::packed_rows::{Packing, rotate};
use crate::error::Result;

/// Rows that are packed: one or two stretches, each packed in its own way, whose rows come one after another.
///
/// Differs: new rows come to the last stretch. Where there are groups, that is the newest rows in float16, and the one
/// before it holds the coded ones.
#[derive(Clone, Debug)]
pub(in crate::model) struct PackedRows {
    elements: Elements,
    stretches: Vec<Stretch>,
    width: usize,
    /// Size of the Hadamard matrix that rows are rotated by.
    rotation: Option<usize>,
}

/// Rows that are packed alike.
#[derive(Clone, Debug)]
struct Stretch {
    packing: Packing,
    bytes: Vec<u8>,
    rows: usize,
}

impl Stretch {
    fn new(packing: Packing) -> Self {
        Self {
            packing,
            bytes: Vec::new(),
            rows: 0,
        }
    }

    /// Codes rows behind those that are there; room grows by an eighth, since room without rows is memory too.
    fn push(&mut self, rows: &[f32], width: usize) -> Result<()> {
        let added = rows.len() / width.max(1);
        let needed = added / self.packing.rows() * self.packing.bytes(width);
        if self.bytes.capacity() - self.bytes.len() < needed {
            self.bytes.reserve_exact(needed.max(self.bytes.len() / 8));
        }
        self.packing.pack(rows, width, &mut self.bytes)?;
        self.rows += added;
        Ok(())
    }

    fn copy_row(&mut self, width: usize, from: usize, to: usize) {
        let size = self.row_bytes(width);
        self.bytes
            .copy_within(from * size..(from + 1) * size, to * size);
    }

    fn swap_remove(&mut self, width: usize, row: usize) {
        let last = self.rows - 1;
        self.copy_row(width, last, row);
        self.bytes.truncate(last * self.row_bytes(width));
        self.rows = last;
    }

    /// Bytes of one row; only where every row is by itself.
    fn row_bytes(&self, width: usize) -> usize {
        self.packing.bytes(width)
    }
}

impl PackedRows {
    /// No rows yet; `None` for elements that are not packed.
    pub(super) fn new(elements: Elements, side: Side, width: usize) -> Option<Self> {
        let stretches = elements.stretches(side, width);
        if stretches.is_empty() {
            return None;
        }
        let stretches = stretches.into_iter().map(Stretch::new).collect();
        Some(Self {
            elements,
            stretches,
            width,
            rotation: elements.rotation(side, width),
        })
    }

    /// Rows that are held.
    pub(super) fn len(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.rows).sum()
    }

    /// D.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Size of the Hadamard matrix that rows are rotated by, if they are.
    pub(in crate::model) fn rotation(&self) -> Option<usize> {
        self.rotation
    }

    fn rotated(&self, mut rows: Vec<f32>) -> Vec<f32> {
        if let Some(size) = self.rotation {
            rotate(&mut rows, size);
        }
        rows
    }

    /// Adds rows `(n, D)`.
    ///
    /// Errors: those of [`Packing::pack`].
    pub(super) fn append(&mut self, rows: Vec<f32>) -> Result<()> {
        let rows = self.rotated(rows);
        self.append_rotated(&rows)
    }

    /// Fills it with the rows that a cut keeps: all but the newest are coded from the numbers themselves.
    ///
    /// Errors: as [`PackedRows::append`].
    pub(super) fn fill(&mut self, rows: Vec<f32>) -> Result<()> {
        let rows = self.rotated(rows);
        let width = self.width;
        let coded = match self.elements {
            Elements::Grouped(grouped) => grouped.coded(rows.len() / width.max(1)),
            _ => 0,
        };
        let (oldest, newest) = rows.split_at(coded * width);
        if let [first, .., last] = &mut self.stretches[..] {
            first.push(oldest, width)?;
            return last.push(newest, width);
        }
        self.append_rotated(newest)
    }

    fn append_rotated(&mut self, rows: &[f32]) -> Result<()> {
        let width = self.width;
        self.stretches
            .last_mut()
            .map_or(Ok(()), |last| last.push(rows, width))
    }

    /// Codes what is no longer among the newest rows.
    ///
    /// Errors: as [`PackedRows::append`].
    pub(super) fn settle(&mut self) -> Result<()> {
        let (
            Elements::Grouped(Grouped {
                group, residual, ..
            }),
            [coded, newest],
        ) = (self.elements, &mut self.stretches[..])
        else {
            return Ok(());
        };
        if newest.rows < residual + group {
            return Ok(());
        }
        let old = (newest.rows - residual) / group * group;
        let mut rows = vec![0.0; old * self.width];
        Packing::Halves.unpack(&newest.bytes, self.width, 0..old, &mut rows);
        coded.push(&rows, self.width)?;
        newest.bytes.drain(..old * newest.row_bytes(self.width));
        newest.rows -= old;
        Ok(())
    }

    /// Rows of `rows` as they are held, rotated where they are.
    ///
    /// Shapes: `to` `(rows, D)`.
    #[inline(always)]
    pub(in crate::model) fn widen_in<L: Lanes>(&self, rows: Range<usize>, to: &mut [f32]) {
        let mut to = to;
        for (stretch, within) in self.parts(rows) {
            let (own, later) = to.split_at_mut(within.len() * self.width);
            (stretch.packing).unpack_in::<L>(&stretch.bytes, self.width, within, own);
            to = later;
        }
    }

    /// The stretches that hold some of `rows`, and which of their own rows these are.
    #[inline(always)]
    fn parts(&self, rows: Range<usize>) -> impl Iterator<Item = (&Stretch, Range<usize>)> {
        let mut first = 0;
        self.stretches.iter().filter_map(move |stretch| {
            let start = rows.start.saturating_sub(first).min(stretch.rows);
            let end = rows.end.saturating_sub(first).min(stretch.rows);
            first += stretch.rows;
            (start < end).then_some((stretch, start..end))
        })
    }

    /// Rows of `rows` in the model's own terms, `(rows, D)`.
    pub(super) fn numbers(&self, rows: Range<usize>) -> Vec<f32> {
        let mut numbers = vec![0.0; rows.len() * self.width];
        let mut to = &mut numbers[..];
        for (stretch, within) in self.parts(rows) {
            let (own, later) = to.split_at_mut(within.len() * self.width);
            (stretch.packing).unpack(&stretch.bytes, self.width, within, own);
            to = later;
        }
        self.rotated(numbers)
    }

    /// The listed rows, ascending, in the model's own terms.
    pub(super) fn gathered(&self, slots: &[u32]) -> Vec<f32> {
        let runs = slots.chunk_by(|a, b| a + 1 == *b);
        let rows = runs.flat_map(|run| {
            let first = run[0] as usize;
            self.numbers(first..first + run.len())
        });
        rows.collect()
    }

    /// Takes the listed rows of another one of the same elements without coding them again, where that is possible.
    pub(super) fn copied(&mut self, from: &Self, slots: &[u32]) -> bool {
        if self.elements != from.elements {
            return false;
        }
        if slots.len() == from.len() {
            self.clone_from(from);
            self.stretches
                .iter_mut()
                .for_each(|stretch| stretch.bytes.shrink_to_fit());
            return true;
        }
        if !self.elements.is_alone() {
            return false;
        }
        let (mut first, mut slots) = (0, slots);
        for (to, from) in self.stretches.iter_mut().zip(&from.stretches) {
            let own = slots.partition_point(|&slot| (slot as usize) < first + from.rows);
            let size = from.row_bytes(self.width);
            to.bytes.reserve_exact(own * size);
            for &slot in &slots[..own] {
                let start = (slot as usize - first) * size;
                to.bytes.extend_from_slice(&from.bytes[start..start + size]);
            }
            to.rows = own;
            (first, slots) = (first + from.rows, &slots[own..]);
        }
        true
    }

    /// Whether rows from `rows` on can be forgotten as if they had never come: none of those that stay was coded
    /// together with them, or because of them.
    pub(super) fn can_forget_from(&self, rows: usize) -> bool {
        match (self.elements, &self.stretches[..]) {
            (Elements::Grouped(grouped), [coded, _]) => {
                coded.rows == 0 || rows >= coded.rows + grouped.residual
            }
            _ => true,
        }
    }

    /// Drops the rows from `rows` on.
    pub(super) fn forget_from(&mut self, rows: usize) {
        let mut first = 0;
        for stretch in &mut self.stretches {
            let kept = rows.saturating_sub(first).min(stretch.rows);
            first += stretch.rows;
            let groups = kept / stretch.packing.rows();
            stretch
                .bytes
                .truncate(groups * stretch.packing.bytes(self.width));
            stretch.rows = groups * stretch.packing.rows();
        }
    }

    /// Copies row `from` over row `to` of one stretch; every row is by itself.
    pub(super) fn move_row(&mut self, from: usize, to: usize) {
        if let [only] = &mut self.stretches[..] {
            only.copy_row(self.width, from, to);
        }
    }

    /// Rows at the low level.
    pub(super) fn low_rows(&self) -> usize {
        match (self.elements, &self.stretches[..]) {
            (Elements::Levels(_), [low, _]) => low.rows,
            _ => 0,
        }
    }

    /// Fills it with rows at either level.
    ///
    /// Errors: as [`PackedRows::append`].
    pub(super) fn fill_levels(&mut self, low: &[f32], high: &[f32]) -> Result<()> {
        let width = self.width;
        if let [first, second] = &mut self.stretches[..] {
            first.push(low, width)?;
            second.push(high, width)?;
        }
        Ok(())
    }

    /// Lets a row go; the last one of its level takes its place.
    pub(super) fn swap_remove(&mut self, row: usize) {
        let (low, width) = (self.low_rows(), self.width);
        if let [first, second] = &mut self.stretches[..] {
            if row < low {
                first.swap_remove(width, row);
            } else {
                second.swap_remove(width, row - low);
            }
        }
    }

    /// Codes a row of the high level at the low one, behind what is there; the last high row takes its place.
    ///
    /// Errors: as [`PackedRows::append`].
    pub(super) fn demote(&mut self, row: usize) -> Result<()> {
        let numbers = self.numbers(row..row + 1);
        self.swap_remove(row);
        let width = self.width;
        let low = self.stretches.first_mut();
        low.map_or(Ok(()), |low| low.push(&numbers, width))
    }

    /// Bytes that the last `rows` rows take, whole groups where rows share scales.
    pub(super) fn bytes_of_last(&self, rows: usize) -> usize {
        let mut left = rows;
        let stretches = self.stretches.iter().rev().map(|stretch| {
            let own = left.min(stretch.rows);
            left -= own;
            own.div_ceil(stretch.packing.rows()) * stretch.packing.bytes(self.width)
        });
        stretches.sum()
    }

    /// Bytes of its buffers, room included.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.stretches
            .iter()
            .map(|stretch| stretch.bytes.capacity())
            .sum()
    }
}
