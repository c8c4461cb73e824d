//! What is done with the codes of packed rows, compiled for several instruction sets and chosen at run time.

use super::super::super::blocks::Codes;
use super::super::Sums;
use super::activations::GroupInputs;
use super::panel::{GroupPanel, pack};
#[cfg(target_arch = "x86_64")]
use super::tile::add_256;
use super::tile::add_portable;
use crate::compute::lanes::Portable;
#[cfg(target_arch = "x86_64")]
use crate::compute::lanes::has_256;

/// Lays out packed rows of so many bytes as a panel.
type Pack = unsafe fn(&[u8], usize, &mut [GroupPanel]);
/// Adds the products of some groups.
type Add = unsafe fn(&[GroupPanel], &[GroupInputs], &mut Sums);

/// The kernels of one format's codes for the processor that runs this.
#[derive(Clone, Copy)]
pub(in crate::compute) struct IntegerKernels {
    pack: Pack,
    add: Add,
}

impl IntegerKernels {
    /// The fastest that the processor can run.
    pub(in crate::compute) fn of<C: Codes>() -> Self {
        #[cfg(target_arch = "x86_64")]
        if has_256() {
            return Self {
                pack: pack_256::<C>,
                add: add_256::<C>,
            };
        }
        Self::portable::<C>()
    }

    /// Those that every processor runs.
    pub(in crate::compute) fn portable<C: Codes>() -> Self {
        Self {
            pack: pack::<C, Portable>,
            add: add_portable::<C>,
        }
    }

    /// Adds the products of groups of a panel with those of activations.
    pub(super) fn add(&self, panel: &[GroupPanel], inputs: &[GroupInputs], sums: &mut Sums) {
        // SAFETY: the functions are safe but for their instructions, detected when they were chosen.
        unsafe { (self.add)(panel, inputs, sums) }
    }

    /// Lays out up to sixteen packed rows of so many bytes; rows that are missing keep what was there.
    pub(super) fn pack(&self, rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
        // SAFETY: as in `add`.
        unsafe { (self.pack)(rows, row_bytes, panel) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn pack_256<C: Codes>(rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
    pack::<C, crate::compute::lanes::Avx2>(rows, row_bytes, panel);
}
