//! Products as integers: weights are the codes of their file, activations are rounded to codes of their own, and what 32 of
//! each give is summed without a rounding.
//!
//! A sum over the width adds what groups of 32 give in float32; every instruction set rounds alike.

mod activations;
mod kernels;
mod panel;
mod tile;

use std::cell::Cell;
use std::thread::LocalKey;

#[cfg(target_arch = "x86_64")]
pub(super) use activations::codes_of;
use activations::{GroupInputs, round};
pub(in crate::compute) use kernels::IntegerKernels;
use panel::GroupPanel;

use super::super::products::Products;
use super::{Arithmetic, Buffers, Sums};

/// To how many levels on either side of zero activations are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compute) struct Levels(u16);

impl Levels {
    /// Those of 8 bits.
    pub(super) const OF_BYTES: Self = Self(127);
}

/// Integer codes of a format's weights and of activations.
///
/// Paper: none: house definition. Differs: llama.cpp rounds activations to 8 bits in blocks of 32 or, for some formats, 256;
/// here all groups have 32, and levels are those of 16 or 8 bits.
#[derive(Clone, Copy)]
pub(in crate::compute) struct Integers {
    kernels: IntegerKernels,
    levels: Levels,
}

impl Integers {
    /// Those of a kind of product; none where it does not round to integers.
    pub(in crate::compute) fn of(kernels: IntegerKernels, products: Products) -> Option<Self> {
        let levels = match products {
            Products::Float32 => return None,
            Products::Int16 => Levels(32767),
            Products::Int8 => Levels::OF_BYTES,
        };
        Some(Self { kernels, levels })
    }
}

thread_local! {
    static BUFFERS: Cell<Buffers<Integers>> = const { Cell::new(Buffers::EMPTY) };
}

impl Arithmetic for Integers {
    type Weights = GroupPanel;
    type Inputs = GroupInputs;
    /// 20 KB of a panel.
    const DEPTH: usize = 16;

    fn buffers() -> &'static LocalKey<Cell<Buffers<Self>>> {
        &BUFFERS
    }

    fn pack(&self, rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
        self.kernels.pack(rows, row_bytes, panel);
    }

    fn lay_out(&self, x: &[f32], width: usize, inputs: &mut [GroupInputs]) {
        round(x, width, self.levels, inputs);
    }

    fn add(&self, panel: &[GroupPanel], inputs: &[GroupInputs], sums: &mut Sums) {
        self.kernels.add(panel, inputs, sums);
    }
}
