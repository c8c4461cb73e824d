//! The same integer products with activations of 8 bits, where the codes of weights have so few that the products of
//! several may be summed in 16: twice as many at a time.
//!
//! Sums of integers have no order, so that the bits are those of [`super::integers`], which every processor runs.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::thread::LocalKey;

use super::super::blocks::{Codes, GROUP};
use super::super::products::Products;
use super::integers::{Levels, codes_of};
use super::vectors::{Integers, VECTORS, add_minima, scaled};
use super::{Arithmetic, Buffers, PANEL, Sums, TOGETHER};
use crate::compute::lanes::{Avx2, LANES, Lanes, has_256};

/// Codes that are multiplied and added by one instruction.
const QUAD: usize = 4;

/// Thirty-two weights each of sixteen rows.
#[derive(Clone, Copy, Default)]
pub(in crate::compute) struct GroupPanel {
    /// Four codes of each row, the first in the lowest bits; without a sign.
    quads: [[u32; PANEL]; GROUP / QUAD],
    scales: [[f32; PANEL]; 2],
    minima: [[f32; PANEL]; 2],
}

/// Thirty-two numbers each of [`TOGETHER`] activations.
#[derive(Clone, Copy, Default)]
pub(in crate::compute) struct GroupInputs {
    /// Four codes of each, with a sign.
    quads: [[u32; TOGETHER]; GROUP / QUAD],
    scales: [f32; TOGETHER],
    /// Sums of the codes of both halves.
    sums: [[i32; TOGETHER]; 2],
    /// Sums of the numbers of both halves.
    halves: [[f32; TOGETHER]; 2],
    /// Sums of all numbers.
    whole: [f32; TOGETHER],
}

/// Lays out packed rows of so many bytes as a panel.
type Pack = unsafe fn(&[u8], usize, &mut [GroupPanel]);
/// Adds the products of some groups.
type Add = unsafe fn(&[GroupPanel], &[GroupInputs], &mut Sums);

/// The kernels of one format.
#[derive(Clone, Copy)]
pub(in crate::compute) struct Bytes {
    pack: Pack,
    add: Add,
}

impl Bytes {
    /// Those of a format whose codes are small enough; none where the processor lacks the vectors.
    pub(in crate::compute) fn of<C: Codes>() -> Option<Self> {
        (has_256() && quads_together::<C>() > 0).then_some(Self {
            pack: pack::<C>,
            add: add::<C>,
        })
    }

    /// Whether a kind of product is done with them.
    pub(in crate::compute) fn serve(products: Products) -> bool {
        products == Products::Int8
    }
}

/// Quads whose products 16 bits with a sign can sum: a power of two, none for codes with a sign of their own.
const fn quads_together<C: Codes>() -> usize {
    let Some(largest) = C::LARGEST else {
        return 0;
    };
    // An instruction adds two products in 16 bits before quads are added.
    let two = 2 * largest * 127;
    let most = if C::HALVES {
        GROUP / QUAD / 2
    } else {
        GROUP / QUAD
    };
    let mut quads = most;
    while quads > 0 && quads as i32 * two > i16::MAX as i32 {
        quads /= 2;
    }
    quads
}

thread_local! {
    static BUFFERS: Cell<Buffers<Bytes>> = const { Cell::new(Buffers::EMPTY) };
}

impl Arithmetic for Bytes {
    type Weights = GroupPanel;
    type Inputs = GroupInputs;
    /// 12 KB of a panel.
    const DEPTH: usize = 16;

    fn buffers() -> &'static LocalKey<Cell<Buffers<Self>>> {
        &BUFFERS
    }

    fn pack(&self, rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
        // SAFETY: it was only made where the processor has the instructions.
        unsafe { (self.pack)(rows, row_bytes, panel) }
    }

    fn lay_out(&self, x: &[f32], width: usize, inputs: &mut [GroupInputs]) {
        // SAFETY: as above.
        unsafe { lay_out(x, width, inputs) }
    }

    fn add(&self, panel: &[GroupPanel], inputs: &[GroupInputs], sums: &mut Sums) {
        // SAFETY: as above.
        unsafe { (self.add)(panel, inputs, sums) }
    }
}

/// The lowest bytes of four codes.
#[inline(always)]
fn quad(codes: &[i16; QUAD]) -> u32 {
    let [a, b, c, d] = *codes;
    u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn pack<C: Codes>(rows: &[u8], row_bytes: usize, panel: &mut [GroupPanel]) {
    for (r, row) in rows.chunks_exact(row_bytes).take(PANEL).enumerate() {
        let blocks = row.chunks_exact(C::BYTES);
        for (block, groups) in blocks.zip(panel.chunks_exact_mut(C::GROUPS)) {
            for (g, group) in groups.iter_mut().enumerate() {
                let mut codes = [0i16; GROUP];
                let (halves, _) = codes.as_chunks_mut::<LANES>();
                let [first, second] = C::codes::<Avx2>(block, g);
                Avx2::store_short(first, 0, &mut halves[0]);
                Avx2::store_short(second, 0, &mut halves[1]);
                let (quads, _) = codes.as_chunks::<QUAD>();
                for (to, codes) in group.quads.iter_mut().zip(quads) {
                    to[r] = quad(codes);
                }
                let [first, second] = C::affine::<Avx2>(block, g);
                (group.scales[0][r], group.minima[0][r]) = (first[0], first[1]);
                (group.scales[1][r], group.minima[1][r]) = (second[0], second[1]);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn lay_out(x: &[f32], width: usize, inputs: &mut [GroupInputs]) {
    if x.len() < TOGETHER * width {
        inputs.fill(GroupInputs::default());
    }
    for (t, x) in x.chunks_exact(width).enumerate() {
        for (x, inputs) in x.as_chunks::<GROUP>().0.iter().zip(&mut *inputs) {
            let (codes, scale) = codes_of(x, Levels::OF_BYTES);
            let (quads, _) = codes.as_chunks::<QUAD>();
            for (to, codes) in inputs.quads.iter_mut().zip(quads) {
                to[t] = quad(codes);
            }
            let mut sums = [0i32; 2];
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<{ GROUP / 2 }>().0) {
                for code in codes {
                    *sum += i32::from(*code);
                }
            }
            inputs.scales[t] = scale;
            inputs.sums[0][t] = sums[0];
            inputs.sums[1][t] = sums[1];
            inputs.halves[0][t] = sums[0] as f32 * scale;
            inputs.halves[1][t] = sums[1] as f32 * scale;
            inputs.whole[t] = (sums[0] + sums[1]) as f32 * scale;
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn add<C: Codes>(panel: &[GroupPanel], inputs: &[GroupInputs], sums: &mut Sums) {
    const HALF: usize = GROUP / QUAD / 2;
    for (panel, inputs) in panel.iter().zip(inputs) {
        let [first, second] = &inputs.sums;
        // SAFETY: this function is compiled for the instructions.
        unsafe {
            if C::HALVES {
                let dots_of_first = dots::<C>(panel, inputs, 0, HALF);
                let dots_of_first = centred::<C>(dots_of_first, first);
                scaled(dots_of_first, &panel.scales[0], &inputs.scales, sums);
                let dots_of_second = dots::<C>(panel, inputs, HALF, 2 * HALF);
                let dots_of_second = centred::<C>(dots_of_second, second);
                scaled(dots_of_second, &panel.scales[1], &inputs.scales, sums);
            } else {
                let mut both = *first;
                for t in 0..TOGETHER {
                    both[t] += second[t];
                }
                let dots = centred::<C>(dots::<C>(panel, inputs, 0, 2 * HALF), &both);
                scaled(dots, &panel.scales[0], &inputs.scales, sums);
            }
            add_minima::<C>(&panel.minima, &inputs.halves, &inputs.whole, sums);
        }
    }
}

/// Exact sums of the products of quads `from..to`.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn dots<C: Codes>(
    panel: &GroupPanel,
    inputs: &GroupInputs,
    from: usize,
    to: usize,
) -> Integers {
    // SAFETY: as the caller promises; vectors are whole halves of arrays of sixteen.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut dots = [[_mm256_setzero_si256(); VECTORS]; TOGETHER];
        for start in (from..to).step_by(const { quads_or_one::<C>() }) {
            let mut short = [[_mm256_setzero_si256(); VECTORS]; TOGETHER];
            for q in start..start + const { quads_or_one::<C>() } {
                let row = panel.quads[q].as_ptr();
                let weights = [
                    _mm256_loadu_si256(row.cast()),
                    _mm256_loadu_si256(row.add(8).cast()),
                ];
                for (short, quad) in short.iter_mut().zip(&inputs.quads[q]) {
                    let quad = _mm256_set1_epi32(*quad as i32);
                    for (short, weights) in short.iter_mut().zip(weights) {
                        let products = _mm256_maddubs_epi16(weights, quad);
                        *short = _mm256_add_epi16(*short, products);
                    }
                }
            }
            for t in 0..TOGETHER {
                for v in 0..VECTORS {
                    let wide = _mm256_madd_epi16(short[t][v], ones);
                    dots[t][v] = _mm256_add_epi32(dots[t][v], wide);
                }
            }
        }
        dots
    }
}

/// As [`quads_together`], for code that is never run where that is none.
const fn quads_or_one<C: Codes>() -> usize {
    let quads = quads_together::<C>();
    if quads == 0 { 1 } else { quads }
}

/// Takes from every sum what the zero of the codes has added to it.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn centred<C: Codes>(mut dots: Integers, sums: &[i32; TOGETHER]) -> Integers {
    if C::ZERO != 0 {
        for (dots, sum) in dots.iter_mut().zip(sums) {
            // SAFETY: as the caller promises.
            unsafe {
                let less = _mm256_set1_epi32(C::ZERO * sum);
                for dot in dots {
                    *dot = _mm256_sub_epi32(*dot, less);
                }
            }
        }
    }
    dots
}
