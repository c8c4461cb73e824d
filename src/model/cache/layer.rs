//! The cache of one layer: the heads' rooms in two buffers.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::super::ragged_heads::{RaggedHead, RaggedHeads};
use super::super::step_table::StepTable;
use super::head::HeadCache;
use super::representation::Representation;
use super::side::Side;
use crate::error::{Error, Result};

/// The cache of one layer: for what is not packed one buffer of keys and one of values, in which every KV head has its
/// own room.
///
/// Differs: heads lie one after another whatever their lengths, so that one kernel can serve all of them
/// without padding. What is packed lies with its head.
#[derive(Debug)]
pub struct LayerCache {
    /// One per KV head.
    pub heads: Vec<HeadCache>,
    /// Where all heads hold elements of one tensor type.
    buffers: Option<[Tensor; 2]>,
    head_dim: usize,
    device: Device,
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

/// The tensor type of one side of all heads; `None` where some are packed or they differ.
fn common_type(representations: &[Representation], side: Side) -> Option<DType> {
    let mut types = representations.iter().map(|r| r.of_side(side).dtype());
    let first = types.next().flatten()?;
    types.all(|dtype| dtype == Some(first)).then_some(first)
}

impl LayerCache {
    /// Empty rooms of so many tokens, one per KV head.
    ///
    /// Errors: [`Error::Candle`] when the device has no room; as [`Representation::check_width`].
    pub(super) fn new(
        capacities: &[usize],
        head_dim: usize,
        window: Option<usize>,
        representations: &[Representation],
        device: &Device,
    ) -> Result<Self> {
        // Tensors without elements are refused by some devices.
        let rows = |capacity: &usize| (*capacity).max(1);
        let total: usize = capacities.iter().map(rows).sum();
        let room = |rows: usize, dtype: Option<DType>| {
            let zeros = dtype.map(|dtype| Tensor::zeros((rows, head_dim), dtype, device));
            zeros.transpose()
        };
        let sides = [Side::Keys, Side::Values];
        let [keys, values] = sides.map(|side| room(total, common_type(representations, side)));
        let shared = [keys?, values?];
        let mut start = 0;
        let mut heads = Vec::with_capacity(capacities.len());
        for (rows, &held_as) in capacities.iter().map(rows).zip(representations) {
            held_as.check_width(head_dim)?;
            let own = |side: usize| -> candle_core::Result<Option<Tensor>> {
                match &shared[side] {
                    Some(buffer) => buffer.narrow(0, start, rows).map(Some),
                    None => room(rows, held_as.of_side(sides[side]).dtype()),
                }
            };
            heads.push(HeadCache::new(own(0)?, own(1)?, head_dim, held_as)?);
            start += rows;
        }
        let [keys, values] = shared;
        Ok(Self {
            heads,
            buffers: keys.zip(values).map(|(keys, values)| [keys, values]),
            head_dim,
            device: device.clone(),
            window,
            step_table: StepTable::default(),
        })
    }

    /// A layer that holds tokens from position 0 on, `(H_kv, T, D)` of float32 on the CPU.
    ///
    /// Errors: [`Error::Candle`] for shapes that do not fit one another.
    pub(in crate::model) fn of_rows(
        keys: &Tensor,
        values: &Tensor,
        window: Option<usize>,
    ) -> Result<Self> {
        let (heads, tokens, head_dim) = keys.dims3()?;
        let held_as = vec![Representation::FLOAT32; heads];
        let rooms = vec![tokens; heads];
        let mut layer = Self::new(&rooms, head_dim, window, &held_as, &Device::Cpu)?;
        layer.append(keys, values, 0)?;
        Ok(layer)
    }

    /// Empty rooms of one size in so many KV heads of a width.
    ///
    /// Errors: as [`LayerCache::new`].
    pub(super) fn alike(
        [heads, head_dim]: [usize; 2],
        window: Option<usize>,
        capacity: usize,
        representation: Representation,
        device: &Device,
    ) -> Result<Self> {
        let (capacities, held_as) = (vec![capacity; heads], vec![representation; heads]);
        Self::new(&capacities, head_dim, window, &held_as, device)
    }

    /// An empty layer of the same geometry with room for so many tokens in each head.
    pub(super) fn empty(
        &self,
        capacities: &[usize],
        representations: &[Representation],
    ) -> Result<Self> {
        let (d, device) = (self.head_dim, &self.device);
        Self::new(capacities, d, self.window, representations, device)
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
        let [keys, values] = self.buffers()?;
        let (heads, appended) = self.step_table.of(heads.collect(), room, &self.device)?;
        Ok(PackedHeads {
            keys,
            values,
            heads,
            appended,
        })
    }

    /// Keys and values, `(rows, D)`, where all heads lie.
    ///
    /// Errors: [`Error::Unsupported`] where heads hold few bits, which no such kernel reads.
    pub fn buffers(&self) -> Result<[&Tensor; 2]> {
        let buffers = self.buffers.as_ref();
        let buffers = buffers.map(|[keys, values]| [keys, values]);
        buffers.ok_or_else(|| Error::Unsupported {
            what: "a cache of few bits",
            found: format!("{:?}", self.device.location()),
            supported: "--device cpu".into(),
        })
    }

    /// The tensor type of all keys and values; `None` where some are packed or they differ.
    pub fn dtype(&self) -> Option<DType> {
        let [keys, values] = self.buffers.as_ref()?;
        (keys.dtype() == values.dtype()).then_some(keys.dtype())
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

    /// In which elements every KV head holds keys and values.
    pub fn representations(&self) -> Vec<Representation> {
        self.heads.iter().map(HeadCache::representation).collect()
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
        let types = self.representations();
        let rounded = |rows: &Tensor, side: Side| match common_type(&types, side) {
            Some(dtype) => rows.to_dtype(dtype),
            None => Ok(rows.clone()),
        };
        let (keys, values) = (rounded(keys, Side::Keys)?, rounded(values, Side::Values)?);
        for (h, head) in self.heads.iter_mut().enumerate() {
            head.append(&keys.get(h)?, &values.get(h)?, first_position)?;
        }
        Ok(())
    }

    /// Codes tokens that are no longer among the newest, where those are held apart.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.heads.iter_mut().try_for_each(HeadCache::settle)
    }

    /// An empty layer with room for `added` more tokens in every head, if any head lacks it.
    ///
    /// All heads get an eighth more than they had: room that is never used is memory too.
    pub(super) fn grown(&self, added: usize) -> Result<Option<Self>> {
        if self.heads.iter().all(|h| h.len() + added <= h.capacity()) {
            return Ok(None);
        }
        let more = |h: &HeadCache| match h.capacity() {
            usize::MAX => 0,
            capacity => capacity + (capacity / 8).max(LEAST_GROWTH),
        };
        let room = |h: &HeadCache| (h.len() + added).max(more(h));
        let capacities: Vec<usize> = self.heads.iter().map(room).collect();
        self.empty(&capacities, &self.representations()).map(Some)
    }

    /// Bytes of all buffers.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.heads.iter().map(HeadCache::allocated_bytes).sum()
    }

    /// All tokens in the room of `larger`.
    pub(super) fn moved_into(&mut self, mut larger: Self) -> Result<Self> {
        for (to, from) in larger.heads.iter_mut().zip(&mut self.heads) {
            to.move_from(from)?;
        }
        Ok(larger)
    }

    /// The listed slots, ascending, in buffers of their own with room for `room` more tokens per head.
    ///
    /// Shapes: `kept` `[kv_head][slot]`, `held_as` `[kv_head]`. Errors: [`Error::Invalid`] for slots that do not ascend or
    /// are not there, and as [`Representation::check_width`].
    pub fn cut(&self, kept: &[Vec<u32>], room: usize, held_as: &[Representation]) -> Result<Self> {
        let heads = self.heads.len();
        if kept.len() != heads || held_as.len() != heads {
            let bound = format!("one per KV head is needed: {heads}");
            return Err(Error::invalid("lists of slots", kept.len(), bound));
        }
        let pairs = || self.heads.iter().zip(kept);
        pairs().try_for_each(|(head, slots)| head.check_slots(slots))?;
        let capacities: Vec<usize> = kept.iter().map(|slots| slots.len() + room).collect();
        let mut smaller = self.empty(&capacities, held_as)?;
        // Coding takes longer than copying: every head by itself.
        let mut all: Vec<_> = smaller.heads.iter_mut().zip(pairs()).collect();
        all.par_iter_mut()
            .try_for_each(|(to, (from, slots))| to.take(from, slots))?;
        Ok(smaller)
    }

    /// The listed slots for attention alone, which needs numbers and no bits.
    ///
    /// Shapes and errors: as [`LayerCache::cut`].
    pub fn seen(&self, slots: &[Vec<u32>]) -> Result<Self> {
        let held_as = self.representations();
        let widened: Vec<_> = held_as.into_iter().map(Representation::widened).collect();
        self.cut(slots, 0, &widened)
    }

    /// Lets the listed slots of every head go, as [`LayerCache::without`] takes them out of a list.
    ///
    /// Differs: in place; without a window one row is moved for each that leaves, so that the cost does not grow with
    /// what is held.
    /// Shapes: `leaving` `[kv_head][slot]`, ascending.
    /// Errors: [`Error::Invalid`] as for [`LayerCache::cut`], and where tokens are coded together, before anything has
    /// moved.
    pub(super) fn evict(&mut self, leaving: &[Vec<u32>]) -> Result<()> {
        for (head, slots) in self.heads.iter().zip(leaving) {
            head.check_slots(slots)?;
            let held_as = head.representation();
            if !slots.is_empty() && (!held_as.holds_tokens_alone() || held_as.has_levels()) {
                let bound = "its tokens are coded together and none can leave while it lives: hold it in q8_0, q4_0, bf16 or f16";
                return Err(Error::invalid(
                    "type of the cache",
                    head.representation(),
                    bound,
                ));
            }
        }
        let in_order = self.window.is_some();
        let mut heads = self.heads.iter_mut().zip(leaving);
        heads.try_for_each(|(head, slots)| head.evict(slots, in_order))
    }
}

/// Tokens that a head grows by at least.
const LEAST_GROWTH: usize = 32;
