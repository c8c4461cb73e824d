//! The cache of one layer: the heads' rooms in two buffers.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::super::ragged_heads::{RaggedHead, RaggedHeads};
use super::super::step_table::StepTable;
use super::head::HeadCache;
use super::moved_rows::MovedRows;
use super::representation::{Elements, Representation};
use crate::error::{Error, Result};

/// The cache of one layer: one buffer of keys and one of values, in which every KV head has its own room.
///
/// Differs: heads lie one after another whatever their lengths, so that one kernel can serve all of them
/// without padding.
#[derive(Debug)]
pub struct LayerCache {
    /// One per KV head.
    pub heads: Vec<HeadCache>,
    keys: Tensor,
    values: Tensor,
    representation: Representation,
    /// Keys that a query sees; see [`LayerCache::window`].
    window: Option<usize>,
    step_table: StepTable,
}

/// A layer's buffers, `(sum of capacities, D)`, and where its heads lie in them.
pub struct PackedHeads<'a> {
    /// Keys after RoPE.
    pub keys: &'a Tensor,
    /// Values.
    pub values: &'a Tensor,
    /// First row and length of every KV head, as they were when this was made.
    pub heads: Arc<RaggedHeads>,
    /// Tokens that came to each since.
    pub appended: usize,
}

impl LayerCache {
    /// Empty rooms of so many tokens.
    ///
    /// Errors: [`Error::Candle`] when the device has no room.
    pub(super) fn new(
        capacities: &[usize],
        head_dim: usize,
        window: Option<usize>,
        representation: Representation,
        device: &Device,
    ) -> Result<Self> {
        // Tensors without elements are refused by some devices.
        let rows = |capacity: &usize| (*capacity).max(1);
        let total: usize = capacities.iter().map(rows).sum();
        let zeros = |elements: Elements| Tensor::zeros((total, head_dim), elements.dtype(), device);
        let (keys, values) = (zeros(representation.keys)?, zeros(representation.values)?);
        let mut start = 0;
        let mut heads = Vec::with_capacity(capacities.len());
        for rows in capacities.iter().map(rows) {
            let room = |buffer: &Tensor| buffer.narrow(0, start, rows);
            heads.push(HeadCache::new(room(&keys)?, room(&values)?, representation));
            start += rows;
        }
        Ok(Self {
            heads,
            keys,
            values,
            representation,
            window,
            step_table: StepTable::default(),
        })
    }

    /// An empty layer of the same geometry with room for so many tokens in each head.
    fn empty(&self, capacities: &[usize], representation: Representation) -> Result<Self> {
        let (_, head_dim) = self.keys.dims2()?;
        let device = self.keys.device();
        Self::new(capacities, head_dim, self.window, representation, device)
    }

    /// The buffers, for kernels that serve all heads at once.
    ///
    /// Errors: [`Error::Candle`] where the device has no room for the table of heads.
    pub fn packed(&self) -> Result<PackedHeads<'_>> {
        let mut start = 0;
        let heads = self.heads.iter().map(|head| {
            let own = RaggedHead {
                start,
                length: head.len(),
            };
            start += head.capacity();
            own
        });
        let left = self.heads.iter().map(|head| head.capacity() - head.len());
        let room = left.min().unwrap_or(0);
        let device = self.keys.device();
        let (heads, appended) = self.step_table.of(heads.collect(), room, device)?;
        Ok(PackedHeads {
            keys: &self.keys,
            values: &self.values,
            heads,
            appended,
        })
    }

    /// Keys and values, `(rows, D)`, where all heads lie.
    pub fn buffers(&self) -> (&Tensor, &Tensor) {
        (&self.keys, &self.values)
    }

    /// The keys that a query sees, its own and the nearest before it; `None` is all of them.
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    /// Whether a query at `position` does not see some key that is held.
    pub fn hides_from(&self, position: usize) -> bool {
        let passed = |head: &HeadCache, window| head.passed(position + 1, window) > 0;
        (self.window).is_some_and(|window| self.heads.iter().any(|head| passed(head, window)))
    }

    /// The slots of a KV head that the last token before `next_position` saw, and later ones may see.
    pub fn in_sight(&self, head: usize, next_position: usize) -> Range<usize> {
        let head = &self.heads[head];
        let passed = |window| head.passed(next_position, window);
        self.window.map_or(0, passed)..head.len()
    }

    /// Takes the listed slots, ascending, out of a list with an entry for every slot, as [`LayerCache::evict`] does:
    /// the last ones take their places, but where a window needs positions to ascend, later ones move up.
    pub fn without<T>(&self, slots: &[u32], of: &mut Vec<T>) {
        for &slot in slots.iter().rev() {
            if self.window.is_some() {
                of.remove(slot as usize);
            } else {
                of.swap_remove(slot as usize);
            }
        }
    }

    /// In which elements keys and values are held.
    pub fn representation(&self) -> Representation {
        self.representation
    }

    /// What `n` queries from position `first` on see of every head: the last of them sees all of it, each one before
    /// it one key fewer. None where a head lacks the own key of one of them.
    pub fn seen_by(&self, first: usize, n: usize) -> Option<Vec<RaggedHead>> {
        let mut start = 0;
        let heads = self.heads.iter().map(|head| {
            let before = head.positions.partition_point(|&p| (p as usize) < first);
            let end = (head.positions).partition_point(|&p| (p as usize) < first + n);
            let own = RaggedHead { start, length: end };
            start += head.capacity();
            (end - before == n).then_some(own)
        });
        heads.collect()
    }

    /// Adds keys and values `(H_kv, n, D)`, rounded to the cache's types, where every head has room.
    pub(super) fn append(
        &mut self,
        keys: &Tensor,
        values: &Tensor,
        first_position: usize,
    ) -> Result<()> {
        let keys = keys.to_dtype(self.representation.keys.dtype())?;
        let values = values.to_dtype(self.representation.values.dtype())?;
        for (h, head) in self.heads.iter_mut().enumerate() {
            head.append(&keys.get(h)?, &values.get(h)?, first_position)?;
        }
        Ok(())
    }

    /// An empty layer with room for `added` more tokens in every head, if any head lacks it.
    ///
    /// All heads get an eighth more than they had: room that is never used is memory too.
    pub(super) fn grown(&self, added: usize) -> Result<Option<Self>> {
        if self.heads.iter().all(|h| h.len() + added <= h.capacity()) {
            return Ok(None);
        }
        let more = |h: &HeadCache| h.capacity() + (h.capacity() / 8).max(LEAST_GROWTH);
        let room = |h: &HeadCache| (h.len() + added).max(more(h));
        let capacities: Vec<usize> = self.heads.iter().map(room).collect();
        self.empty(&capacities, self.representation).map(Some)
    }

    /// Bytes of both buffers.
    pub(super) fn allocated_bytes(&self) -> usize {
        let heads = self.heads.iter();
        heads.map(|head| head.bytes(head.capacity())).sum()
    }

    /// All tokens in the room of `larger`.
    pub(super) fn moved_into(&mut self, mut larger: Self) -> Result<Self> {
        for (to, from) in larger.heads.iter_mut().zip(&mut self.heads) {
            if !from.is_empty() {
                to.keys.slice_set(&from.keys()?, 0, 0)?;
                to.values.slice_set(&from.values()?, 0, 0)?;
            }
            to.positions = std::mem::take(&mut from.positions);
        }
        Ok(larger)
    }

    /// The listed slots, ascending, in buffers of their own with room for `room` more tokens per head.
    ///
    /// Errors: [`Error::Invalid`] for slots that do not ascend or are not there.
    pub fn cut(
        &self,
        kept: &[Vec<u32>],
        room: usize,
        representation: Representation,
    ) -> Result<Self> {
        if kept.len() != self.heads.len() {
            let bound = format!("one per KV head is needed: {}", self.heads.len());
            return Err(Error::invalid("lists of slots", kept.len(), bound));
        }
        let pairs = || self.heads.iter().zip(kept);
        pairs().try_for_each(|(head, slots)| head.check_slots(slots))?;
        let capacities: Vec<usize> = kept.iter().map(|slots| slots.len() + room).collect();
        let mut smaller = self.empty(&capacities, representation)?;
        for (to, (from, slots)) in smaller.heads.iter_mut().zip(pairs()) {
            to.take(from, slots)?;
        }
        Ok(smaller)
    }

    /// Lets the listed slots of every head go, as [`LayerCache::without`] takes them out of a list.
    ///
    /// Differs: in place; without a window one row is moved for each that leaves, so that the cost does not grow with
    /// what is held.
    /// Shapes: `leaving` `[kv_head][slot]`, ascending.
    /// Errors: [`Error::Invalid`] as for [`LayerCache::cut`], before anything has moved.
    pub(super) fn evict(&mut self, leaving: &[Vec<u32>]) -> Result<()> {
        let pairs = || self.heads.iter().zip(leaving);
        pairs().try_for_each(|(head, slots)| head.check_slots(slots))?;
        let (mut start, mut moves) = (0, Vec::new());
        let is_ordered = self.window.is_some();
        for (head, slots) in self.heads.iter_mut().zip(leaving) {
            for &slot in slots.iter().rev() {
                let (slot, last) = (slot as usize, head.len() - 1);
                if is_ordered {
                    moves.extend((slot..last).map(|to| (start + to + 1, start + to)));
                    head.positions.remove(slot);
                } else {
                    if slot < last {
                        moves.push((start + last, start + slot));
                    }
                    head.positions.swap_remove(slot);
                }
            }
            start += head.capacity();
        }
        let moves = MovedRows(moves);
        self.keys.inplace_op1(&moves)?;
        Ok(self.values.inplace_op1(&moves)?)
    }
}

/// Tokens that a head grows by at least.
const LEAST_GROWTH: usize = 32;
