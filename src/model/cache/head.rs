//! Keys, values and positions of one KV head.

use candle_core::Tensor;

use super::representation::Representation;
use crate::error::{Error, Result};

/// Keys and values of one KV head of one layer.
///
/// Shapes: room `(capacity, D)` in the layer's buffers, of which the first [`HeadCache::len`] rows are held
/// tokens. Keys are stored after RoPE, so that a key keeps its true position whatever leaves around it.
#[derive(Debug)]
pub struct HeadCache {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
    pub(super) positions: Vec<u32>,
    representation: Representation,
}

impl HeadCache {
    /// An empty head whose room is all of two tensors, `(capacity, D)`.
    pub(super) fn new(keys: Tensor, values: Tensor, representation: Representation) -> Self {
        Self {
            keys,
            values,
            positions: Vec::new(),
            representation,
        }
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

    /// Position in the text of each held token.
    ///
    /// Differs: ascending until a token leaves while the cache lives; the newest then takes its slot. Tokens that were
    /// appended together ascend in any case and stand behind all earlier ones.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// How many tokens lie before the window of so many keys that ends before `end`; positions ascend.
    pub(super) fn passed(&self, end: usize, window: usize) -> usize {
        (self.positions).partition_point(|&p| p as usize + window < end)
    }

    /// Writes tokens after those that are held; there must be room.
    pub(super) fn append(
        &mut self,
        keys: &Tensor,
        values: &Tensor,
        first_position: usize,
    ) -> Result<()> {
        let (added, held) = (keys.dim(0)?, self.len());
        self.keys.slice_set(keys, 0, held)?;
        self.values.slice_set(values, 0, held)?;
        self.positions
            .extend((first_position..first_position + added).map(|p| p as u32));
        Ok(())
    }

    /// Fills empty room with the listed slots of another head, ascending, rounded to this one's types.
    pub(super) fn take(&mut self, source: &Self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let index = Tensor::new(slots, self.keys.device())?;
        let kept = |x: Tensor, room: &Tensor| x.index_select(&index, 0)?.to_dtype(room.dtype());
        self.keys
            .slice_set(&kept(source.keys()?, &self.keys)?, 0, 0)?;
        self.values
            .slice_set(&kept(source.values()?, &self.values)?, 0, 0)?;
        self.positions = slots
            .iter()
            .map(|&slot| source.positions[slot as usize])
            .collect();
        Ok(())
    }

    /// Refuses slots that do not ascend or are not held.
    pub(super) fn check_slots(&self, slots: &[u32]) -> Result<()> {
        let ascending = slots.windows(2).all(|w| w[0] < w[1]);
        if ascending && slots.last().is_none_or(|&s| (s as usize) < self.len()) {
            return Ok(());
        }
        let bound = format!("the slots to keep must ascend and lie below {}", self.len());
        Err(Error::invalid("list of slots", slots.len(), bound))
    }

    /// Drops the tokens from `position` on; their room stays.
    pub(super) fn forget_from(&mut self, position: usize) {
        let held = self.positions.partition_point(|&p| (p as usize) < position);
        self.positions.truncate(held);
    }

    /// Bytes of `tokens` keys and values.
    pub(super) fn bytes(&self, tokens: usize) -> usize {
        let head_dim = self.keys.dims().last().copied().unwrap_or(0);
        self.representation.bytes(tokens, head_dim)
    }

    /// Tokens that it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.keys.dims().first().copied().unwrap_or(1)
    }
}
