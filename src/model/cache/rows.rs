//! Keys or values of one KV head: a part of a tensor, or packed.

use candle_core::{DType, Device, Tensor};

use super::level_slots::LevelSlots;
use super::moved_rows::MovedRows;
use super::packed::PackedRows;
use crate::error::Result;

/// Rows of one KV head.
#[derive(Debug)]
pub(in crate::model) enum Rows {
    /// Room `(capacity, D)`, of which the first rows are held.
    Dense(Tensor),
    /// Few bits, on a CPU.
    Packed(PackedRows),
}

impl Rows {
    /// All `held` rows, a view without a copy where they are not packed.
    pub(super) fn tensor(&self, held: usize) -> Result<Tensor> {
        match self {
            Self::Dense(room) => Ok(room.narrow(0, 0, held)?),
            Self::Packed(packed) => {
                let numbers = packed.numbers(0..held);
                let width = packed.width();
                Ok(Tensor::from_vec(numbers, (held, width), &Device::Cpu)?)
            }
        }
    }

    /// Writes rows `(n, D)` behind the `held` ones; there must be room.
    pub(super) fn append(&mut self, rows: &Tensor, held: usize) -> Result<()> {
        match self {
            Self::Dense(room) => Ok(room.slice_set(&rows.to_dtype(room.dtype())?, 0, held)?),
            Self::Packed(packed) => packed.append(numbers_of(rows)?),
        }
    }

    /// Fills empty rows with the listed ones of another head, ascending, rounded or coded as these are.
    pub(super) fn take(&mut self, from: &Self, slots: &[u32]) -> Result<()> {
        match (self, from) {
            (Self::Dense(room), Self::Dense(all)) => {
                let index = Tensor::new(slots, room.device())?;
                let kept = all.index_select(&index, 0)?.to_dtype(room.dtype())?;
                Ok(room.slice_set(&kept, 0, 0)?)
            }
            (Self::Dense(room), Self::Packed(packed)) => {
                let shape = (slots.len(), packed.width());
                let kept = Tensor::from_vec(packed.gathered(slots), shape, room.device())?;
                Ok(room.slice_set(&kept.to_dtype(room.dtype())?, 0, 0)?)
            }
            (Self::Packed(packed), Self::Dense(all)) => {
                let index = Tensor::new(slots, all.device())?;
                packed.fill(numbers_of(&all.index_select(&index, 0)?)?)
            }
            (Self::Packed(packed), Self::Packed(all)) => {
                if packed.copied(all, slots) {
                    return Ok(());
                }
                packed.fill(all.gathered(slots))
            }
        }
    }

    /// Fills empty rows at two levels with the listed ones of another head.
    ///
    /// Errors: those of the packing.
    pub(super) fn take_levels(&mut self, from: &Self, slots: &LevelSlots) -> Result<()> {
        let numbers = |slots: &[u32]| match from {
            Self::Dense(all) => {
                let index = Tensor::new(slots, all.device())?;
                numbers_of(&all.index_select(&index, 0)?)
            }
            Self::Packed(packed) => Ok(packed.gathered(slots)),
        };
        match self {
            Self::Dense(_) => Ok(()),
            Self::Packed(packed) => {
                packed.fill_levels(&numbers(&slots.low)?, &numbers(&slots.high)?)
            }
        }
    }

    /// Takes all `held` rows of another head of the same elements, which needs them no more.
    pub(super) fn move_from(&mut self, from: &mut Self, held: usize) -> Result<()> {
        match (self, from) {
            (Self::Packed(to), Self::Packed(from)) => {
                std::mem::swap(to, from);
                Ok(())
            }
            (Self::Dense(room), from) if held > 0 => {
                Ok(room.slice_set(&from.tensor(held)?, 0, 0)?)
            }
            _ => Ok(()),
        }
    }

    /// Copies row `from` over row `to` for every pair, in this order.
    pub(super) fn move_rows(&mut self, moves: &[(usize, usize)]) -> Result<()> {
        match self {
            _ if moves.is_empty() => (),
            Self::Dense(room) => room.inplace_op1(&MovedRows(moves))?,
            Self::Packed(packed) => {
                for &(from, to) in moves {
                    packed.move_row(from, to);
                }
            }
        }
        Ok(())
    }

    /// Tokens that there is room for.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Dense(room) => room.dims().first().copied().unwrap_or(1),
            Self::Packed(_) => usize::MAX,
        }
    }

    /// The packed rows, where they are.
    pub(in crate::model) fn packed(&self) -> Option<&PackedRows> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(packed) => Some(packed),
        }
    }

    pub(super) fn packed_mut(&mut self) -> Option<&mut PackedRows> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(packed) => Some(packed),
        }
    }

    /// Bytes of the last `rows` rows.
    pub(super) fn bytes_of_last(&self, rows: usize) -> usize {
        match self {
            Self::Dense(room) => rows * row_bytes(room),
            Self::Packed(packed) => packed.bytes_of_last(rows),
        }
    }

    /// Bytes of its buffers, room included.
    pub(super) fn allocated_bytes(&self) -> usize {
        match self {
            Self::Dense(room) => self.capacity() * row_bytes(room),
            Self::Packed(packed) => packed.allocated_bytes(),
        }
    }
}

fn row_bytes(room: &Tensor) -> usize {
    room.dims().last().copied().unwrap_or(0) * room.dtype().size_in_bytes()
}

/// Rows in float32, one after another.
fn numbers_of(rows: &Tensor) -> Result<Vec<f32>> {
    Ok(rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
