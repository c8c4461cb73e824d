//! Linear layers: dense matrices on any device, or quantised ones that stay packed on the CPU.
//!
//! Packed weights are the file's own bytes. Few activations are multiplied while the bytes are read
//! once ([`few_rows`]); many are multiplied by blocks of unpacked rows ([`many_rows`]). Both see the
//! float32 weights that dequantising everything would give; a bfloat16 model's many activations see them rounded
//! where that is faster, and where it is asked for many activations are multiplied as integers ([`tiled`]).

#[cfg(target_arch = "x86_64")]
mod bfloat16;
pub(super) mod blocks;
mod few_rows;
mod kernels;
mod many_rows;
mod packed;
#[cfg(target_arch = "x86_64")]
mod panels;
mod products;
mod stored;
#[cfg(test)]
mod tests;
mod tiled;

use candle_core::{CpuStorage, Device, Storage, Tensor};

pub use packed::Packed;
pub use products::Products;
pub use stored::StoredBytes;

use crate::error::{Error, Result};

/// Whether this processor multiplies pairs of bfloat16 numbers, which is what products in bfloat16 need on a CPU.
pub(crate) fn multiplies_bfloat16_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return panels::PairProducts::of_this_processor().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Most activations for which unpacking in registers beats unpacking to memory.
const FEW_ROWS: usize = 16;

/// A matrix `(rows, width)`.
pub enum Matrix {
    /// Unpacked, on any device and of any element type.
    Dense(Tensor),
    /// As in the file, on the CPU, for float32 activations.
    Packed(Packed),
}

impl Matrix {
    /// `x` `(n, width)` times the transposed matrix: `(n, rows)`.
    pub fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(matrix) => Ok(x.matmul(&matrix.t()?)?),
            Self::Packed(matrix) => {
                let (n, width) = x.dims2()?;
                matrix.check_width(width)?;
                let values = with_float32(x, |x| {
                    if n > FEW_ROWS {
                        return many_rows::multiply(matrix, x, n);
                    }
                    let mut products = few_rows::multiply(&[matrix], x, n);
                    products.pop().unwrap_or_default()
                })?;
                Ok(Tensor::from_vec(values, (n, matrix.rows()), &Device::Cpu)?)
            }
        }
    }

    /// The same with products of another kind, where it is packed and there are many activations.
    pub fn multiplied_as(self, products: Products) -> Self {
        match self {
            Self::Dense(_) => self,
            Self::Packed(matrix) => Self::Packed(matrix.multiplied_as(products)),
        }
    }

    /// Whether many activations are multiplied as integers.
    pub(crate) fn multiplies_integers(&self) -> bool {
        match self {
            Self::Dense(_) => false,
            Self::Packed(matrix) => matrix.integers().is_some(),
        }
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(matrix) => tensor_bytes(matrix),
            Self::Packed(matrix) => matrix.bytes(),
        }
    }

    /// The rows of an embedding that belong to `ids`, `(ids, width)`.
    pub fn select(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Dense(matrix) => {
                let index = Tensor::new(ids, matrix.device())?;
                Ok(matrix.index_select(&index, 0)?)
            }
            Self::Packed(matrix) => {
                let mut values = vec![0f32; ids.len() * matrix.width()];
                for (&id, row) in ids.iter().zip(values.chunks_exact_mut(matrix.width())) {
                    matrix.unpack_row(id as usize, row);
                }
                let shape = (ids.len(), matrix.width());
                Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
            }
        }
    }

    /// The matrix as a tensor; packed ones are unpacked for it.
    pub fn dense(&self) -> Result<Tensor> {
        match self {
            Self::Dense(matrix) => Ok(matrix.clone()),
            Self::Packed(matrix) => {
                let mut values = vec![0f32; matrix.rows() * matrix.width()];
                matrix.unpack_rows(0, &mut values);
                let shape = (matrix.rows(), matrix.width());
                Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
            }
        }
    }
}

impl Packed {
    fn check_width(&self, width: usize) -> Result<()> {
        if width == self.width() {
            return Ok(());
        }
        Err(Error::Candle(candle_core::Error::msg(format!(
            "activations of width {width} for a matrix of width {}",
            self.width()
        ))))
    }
}

/// A matrix `(out, in)` applied to rows of activations, with an optional bias.
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.with_bias(self.matrix.multiply(x)?)
    }

    /// Bytes of matrix and bias.
    pub(crate) fn bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, tensor_bytes)
    }

    fn with_bias(&self, y: Tensor) -> Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    /// Several layers applied to the same activations, with one start of the threads where that counts.
    pub(crate) fn forward_all<const N: usize>(
        layers: [&Self; N],
        x: &Tensor,
    ) -> Result<[Tensor; N]> {
        let (n, width) = x.dims2()?;
        let packed: Vec<&Packed> = (layers.iter())
            .filter_map(|layer| match &layer.matrix {
                Matrix::Packed(matrix) if matrix.width() == width => Some(matrix),
                _ => None,
            })
            .collect();
        let mut outputs = Vec::with_capacity(N);
        if n <= FEW_ROWS && packed.len() == N {
            let values = with_float32(x, |x| few_rows::multiply(&packed, x, n))?;
            for ((layer, matrix), values) in layers.iter().zip(&packed).zip(values) {
                let y = Tensor::from_vec(values, (n, matrix.rows()), &Device::Cpu)?;
                outputs.push(layer.with_bias(y)?);
            }
        } else {
            for layer in layers {
                outputs.push(layer.forward(x)?);
            }
        }
        outputs
            .try_into()
            .map_err(|_| Error::Candle(candle_core::Error::msg("a linear layer gave no output")))
    }

    /// The layer taken apart into layers of so many outputs each, which must be all that there are.
    pub(crate) fn split<const N: usize>(self, outputs: [usize; N]) -> Result<[Self; N]> {
        let mut start = 0;
        let parts = outputs.map(|count| {
            let rows = start..start + count;
            start = rows.end;
            let narrow = |x: &Tensor| x.narrow(0, rows.start, count)?.contiguous();
            let matrix = match &self.matrix {
                Matrix::Dense(matrix) => Matrix::Dense(narrow(matrix)?),
                Matrix::Packed(matrix) => Matrix::Packed(matrix.part(rows.clone())),
            };
            let bias = self.bias.as_ref().map(narrow).transpose()?;
            Ok(Self { matrix, bias })
        });
        let parts: Vec<Self> = parts.into_iter().collect::<Result<_>>()?;
        parts
            .try_into()
            .map_err(|_| Error::Candle(candle_core::Error::msg("a layer lost one of its parts")))
    }
}

/// Bytes of a tensor's numbers.
pub(crate) fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// Runs `work` on the elements of a float32 tensor on the CPU.
fn with_float32<R>(x: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => Ok(work(&data[start..end])),
        _ => Err(Error::Candle(candle_core::Error::msg(
            "packed weights take float32 activations on the CPU",
        ))),
    }
}
