//! Keys, values and positions of one KV head.

use candle_core::Tensor;

use super::packed::PackedRows;
use super::representation::Representation;
use super::rows::Rows;
use super::side::Side;
use crate::error::{Error, Result};

/// Keys and values of one KV head of one layer.
///
/// Shapes: keys and values `(S, D)`, in rooms of a layer's buffers or packed. Keys are stored after RoPE, so that a key
/// keeps its true position whatever leaves around it.
#[derive(Debug)]
pub struct HeadCache {
    pub(super) keys: Rows,
    pub(super) values: Rows,
    pub(super) positions: Vec<u32>,
    representation: Representation,
    head_dim: usize,
}

impl HeadCache {
    /// An empty head whose room is all of two tensors, `(capacity, D)`; what is packed needs none.
    pub(super) fn new(
        keys: Option<Tensor>,
        values: Option<Tensor>,
        head_dim: usize,
        representation: Representation,
    ) -> Result<Self> {
        let rows = |room: Option<Tensor>, side: Side| {
            let packed = PackedRows::new(representation.of_side(side), side, head_dim);
            let rows = packed.map(Rows::Packed).or(room.map(Rows::Dense));
            rows.ok_or_else(|| {
                Error::invalid("room of a KV head", "absent", "these elements need one")
            })
        };
        Ok(Self {
            keys: rows(keys, Side::Keys)?,
            values: rows(values, Side::Values)?,
            positions: Vec::new(),
            representation,
            head_dim,
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

    /// Keys after RoPE, `(S, D)`: a view without a copy, or what packed ones stand for in float32.
    pub fn keys(&self) -> Result<Tensor> {
        self.keys.tensor(self.len())
    }

    /// Values, `(S, D)`, as [`HeadCache::keys`].
    pub fn values(&self) -> Result<Tensor> {
        self.values.tensor(self.len())
    }

    /// In which elements its keys and values are held.
    pub fn representation(&self) -> Representation {
        self.representation
    }

    /// Keys, or values, as they lie.
    pub(in crate::model) fn rows(&self, side: Side) -> &Rows {
        match side {
            Side::Keys => &self.keys,
            Side::Values => &self.values,
        }
    }

    pub(super) fn packed_sides(&mut self) -> impl Iterator<Item = &mut PackedRows> {
        [&mut self.keys, &mut self.values]
            .into_iter()
            .filter_map(Rows::packed_mut)
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
        self.keys.append(keys, held)?;
        self.values.append(values, held)?;
        self.positions
            .extend((first_position..first_position + added).map(|p| p as u32));
        Ok(())
    }

    /// Fills empty room with the listed slots of another head, ascending, rounded to this one's types.
    pub(super) fn take(&mut self, source: &Self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        self.keys.take(&source.keys, slots)?;
        self.values.take(&source.values, slots)?;
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

    /// Takes over all that another head of the same elements holds.
    pub(super) fn move_from(&mut self, from: &mut Self) -> Result<()> {
        let held = from.len();
        self.keys.move_from(&mut from.keys, held)?;
        self.values.move_from(&mut from.values, held)?;
        self.positions = std::mem::take(&mut from.positions);
        Ok(())
    }

    /// Codes tokens that are no longer among the newest, where those are held apart.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.packed_sides().try_for_each(PackedRows::settle)
    }

    /// Tokens that may come before some are coded together.
    pub(super) fn until_coded(&self) -> usize {
        self.representation.until_coded(self.len())
    }

    /// Whether the tokens from `position` on can be dropped as if they had never come.
    pub(super) fn can_forget_from(&self, position: usize) -> bool {
        let held = self.before(position);
        let sides = [&self.keys, &self.values]
            .into_iter()
            .filter_map(Rows::packed);
        sides.into_iter().all(|packed| packed.can_forget_from(held))
    }

    /// Drops the tokens from `position` on; room of tensors stays.
    pub(super) fn forget_from(&mut self, position: usize) {
        let held = self.before(position);
        self.positions.truncate(held);
        self.packed_sides()
            .for_each(|packed| packed.forget_from(held));
    }

    /// Tokens before `position`, where they ascend.
    fn before(&self, position: usize) -> usize {
        self.positions.partition_point(|&p| (p as usize) < position)
    }

    /// Lets the listed slots go, ascending: the last tokens take their places, or later ones move up to stay in order.
    pub(super) fn evict(&mut self, slots: &[u32], in_order: bool) -> Result<()> {
        let mut moves = Vec::new();
        for &slot in slots.iter().rev() {
            let (slot, last) = (slot as usize, self.len() - 1);
            if in_order {
                moves.extend((slot..last).map(|to| (to + 1, to)));
                self.positions.remove(slot);
            } else {
                if slot < last {
                    moves.push((last, slot));
                }
                self.positions.swap_remove(slot);
            }
        }
        self.keys.move_rows(&moves)?;
        self.values.move_rows(&moves)?;
        let held = self.len();
        self.packed_sides()
            .for_each(|packed| packed.forget_from(held));
        Ok(())
    }

    /// Bytes of `tokens` keys and values that come at once to an empty head.
    pub(super) fn bytes(&self, tokens: usize) -> usize {
        self.representation.bytes(tokens, self.head_dim)
    }

    /// Bytes of the last `tokens` that are held.
    pub(super) fn bytes_of_last(&self, tokens: usize) -> usize {
        self.keys.bytes_of_last(tokens) + self.values.bytes_of_last(tokens)
    }

    /// Bytes of its buffers, room included.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.keys.allocated_bytes() + self.values.allocated_bytes()
    }

    /// Tokens that it has room for; without a bound where both sides are packed.
    pub(super) fn capacity(&self) -> usize {
        self.keys.capacity().min(self.values.capacity())
    }
}
