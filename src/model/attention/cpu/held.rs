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

/// Keys and values of one KV head, `(S, D)` each.
#[derive(Clone, Copy)]
pub(super) enum Held<'a> {
    Float32([&'a [f32]; 2]),
    Bfloat16([&'a [bf16]; 2]),
    Float16([&'a [f16]; 2]),
}

impl<'a> Held<'a> {
    /// The elements of contiguous tensors on the CPU.
    ///
    /// Errors: [`Error::Candle`] for others, or of different or other types.
    pub(super) fn of([keys, values]: [(&'a Storage, &Layout); 2]) -> Result<Self> {
        let unknown = "expected contiguous keys and values of one floating-point type on the CPU";
        let unknown = || Error::Candle(candle_core::Error::msg(unknown));
        let ranges = [keys.1, values.1].map(Layout::contiguous_offsets);
        let [Some((k, k_end)), Some((v, v_end))] = ranges else {
            return Err(unknown());
        };
        let (Storage::Cpu(keys), Storage::Cpu(values)) = (keys.0, values.0) else {
            return Err(unknown());
        };
        use CpuStorage::{BF16, F16, F32};
        match (keys, values) {
            (F32(keys), F32(values)) => Ok(Self::Float32([&keys[k..k_end], &values[v..v_end]])),
            (BF16(keys), BF16(values)) => Ok(Self::Bfloat16([&keys[k..k_end], &values[v..v_end]])),
            (F16(keys), F16(values)) => Ok(Self::Float16([&keys[k..k_end], &values[v..v_end]])),
            _ => Err(unknown()),
        }
    }

    /// Keys in float32; those that are not are written to `room`.
    #[inline(always)]
    pub(super) fn keys<'s, L: Lanes>(
        &'s self,
        range: Range<usize>,
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        self.part::<L>(0, range, room)
    }

    /// Values, likewise.
    #[inline(always)]
    pub(super) fn values<'s, L: Lanes>(
        &'s self,
        range: Range<usize>,
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        self.part::<L>(1, range, room)
    }

    #[inline(always)]
    fn part<'s, L: Lanes>(
        &'s self,
        which: usize,
        range: Range<usize>,
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        match self {
            Self::Float32(held) => f32::all::<L>(&held[which][range], room),
            Self::Bfloat16(held) => bf16::all::<L>(&held[which][range], room),
            Self::Float16(held) => f16::all::<L>(&held[which][range], room),
        }
    }
}
