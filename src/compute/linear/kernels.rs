//! What is done with packed rows, compiled for several instruction sets and chosen at run time.

use super::blocks::{Block, Codes, GROUP};
#[cfg(target_arch = "x86_64")]
use super::panels::{self, PairProducts, Pairs};
#[cfg(target_arch = "x86_64")]
use super::tiled::Bytes;
use super::tiled::IntegerKernels;
use crate::compute::lanes::{LANES, Lanes, Portable};
#[cfg(target_arch = "x86_64")]
use crate::compute::lanes::{has_256, has_512};

/// Activations that one pass over a packed row serves.
const TOGETHER: usize = 4;

/// Unpacks the rows in the first slice into the second.
type Unpack = unsafe fn(&[u8], &mut [f32]);
/// Products of packed rows of so many bytes with some inputs of one width: `(rows, inputs)`.
type Products = unsafe fn(&[u8], usize, &[&[f32]], &mut [f32]);
/// Unpacks packed rows of so many bytes into one panel of bfloat16 pairs.
#[cfg(target_arch = "x86_64")]
type UnpackPanel = unsafe fn(&[u8], usize, &mut [Pairs]);

/// The kernels of one block format for the processor that runs this.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Bytes of a block.
    pub(super) block_bytes: usize,
    /// Weights of a block.
    pub(super) block_weights: usize,
    /// Those of its codes, if it has any.
    pub(super) integers: Option<IntegerKernels>,
    /// Those of its codes with activations of 8 bits, where there are any besides.
    #[cfg(target_arch = "x86_64")]
    pub(super) bytes: Option<Bytes>,
    unpack: Unpack,
    products: Products,
    /// Only called where the processor multiplies bfloat16 pairs.
    #[cfg(target_arch = "x86_64")]
    unpack_panel: UnpackPanel,
}

impl Kernels {
    /// The fastest that the processor can run.
    pub(super) fn of<B: Block>() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_512() {
                return Self::with::<B>(x86::unpack_512::<B>, x86::products_512::<B>);
            }
            if has_256() {
                return Self::with::<B>(x86::unpack_256::<B>, x86::products_256::<B>);
            }
        }
        Self::portable::<B>()
    }

    /// Those of a format of integer codes, and the kernels of its codes.
    pub(super) fn of_codes<C: Codes>() -> Self {
        Self {
            integers: Some(IntegerKernels::of::<C>()),
            #[cfg(target_arch = "x86_64")]
            bytes: Bytes::of::<C>(),
            ..Self::of::<C>()
        }
    }

    /// One for every instruction set that the processor can run.
    #[cfg(test)]
    pub(super) fn at_every_level<B: Block>() -> Vec<Self> {
        let mut levels = vec![Self::portable::<B>()];
        #[cfg(target_arch = "x86_64")]
        {
            if has_256() {
                levels.push(Self::with::<B>(
                    x86::unpack_256::<B>,
                    x86::products_256::<B>,
                ));
            }
            if has_512() {
                levels.push(Self::with::<B>(
                    x86::unpack_512::<B>,
                    x86::products_512::<B>,
                ));
            }
        }
        levels
    }

    fn portable<B: Block>() -> Self {
        Self::with::<B>(unpack::<B, Portable>, products::<B, Portable>)
    }

    fn with<B: Block>(unpack: Unpack, products: Products) -> Self {
        Self {
            block_bytes: B::BYTES,
            block_weights: B::GROUPS * GROUP,
            integers: None,
            #[cfg(target_arch = "x86_64")]
            bytes: None,
            unpack,
            products,
            #[cfg(target_arch = "x86_64")]
            unpack_panel: panels::unpack_panel::<B>,
        }
    }

    /// The weights of some packed rows, rounded to bfloat16, as one panel.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn unpack_panel(
        &self,
        _: PairProducts,
        rows: &[u8],
        row_bytes: usize,
        panel: &mut [Pairs],
    ) {
        // SAFETY: the proof says that the instructions were detected.
        unsafe { (self.unpack_panel)(rows, row_bytes, panel) }
    }

    /// Float32 weights of consecutive blocks, the same bits as candle's.
    pub(super) fn unpack(&self, packed: &[u8], weights: &mut [f32]) {
        // SAFETY: the functions are safe but for their instructions, detected when they were chosen.
        unsafe { (self.unpack)(packed, weights) }
    }

    /// Dot products of packed rows with every input, `(rows, inputs)`.
    ///
    /// The order of a product's sum depends on neither the number of rows nor that of inputs.
    pub(super) fn products(
        &self,
        rows: &[u8],
        row_bytes: usize,
        inputs: &[&[f32]],
        out: &mut [f32],
    ) {
        // SAFETY: as in `unpack`.
        unsafe { (self.products)(rows, row_bytes, inputs, out) }
    }
}

#[inline(always)]
fn unpack<B: Block, L: Lanes>(packed: &[u8], weights: &mut [f32]) {
    let (groups, _) = weights.as_chunks_mut::<GROUP>();
    let blocks = packed.chunks_exact(B::BYTES);
    for (block, groups) in blocks.zip(groups.chunks_exact_mut(B::GROUPS)) {
        for (g, weights) in groups.iter_mut().enumerate() {
            let (halves, _) = weights.as_chunks_mut::<LANES>();
            for (half, values) in halves.iter_mut().zip(B::unpack::<L>(block, g)) {
                L::store(values, half);
            }
        }
    }
}

#[inline(always)]
fn products<B: Block, L: Lanes>(rows: &[u8], row_bytes: usize, inputs: &[&[f32]], out: &mut [f32]) {
    let stride = inputs.len();
    for (i, inputs) in inputs.chunks(TOGETHER).enumerate() {
        let out = &mut out[i * TOGETHER..];
        match *inputs {
            [a] => dots::<B, L, 1>(rows, row_bytes, [a], out, stride),
            [a, b] => dots::<B, L, 2>(rows, row_bytes, [a, b], out, stride),
            [a, b, c] => dots::<B, L, 3>(rows, row_bytes, [a, b, c], out, stride),
            [a, b, c, d] => dots::<B, L, 4>(rows, row_bytes, [a, b, c, d], out, stride),
            _ => {}
        }
    }
}

/// Products of every row with N inputs, into the first N of each `stride` elements of `out`.
#[inline(always)]
fn dots<B: Block, L: Lanes, const N: usize>(
    rows: &[u8],
    row_bytes: usize,
    inputs: [&[f32]; N],
    out: &mut [f32],
    stride: usize,
) {
    let inputs = inputs.map(|input| input.as_chunks::<GROUP>().0);
    for (row, out) in rows.chunks_exact(row_bytes).zip(out.chunks_mut(stride)) {
        let mut sums = [[L::splat(0.0); 2]; N];
        for (b, block) in row.chunks_exact(B::BYTES).enumerate() {
            for g in 0..B::GROUPS {
                let weights = B::unpack::<L>(block, g);
                for (sum, input) in sums.iter_mut().zip(&inputs) {
                    let (halves, _) = input[b * B::GROUPS + g].as_chunks::<LANES>();
                    for i in 0..2 {
                        sum[i] = L::multiply_add(weights[i], L::load(&halves[i]), sum[i]);
                    }
                }
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = L::sum(L::add(sum[0], sum[1]));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Block;
    use crate::compute::lanes::{Avx2, Avx512};

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")]
    pub(super) fn unpack_512<B: Block>(packed: &[u8], weights: &mut [f32]) {
        super::unpack::<B, Avx512>(packed, weights);
    }
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn unpack_256<B: Block>(packed: &[u8], weights: &mut [f32]) {
        super::unpack::<B, Avx2>(packed, weights);
    }
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")]
    pub(super) fn products_512<B: Block>(
        rows: &[u8],
        row_bytes: usize,
        inputs: &[&[f32]],
        out: &mut [f32],
    ) {
        super::products::<B, Avx512>(rows, row_bytes, inputs, out);
    }
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn products_256<B: Block>(
        rows: &[u8],
        row_bytes: usize,
        inputs: &[&[f32]],
        out: &mut [f32],
    ) {
        super::products::<B, Avx2>(rows, row_bytes, inputs, out);
    }
}
