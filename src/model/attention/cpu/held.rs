//! Keys and values as the cache holds them, widened to float32 where they are used.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Layout, Storage};
use half::{bf16, f16};

use crate::compute::lanes::{LANES, Lanes};
use crate::error::{Error, Result};
use crate::model::cache::PackedRows;

/// An element type of the cache; widening is exact.
pub(super) trait Element: Copy {
    fn load<L: Lanes>(x: &[Self; LANES]) -> L::Float;
    fn widened(self) -> f32;
    /// The numbers in float32: themselves where they are, otherwise written to `room`.
    #[inline(always)]
    fn all<'s, L: Lanes>(x: &'s [Self], room: &'s mut Vec<f32>) -> &'s [f32] {
        room.resize(room.len().max(x.len()), 0.0);
        let room = &mut room[..x.len()];
        let (vectors, rest) = x.as_chunks::<LANES>();
        let (wide, wide_rest) = room.as_chunks_mut::<LANES>();
        for (x, wide) in vectors.iter().zip(wide) {
            L::store(Self::load::<L>(x), wide);
        }
        for (x, wide) in rest.iter().zip(wide_rest) {
            *wide = x.widened();
        }
        room
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; LANES]) -> L::Float {
        L::load(x)
    }
    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
    #[inline(always)]
    fn all<'s, L: Lanes>(x: &'s [Self], _: &'s mut Vec<f32>) -> &'s [f32] {
        x
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; LANES]) -> L::Float {
        L::load_bf16(x)
    }
    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<L: Lanes>(x: &[Self; LANES]) -> L::Float {
        L::load_f16(x)
    }
    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

/// Numbers of one KV head as they lie in the cache.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    Float32(&'a [f32]),
    Bfloat16(&'a [bf16]),
    Float16(&'a [f16]),
    /// Few bits, which are widened a few rows at a time.
    Packed(&'a PackedRows),
}

/// Runs code with a name bound to the slice that is there, compiled for each type; packed rows have none.
macro_rules! by_element {
    ($numbers:expr, $slice:ident => $run:expr) => {
        match $numbers {
            $crate::model::attention::cpu::held::Numbers::Float32($slice) => $run,
            $crate::model::attention::cpu::held::Numbers::Bfloat16($slice) => $run,
            $crate::model::attention::cpu::held::Numbers::Float16($slice) => $run,
            $crate::model::attention::cpu::held::Numbers::Packed(_) => (),
        }
    };
}
pub(super) use by_element;

impl<'a> Numbers<'a> {
    /// The elements of a contiguous tensor on the CPU.
    ///
    /// Errors: [`Error::Candle`] for others, or of another type.
    fn of((storage, layout): (&'a Storage, &Layout)) -> Result<Self> {
        use CpuStorage::{BF16, F16, F32};
        match (storage, layout.contiguous_offsets()) {
            (Storage::Cpu(F32(all)), Some((start, end))) => Ok(Self::Float32(&all[start..end])),
            (Storage::Cpu(BF16(all)), Some((start, end))) => Ok(Self::Bfloat16(&all[start..end])),
            (Storage::Cpu(F16(all)), Some((start, end))) => Ok(Self::Float16(&all[start..end])),
            _ => {
                let expected =
                    "expected contiguous keys and values of a floating-point type on the CPU";
                Err(Error::Candle(candle_core::Error::msg(expected)))
            }
        }
    }

    /// Size of the Hadamard matrix that they are rotated by, if they are.
    pub(super) fn rotation(&self) -> Option<usize> {
        match self {
            Self::Packed(packed) => packed.rotation(),
            _ => None,
        }
    }

    /// Some rows of width `d`: a part of the slice, or packed ones widened into `room`.
    #[inline(always)]
    pub(super) fn rows<'s, L: Lanes>(
        self,
        rows: Range<usize>,
        d: usize,
        room: &'s mut Vec<f32>,
    ) -> Numbers<'s>
    where
        'a: 's,
    {
        let range = rows.start * d..rows.end * d;
        match self {
            Self::Float32(all) => Numbers::Float32(&all[range]),
            Self::Bfloat16(all) => Numbers::Bfloat16(&all[range]),
            Self::Float16(all) => Numbers::Float16(&all[range]),
            Self::Packed(packed) => Numbers::Float32(widened::<L>(packed, rows, d, room)),
        }
    }

    /// Some rows of width `d` in float32; those that are not are written to `room`.
    #[inline(always)]
    pub(super) fn widened<'s, L: Lanes>(
        &'s self,
        rows: Range<usize>,
        d: usize,
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        let range = rows.start * d..rows.end * d;
        match self {
            Self::Float32(all) => f32::all::<L>(&all[range], room),
            Self::Bfloat16(all) => bf16::all::<L>(&all[range], room),
            Self::Float16(all) => f16::all::<L>(&all[range], room),
            Self::Packed(packed) => widened::<L>(packed, rows, d, room),
        }
    }
}

/// Packed rows, widened into `room`.
#[inline(always)]
fn widened<'s, L: Lanes>(
    packed: &PackedRows,
    rows: Range<usize>,
    d: usize,
    room: &'s mut Vec<f32>,
) -> &'s [f32] {
    let count = rows.len() * d;
    room.resize(room.len().max(count), 0.0);
    let room = &mut room[..count];
    packed.widen_in::<L>(rows, room);
    room
}

/// Keys and values of one KV head, `(S, D)` each, which may be of different types.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) keys: Numbers<'a>,
    pub(super) values: Numbers<'a>,
}

/// Keys or values of one KV head where they lie: a tensor's memory, or packed rows.
pub(super) enum Lying<'a, G> {
    Tensor(G, &'a Layout),
    Packed(&'a PackedRows),
}

impl<G: Deref<Target = Storage>> Lying<'_, G> {
    /// The elements.
    ///
    /// Errors: [`Error::Candle`] for tensors that are not contiguous on the CPU, or of other types.
    pub(super) fn numbers(&self) -> Result<Numbers<'_>> {
        match self {
            Self::Tensor(storage, layout) => Numbers::of((&**storage, *layout)),
            Self::Packed(packed) => Ok(Numbers::Packed(packed)),
        }
    }
}
