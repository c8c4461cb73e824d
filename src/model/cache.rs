//! The KV cache: every KV head holds its own keys, values and positions.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::config::ModelConfig;
use super::ragged_heads::{RaggedHead, RaggedHeads};
use super::step_table::StepTable;
use crate::compute::memory;
use crate::error::{Error, Result};

/// Keys and values of one KV head of one layer.
///
/// Shapes: room `(capacity, D)` in the layer's buffers, of which the first [`HeadCache::len`] rows are held
/// tokens. Keys are stored after RoPE, so that a key keeps its true position whatever leaves around it.
#[derive(Debug)]
pub struct HeadCache {
    keys: Tensor,
    values: Tensor,
    positions: Vec<u32>,
}

impl HeadCache {
    /// Tokens held.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Keys after RoPE, `(S, D)`, a view without a copy.
    pub fn keys(&self) -> Result<Tensor> {
        Ok(self.keys.narrow(0, 0, self.len())?)
    }

    /// Values, `(S, D)`, a view without a copy.
    pub fn values(&self) -> Result<Tensor> {
        Ok(self.values.narrow(0, 0, self.len())?)
    }

    /// Position in the text of each held token, ascending.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Writes tokens after those that are held; there must be room.
    fn append(&mut self, keys: &Tensor, values: &Tensor, first_position: usize) -> Result<()> {
        let (added, held) = (keys.dim(0)?, self.len());
        self.keys.slice_set(keys, 0, held)?;
        self.values.slice_set(values, 0, held)?;
        self.positions
            .extend((first_position..first_position + added).map(|p| p as u32));
        Ok(())
    }

    /// Fills empty room with the listed slots of another head, ascending.
    fn take(&mut self, source: &Self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let index = Tensor::new(slots, self.keys.device())?;
        let kept = |x: Tensor| x.index_select(&index, 0);
        self.keys.slice_set(&kept(source.keys()?)?, 0, 0)?;
        self.values.slice_set(&kept(source.values()?)?, 0, 0)?;
        self.positions = slots
            .iter()
            .map(|&slot| source.positions[slot as usize])
            .collect();
        Ok(())
    }

    fn check_slots(&self, slots: &[u32]) -> Result<()> {
        let ascending = slots.windows(2).all(|w| w[0] < w[1]);
        if ascending && slots.last().is_none_or(|&s| (s as usize) < self.len()) {
            return Ok(());
        }
        let bound = format!("the slots to keep must ascend and lie below {}", self.len());
        Err(Error::invalid("list of slots", slots.len(), bound))
    }

    /// Drops the tokens from `position` on; their room stays.
    fn forget_from(&mut self, position: usize) {
        let held = self.positions.partition_point(|&p| (p as usize) < position);
        self.positions.truncate(held);
    }

    fn bytes(&self, tokens: usize) -> usize {
        2 * tokens * self.keys.elem_count() / self.capacity() * self.keys.dtype().size_in_bytes()
    }

    fn capacity(&self) -> usize {
        self.keys.dims().first().copied().unwrap_or(1)
    }
}

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
    fn new(capacities: &[usize], head_dim: usize, dtype: DType, device: &Device) -> Result<Self> {
        // Tensors without elements are refused by some devices.
        let rows = |capacity: &usize| (*capacity).max(1);
        let total: usize = capacities.iter().map(rows).sum();
        let zeros = || Tensor::zeros((total, head_dim), dtype, device);
        let (keys, values) = (zeros()?, zeros()?);
        let mut start = 0;
        let mut heads = Vec::with_capacity(capacities.len());
        for rows in capacities.iter().map(rows) {
            heads.push(HeadCache {
                keys: keys.narrow(0, start, rows)?,
                values: values.narrow(0, start, rows)?,
                positions: Vec::new(),
            });
            start += rows;
        }
        Ok(Self {
            heads,
            keys,
            values,
            step_table: StepTable::default(),
        })
    }

    /// An empty layer like this one with room for so many tokens in each head.
    fn empty(&self, capacities: &[usize]) -> Result<Self> {
        let (_, head_dim) = self.keys.dims2()?;
        Self::new(capacities, head_dim, self.keys.dtype(), self.keys.device())
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

    /// Element type of keys and values.
    pub fn dtype(&self) -> DType {
        self.keys.dtype()
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

    /// Adds keys and values `(H_kv, n, D)`, rounded to the cache's type, where every head has room.
    fn append(&mut self, keys: &Tensor, values: &Tensor, first_position: usize) -> Result<()> {
        let dtype = self.keys.dtype();
        let (keys, values) = (keys.to_dtype(dtype)?, values.to_dtype(dtype)?);
        for (h, head) in self.heads.iter_mut().enumerate() {
            head.append(&keys.get(h)?, &values.get(h)?, first_position)?;
        }
        Ok(())
    }

    /// An empty layer with room for `added` more tokens in every head, if any head lacks it.
    ///
    /// All heads get an eighth more than they had: room that is never used is memory too.
    fn grown(&self, added: usize) -> Result<Option<Self>> {
        if self.heads.iter().all(|h| h.len() + added <= h.capacity()) {
            return Ok(None);
        }
        let more = |h: &HeadCache| h.capacity() + (h.capacity() / 8).max(LEAST_GROWTH);
        let room = |h: &HeadCache| (h.len() + added).max(more(h));
        Ok(Some(
            self.empty(&self.heads.iter().map(room).collect::<Vec<_>>())?,
        ))
    }

    fn allocated_bytes(&self) -> usize {
        let heads = self.heads.iter();
        heads.map(|head| head.bytes(head.capacity())).sum()
    }

    /// All tokens in the room of `larger`.
    fn moved_into(&mut self, mut larger: Self) -> Result<Self> {
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
    fn cut(&self, kept: &[Vec<u32>], room: usize) -> Result<Self> {
        let pairs = || self.heads.iter().zip(kept);
        pairs().try_for_each(|(head, slots)| head.check_slots(slots))?;
        let capacities: Vec<usize> = kept.iter().map(|slots| slots.len() + room).collect();
        let mut smaller = self.empty(&capacities)?;
        for (to, (from, slots)) in smaller.heads.iter_mut().zip(pairs()) {
            to.take(from, slots)?;
        }
        Ok(smaller)
    }
}

/// Tokens that a head grows by at least.
const LEAST_GROWTH: usize = 32;

/// The cache of a whole model.
///
/// Paper: none: house definition. Differs: lengths belong to heads, positions to tokens; the next
/// position is never derived from a length.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    next_position: usize,
    most_allocated: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens in every head.
    ///
    /// Errors: [`Error::Candle`] when the device has no room.
    pub fn new(
        config: &ModelConfig,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let capacities = vec![capacity; config.num_key_value_heads];
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerCache::new(&capacities, config.head_dim, dtype, device))
            .collect::<Result<_>>()?;
        Ok(Self::of_layers(layers, 0))
    }

    fn of_layers(layers: Vec<LayerCache>, next_position: usize) -> Self {
        let mut cache = Self {
            layers,
            next_position,
            most_allocated: 0,
        };
        cache.most_allocated = cache.allocated_bytes();
        cache
    }

    /// The cache of layer `layer`.
    pub fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// The position in the text that the next token will have.
    pub fn next_position(&self) -> usize {
        self.next_position
    }

    /// Keeps the listed slots of every KV head and frees the memory of the rest, layer by layer.
    ///
    /// Positions stay what they were; so does the next position.
    /// Shapes: `kept` `[layer][kv_head][slot]`, ascending. `room` is for tokens to come.
    /// Errors: [`Error::Invalid`] for other numbers of layers or heads, or slots that are not there;
    /// layers before the one at fault are then cut already.
    pub fn retain(&mut self, kept: &[Vec<Vec<u32>>], room: usize) -> Result<()> {
        self.check_lists(kept)?;
        for (layer, kept) in kept.iter().enumerate() {
            let smaller = self.layers[layer].cut(kept, room)?;
            self.replace(layer, smaller);
        }
        memory::return_freed();
        Ok(())
    }

    /// A cache of the listed slots only, in memory of its own; this one stays whole.
    ///
    /// Shapes and errors: as [`KvCache::retain`].
    pub fn cut(&self, kept: &[Vec<Vec<u32>>], room: usize) -> Result<Self> {
        self.check_lists(kept)?;
        let layers = self.layers.iter().zip(kept);
        let layers = layers.map(|(layer, kept)| layer.cut(kept, room));
        Ok(Self::of_layers(
            layers.collect::<Result<_>>()?,
            self.next_position,
        ))
    }

    /// A whole copy in memory of its own, with room for `room` more tokens.
    ///
    /// Differs: there is no `Clone`, since tensors share their memory and caches must not.
    /// Errors: [`Error::Candle`] when the device has no room.
    pub fn copy(&self, room: usize) -> Result<Self> {
        let all = |n: usize| (0..n as u32).collect();
        let lengths = self.lengths();
        let kept: Vec<Vec<Vec<u32>>> = lengths
            .iter()
            .map(|layer| layer.iter().map(|&n| all(n)).collect())
            .collect();
        self.cut(&kept, room)
    }

    /// Forgets every token from `position` on, so that a text can be continued in another way.
    ///
    /// Room that the forgotten tokens took stays; the next position becomes `position`.
    /// Errors: [`Error::Invalid`] for a position that lies ahead.
    pub fn rewind(&mut self, position: usize) -> Result<()> {
        if position > self.next_position {
            let bound = format!("the cache has only come to {}", self.next_position);
            return Err(Error::invalid("position to go back to", position, bound));
        }
        for head in self.layers.iter_mut().flat_map(|l| &mut l.heads) {
            head.forget_from(position);
        }
        self.next_position = position;
        Ok(())
    }

    fn check_lists(&self, kept: &[Vec<Vec<u32>>]) -> Result<()> {
        let heads = self.layers.first().map_or(0, |l| l.heads.len());
        if kept.len() == self.layers.len() && kept.iter().all(|layer| layer.len() == heads) {
            return Ok(());
        }
        let bound = format!(
            "one per KV head is needed: {} layers of {heads}",
            self.layers.len()
        );
        Err(Error::invalid("lists of slots", kept.len(), bound))
    }

    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Tokens held, `[layer][kv_head]`.
    pub fn lengths(&self) -> Vec<Vec<usize>> {
        let layer = |l: &LayerCache| l.heads.iter().map(HeadCache::len).collect();
        self.layers.iter().map(layer).collect()
    }

    /// Adds the keys and values `(H_kv, n, D)` of the next n tokens to one layer.
    pub(super) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        if let Some(larger) = self.layers[layer].grown(keys.dim(1)?)? {
            let larger = self.layers[layer].moved_into(larger)?;
            self.replace(layer, larger);
        }
        self.layers[layer].append(keys, values, self.next_position)
    }

    /// Puts a layer in the place of another one, which is there until then.
    fn replace(&mut self, layer: usize, other: LayerCache) {
        let both = self.allocated_bytes() + other.allocated_bytes();
        self.most_allocated = self.most_allocated.max(both);
        self.layers[layer] = other;
    }

    /// Moves on by `tokens` positions once every layer has them.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.next_position += tokens;
    }

    /// Bytes of the keys and values of all held tokens.
    ///
    /// Units: bytes; room kept for tokens to come is not counted, see [`KvCache::allocated_bytes`].
    pub fn bytes(&self) -> usize {
        let heads = self.layers.iter().flat_map(|l| &l.heads);
        heads.map(|head| head.bytes(head.len())).sum()
    }

    /// Bytes of the buffers, room for tokens to come included.
    pub fn allocated_bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::allocated_bytes).sum()
    }

    /// The most bytes that its buffers ever took, a layer's old and new ones together while it was cut or grew.
    pub fn most_allocated_bytes(&self) -> usize {
        self.most_allocated
    }
}
