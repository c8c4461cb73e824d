//! Products in float32: weights are unpacked into panels, and 256 of the width are one chain of fused multiplications,
//! which is added to those before.

use std::cell::Cell;
use std::thread::LocalKey;

use super::super::blocks::{Block, GROUP};
use super::{Arithmetic, Buffers, PANEL, Sums, TOGETHER};
use crate::compute::lanes::{Avx2, LANES, Lanes, has_256, has_512};

/// Thirty-two weights each of sixteen rows.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::compute) struct GroupPanel([[f32; PANEL]; GROUP]);

/// Thirty-two numbers each of [`TOGETHER`] activations.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::compute) struct GroupInputs([[f32; TOGETHER]; GROUP]);

impl Default for GroupPanel {
    fn default() -> Self {
        Self([[0.0; PANEL]; GROUP])
    }
}

impl Default for GroupInputs {
    fn default() -> Self {
        Self([[0.0; TOGETHER]; GROUP])
    }
}

/// Lays out packed rows of so many bytes as a panel.
type Pack = unsafe fn(&[u8], usize, &mut [GroupPanel]);

/// Float32 weights of one format, for processors with AVX2.
#[derive(Clone, Copy)]
pub(in crate::compute) struct Floats {
    pack: Pack,
}

impl Floats {
    /// Those of a format; none where the processor has no such vectors, or wider ones, which the GEMM of dense products fills.
    pub(in crate::compute) fn of<B: Block>() -> Option<Self> {
        (has_256() && !has_512()).then_some(Self { pack: pack::<B> })
    }
}

thread_local! {
    static BUFFERS: Cell<Buffers<Floats>> = const { Cell::new(Buffers::EMPTY) };
}

impl Arithmetic for Floats {
    type Weights = GroupPanel;
    type Inputs = GroupInputs;
    /// 16 KB of a panel.
    const DEPTH: usize = 8;

    fn buffers() -> &'static LocalKey<Cell<Buffers<Self>>> {
        &BUFFERS
    }

    fn pack(&self, rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
        // SAFETY: it was only made where the processor has the instructions.
        unsafe { (self.pack)(rows, row_bytes, panel) }
    }

    fn lay_out(&self, x: &[f32], width: usize, inputs: &mut [GroupInputs]) {
        if x.len() < TOGETHER * width {
            inputs.fill(GroupInputs::default());
        }
        for (t, x) in x.chunks_exact(width).enumerate() {
            for (x, inputs) in x.as_chunks::<GROUP>().0.iter().zip(&mut *inputs) {
                for (to, x) in inputs.0.iter_mut().zip(x) {
                    to[t] = *x;
                }
            }
        }
    }

    fn add(&self, panel: &[GroupPanel], inputs: &[GroupInputs], sums: &mut Sums) {
        // SAFETY: as above.
        unsafe { avx2::add(panel, inputs, sums) }
    }
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn pack<B: Block>(rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
    for (r, row) in rows.chunks_exact(row_bytes).take(PANEL).enumerate() {
        let blocks = row.chunks_exact(B::BYTES);
        for (block, groups) in blocks.zip(panel.chunks_exact_mut(B::GROUPS)) {
            for (g, group) in groups.iter_mut().enumerate() {
                let mut weights = [0f32; GROUP];
                let (halves, _) = weights.as_chunks_mut::<LANES>();
                let [first, second] = B::unpack::<Avx2>(block, g);
                Avx2::store(first, &mut halves[0]);
                Avx2::store(second, &mut halves[1]);
                for (to, weight) in group.0.iter_mut().zip(weights) {
                    to[r] = weight;
                }
            }
        }
    }
}

mod avx2 {
    use std::arch::x86_64::*;

    use super::{GroupInputs, GroupPanel, PANEL, Sums, TOGETHER};

    /// Vectors of a panel's row.
    const VECTORS: usize = PANEL / 8;

    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    pub(super) fn add(panel: &[GroupPanel], inputs: &[GroupInputs], sums: &mut Sums) {
        // SAFETY: this function is compiled for the instructions; vectors are whole halves of arrays of sixteen.
        unsafe {
            let mut own = [[_mm256_setzero_ps(); VECTORS]; TOGETHER];
            for (panel, inputs) in panel.iter().zip(inputs) {
                for (weights, inputs) in panel.0.iter().zip(&inputs.0) {
                    let lower = _mm256_loadu_ps(weights.as_ptr());
                    let upper = _mm256_loadu_ps(weights.as_ptr().add(8));
                    for t in 0..TOGETHER {
                        let x = _mm256_set1_ps(inputs[t]);
                        own[t][0] = _mm256_fmadd_ps(lower, x, own[t][0]);
                        own[t][1] = _mm256_fmadd_ps(upper, x, own[t][1]);
                    }
                }
            }
            for t in 0..TOGETHER {
                for v in 0..VECTORS {
                    let place = sums[t].as_mut_ptr().add(8 * v);
                    _mm256_storeu_ps(place, _mm256_add_ps(_mm256_loadu_ps(place), own[t][v]));
                }
            }
        }
    }
}
