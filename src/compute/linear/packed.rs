//! A matrix that stays in the blocks of its GGUF file.

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use rayon::prelude::*;

use super::blocks::kernels_of;
use super::kernels::Kernels;
#[cfg(target_arch = "x86_64")]
use super::panels::{PANEL, PairProducts, Pairs};
use super::products::Products;
use super::stored::StoredBytes;
#[cfg(target_arch = "x86_64")]
use super::tiled::Bytes;
use super::tiled::{Integers, PackedRows};

/// Weights that are checked at a time.
const CHECKED: usize = 1 << 16;

/// Float32 weights that are unpacked at once: 4 MiB stay in the caches next to the activations.
const BLOCK_WEIGHTS: usize = 1 << 20;
/// Rows that a block has at least: every block reads all activations again.
const BLOCK_ROWS: usize = 256;

/// Rows of quantised blocks, `(rows, width)`.
pub struct Packed {
    kernels: Kernels,
    bytes: StoredBytes,
    row_bytes: usize,
    rows: usize,
    width: usize,
    bfloat16: bool,
    products: Products,
}

impl Packed {
    /// Whether matrices of this format and width can stay packed.
    pub(crate) fn takes(format: GgmlDType, width: usize) -> bool {
        kernels_of(format).is_some_and(|k| width > 0 && width.is_multiple_of(k.block_weights))
    }

    /// Takes the bytes of a tensor; `None` if they are of a format or number that does not fit.
    pub(crate) fn new(
        format: GgmlDType,
        bytes: impl Into<StoredBytes>,
        rows: usize,
        width: usize,
    ) -> Option<Self> {
        let bytes = bytes.into();
        let kernels = kernels_of(format).filter(|_| Self::takes(format, width))?;
        let row_bytes = width / kernels.block_weights * kernels.block_bytes;
        (rows.checked_mul(row_bytes) == Some(bytes.len())).then_some(Self {
            kernels,
            bytes,
            row_bytes,
            rows,
            width,
            bfloat16: false,
            products: Products::Float32,
        })
    }

    /// The same for a model of another element type: with many activations, a bfloat16 one multiplies rounded
    /// numbers where the processor is faster at it.
    pub(crate) fn for_products_in(self, dtype: DType) -> Self {
        Self {
            bfloat16: dtype == DType::BF16,
            ..self
        }
    }

    /// The same with products of another kind, where there are many activations.
    pub(super) fn multiplied_as(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// Integer products, where these are asked for and the weights are codes.
    pub(super) fn integers(&self) -> Option<Integers> {
        Integers::of(self.kernels.integers?, self.products)
    }

    /// Integer products with kernels for activations of 8 bits, where these are asked for and there are such kernels.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn bytes_at_once(&self) -> Option<Bytes> {
        self.kernels.bytes.filter(|_| Bytes::serve(self.products))
    }

    /// Its rows, as products in tiles take them.
    pub(super) fn packed_rows(&self) -> PackedRows<'_> {
        PackedRows {
            bytes: &self.bytes,
            row_bytes: self.row_bytes,
            rows: self.rows,
            width: self.width,
            block: self.block_rows(),
        }
    }

    /// Whether products with many activations may round to bfloat16.
    pub(super) fn rounds_to_bfloat16(&self) -> bool {
        self.bfloat16
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether every weight is a finite number; unpacks a part at a time.
    pub(crate) fn is_finite(&self) -> bool {
        let rows = (CHECKED / self.width).max(1);
        self.bytes
            .par_chunks(rows * self.row_bytes)
            .map_init(Vec::new, |weights, packed| {
                weights.resize(packed.len() / self.row_bytes * self.width, 0f32);
                self.kernels.unpack(packed, weights);
                // Without an early end, so that lanes compare many weights at once.
                weights.iter().fold(true, |all, w| all & w.is_finite())
            })
            .all(|finite| finite)
    }

    /// The rows of a range.
    pub(super) fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let bytes = rows.start * self.row_bytes..rows.end * self.row_bytes;
        Self {
            kernels: self.kernels,
            bytes: self.bytes.part(bytes),
            rows: rows.len(),
            ..*self
        }
    }

    /// Rows that are unpacked at once for products with many activations.
    pub(super) fn block_rows(&self) -> usize {
        let rows = (BLOCK_WEIGHTS / self.width).max(BLOCK_ROWS);
        rows.min(self.rows).max(1)
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// Float32 weights of one row.
    pub(super) fn unpack_row(&self, row: usize, weights: &mut [f32]) {
        self.kernels.unpack(self.row(row), weights);
    }

    /// Float32 weights of the rows that fill `weights`, from row `first` on, on all threads.
    pub(super) fn unpack_rows(&self, first: usize, weights: &mut [f32]) {
        let rows = (CHECKED / self.width).max(1);
        weights
            .par_chunks_mut(rows * self.width)
            .zip(self.bytes[first * self.row_bytes..].par_chunks(rows * self.row_bytes))
            .for_each(|(weights, packed)| self.kernels.unpack(packed, weights));
    }

    /// The rows `rows`, rounded to bfloat16, in panels, on all threads.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn unpack_panels(
        &self,
        with: PairProducts,
        rows: std::ops::Range<usize>,
        panels: &mut [Pairs],
    ) {
        let packed = &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes];
        let count = rows.len().div_ceil(PANEL).max(1);
        panels
            .par_chunks_mut((panels.len() / count).max(1))
            .zip(packed.par_chunks(PANEL * self.row_bytes))
            .for_each(|(panel, packed)| {
                (self.kernels).unpack_panel(with, packed, self.row_bytes, panel);
            });
    }

    /// Products of the rows from `first` on with every input, as many as `out` holds: `(rows, inputs)`.
    pub(super) fn products(&self, first: usize, inputs: &[&[f32]], out: &mut [f32]) {
        let rows = out.len() / inputs.len().max(1);
        let packed = &self.bytes[first * self.row_bytes..][..rows * self.row_bytes];
        self.kernels.products(packed, self.row_bytes, inputs, out);
    }
}
