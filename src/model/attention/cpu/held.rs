//! Keys and values as the cache holds them, widened to float32 where they are used.

use std::ops::Range;

use candle_core::{CpuStorage, Layout, Storage};
use half::{bf16, f16};

use crate::compute::lanes::{LANES, Lanes};
use crate::error::{Error, Result};

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
}

/// Runs code with a name bound to the slice that is there, compiled for each type.
macro_rules! by_element {
    ($numbers:expr, $slice:ident => $run:expr) => {
        match $numbers {
            $crate::model::attention::cpu::held::Numbers::Float32($slice) => $run,
            $crate::model::attention::cpu::held::Numbers::Bfloat16($slice) => $run,
            $crate::model::attention::cpu::held::Numbers::Float16($slice) => $run,
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

    /// A range of them in float32; those that are not are written to `room`.
    #[inline(always)]
    pub(super) fn widened<'s, L: Lanes>(
        &'s self,
        range: Range<usize>,
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        match self {
            Self::Float32(all) => f32::all::<L>(&all[range], room),
            Self::Bfloat16(all) => bf16::all::<L>(&all[range], room),
            Self::Float16(all) => f16::all::<L>(&all[range], room),
        }
    }
}

/// Keys and values of one KV head, `(S, D)` each, which may be of different types.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) keys: Numbers<'a>,
    pub(super) values: Numbers<'a>,
}

impl<'a> Held<'a> {
    /// The elements of contiguous tensors on the CPU.
    ///
    /// Errors: [`Error::Candle`] for others, or of other types.
    pub(super) fn of([keys, values]: [(&'a Storage, &Layout); 2]) -> Result<Self> {
        Ok(Self {
            keys: Numbers::of(keys)?,
            values: Numbers::of(values)?,
        })
    }
}
