//! The KV cache: every KV head holds its own keys, values and positions.

use candle_core::{DType, Device, Tensor};

use super::config::ModelConfig;
use super::memory;
use crate::error::{Error, Result};

/// Keys and values of one KV head of one layer.
///
/// Shapes: buffers `(capacity, D)`, of which the first [`HeadCache::len`] rows are held tokens.
/// Keys are stored after RoPE, so that a key keeps its true position whatever leaves around it.
#[derive(Debug)]
pub struct HeadCache {
    keys: Tensor,
    values: Tensor,
    positions: Vec<u32>,
}

impl HeadCache {
    fn new(capacity: usize, head_dim: usize, dtype: DType, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((capacity.max(1), head_dim), dtype, device);
        Ok(Self {
            keys: zeros()?,
            values: zeros()?,
            positions: Vec::new(),
        })
    }

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

    fn reserve(&mut self, tokens: usize) -> Result<()> {
        let (capacity, head_dim) = self.keys.dims2()?;
        if tokens <= capacity {
            return Ok(());
        }
        let capacity = tokens.max(capacity + capacity / 2);
        let larger = Self::new(capacity, head_dim, self.keys.dtype(), self.keys.device())?;
        if !self.is_empty() {
            larger.keys.slice_set(&self.keys()?, 0, 0)?;
            larger.values.slice_set(&self.values()?, 0, 0)?;
        }
        self.keys = larger.keys;
        self.values = larger.values;
        Ok(())
    }

    fn append(&mut self, keys: &Tensor, values: &Tensor, first_position: usize) -> Result<()> {
        let added = keys.dim(0)?;
        let held = self.len();
        self.reserve(held + added)?;
        self.keys.slice_set(keys, 0, held)?;
        self.values.slice_set(values, 0, held)?;
        self.positions
            .extend((first_position..first_position + added).map(|p| p as u32));
        Ok(())
    }

    /// The listed slots, ascending, in buffers of their own with room for `room` more tokens.
    fn cut(&self, slots: &[u32], room: usize) -> Result<Self> {
        let ascending = slots.windows(2).all(|w| w[0] < w[1]);
        if !ascending || slots.last().is_some_and(|&s| s as usize >= self.len()) {
            let bound = format!("the slots to keep must ascend and lie below {}", self.len());
            return Err(Error::invalid("list of slots", slots.len(), bound));
        }
        let (_, head_dim) = self.keys.dims2()?;
        let (dtype, device) = (self.keys.dtype(), self.keys.device());
        let mut smaller = Self::new(slots.len() + room, head_dim, dtype, device)?;
        if !slots.is_empty() {
            let index = Tensor::new(slots, device)?;
            let kept = |x: Tensor| x.index_select(&index, 0);
            smaller.keys.slice_set(&kept(self.keys()?)?, 0, 0)?;
            smaller.values.slice_set(&kept(self.values()?)?, 0, 0)?;
        }
        smaller.positions = slots.iter().map(|&s| self.positions[s as usize]).collect();
        Ok(smaller)
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

/// The cache of one layer, one entry per KV head.
#[derive(Debug)]
pub struct LayerCache {
    /// One per KV head.
    pub heads: Vec<HeadCache>,
}

impl LayerCache {
    fn cut(&self, kept: &[Vec<u32>], room: usize) -> Result<Self> {
        let heads = self.heads.iter().zip(kept);
        Ok(Self {
            heads: heads
                .map(|(head, slots)| head.cut(slots, room))
                .collect::<Result<_>>()?,
        })
    }
}

/// The cache of a whole model.
///
/// Paper: none: house definition. Differs: lengths belong to heads, positions to tokens; the next
/// position is never derived from a length.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    next_position: usize,
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
        let head = || HeadCache::new(capacity, config.head_dim, dtype, device);
        let layer = || {
            let heads = (0..config.num_key_value_heads)
                .map(|_| head())
                .collect::<Result<_>>()?;
            Ok::<_, Error>(LayerCache { heads })
        };
        let layers = (0..config.num_hidden_layers)
            .map(|_| layer())
            .collect::<Result<_>>()?;
        Ok(Self {
            layers,
            next_position: 0,
        })
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
        for (layer, kept) in self.layers.iter_mut().zip(kept) {
            *layer = layer.cut(kept, room)?;
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
        Ok(Self {
            layers: layers
                .map(|(layer, kept)| layer.cut(kept, room))
                .collect::<Result<_>>()?,
            next_position: self.next_position,
        })
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
        for (h, head) in self.layers[layer].heads.iter_mut().enumerate() {
            head.append(&keys.get(h)?, &values.get(h)?, self.next_position)?;
        }
        Ok(())
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
        let heads = self.layers.iter().flat_map(|l| &l.heads);
        heads.map(|head| head.bytes(head.capacity())).sum()
    }
}
