//! Norms of keys, where the cache holds them.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, WithDType};

use super::numbers;
use super::program::{Buffer, Launch, Program, Source, size};
use crate::error::{Error, Result};

/// Threads of a block, each with a key of its own.
const THREADS: u32 = 128;

/// L2 norm of every key of a head.
///
/// Differs: squares are added column by column in float64, so that every device gives the same bits.
/// Shapes: `(T, D)`, of f32, f16 or bf16 -> `(T)`, float64.
/// Errors: [`Error::Candle`]; [`Error::Unsupported`] for other element types.
pub fn row_norms(keys: &Tensor) -> Result<Tensor> {
    let op = RowNorms::new(keys.dims2()?, keys.dtype())?;
    Ok(keys.contiguous()?.apply_op1_no_bwd(&op)?)
}

/// [`row_norms`] of one shape.
pub struct RowNorms {
    keys: usize,
    d: usize,
    /// Operands: keys, norms.
    pub program: Program,
}

impl RowNorms {
    /// For keys `(T, D)` of an element type.
    ///
    /// Errors: as [`row_norms`].
    pub fn new((keys, d): (usize, usize), dtype: DType) -> Result<Self> {
        let kernel = match dtype {
            DType::F32 => "row_norms_f32",
            DType::F16 => "row_norms_f16",
            DType::BF16 => "row_norms_bf16",
            other => {
                return Err(Error::Unsupported {
                    what: "type of keys",
                    found: other.as_str().into(),
                    supported: "f32, f16, bf16".into(),
                });
            }
        };
        let mut program = Program::new(Source::RowNorms);
        let count = size("number of keys", keys)?;
        program.launch(Launch {
            kernel,
            grid: [count.div_ceil(THREADS), 1],
            threads: THREADS,
            shared: 0,
            arguments: vec![
                Buffer::Operand(0).into(),
                Buffer::Operand(1).into(),
                count.into(),
                size("head dimension", d)?.into(),
            ],
        })?;
        Ok(Self { keys, d, program })
    }

    fn on_cpu<T: WithDType>(&self, keys: &[T]) -> CpuStorage {
        let norm = |key: usize| {
            let key = keys[key * self.d..][..self.d].iter();
            let squares = key.map(|x| x.to_f64() * x.to_f64());
            squares.sum::<f64>().sqrt()
        };
        CpuStorage::F64((0..self.keys).map(norm).collect())
    }
}

impl CustomOp1 for RowNorms {
    fn name(&self) -> &'static str {
        "row_norms"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let norms = match storage {
            CpuStorage::F16(_) => self.on_cpu::<half::f16>(numbers(storage, layout, self.name())?),
            CpuStorage::BF16(_) => {
                self.on_cpu::<half::bf16>(numbers(storage, layout, self.name())?)
            }
            _ => self.on_cpu::<f32>(numbers(storage, layout, self.name())?),
        };
        Ok((norms, self.keys.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{Operand, run, start, wrong_type};
        use candle_core::cuda_backend::CudaStorageSlice;
        let device = &storage.device;
        let stream = device.cuda_stream();
        let first = start(layout, self.name())?;
        let keys = match &storage.slice {
            CudaStorageSlice::F32(keys) => Operand::read(keys, first, &stream),
            CudaStorageSlice::F16(keys) => Operand::read(keys, first, &stream),
            CudaStorageSlice::BF16(keys) => Operand::read(keys, first, &stream),
            _ => return Err(wrong_type(storage, self.name())),
        };
        let mut norms = device.alloc_zeros::<f64>(self.keys)?;
        let operands = [keys, Operand::write(&mut norms, 0, &stream)];
        run(&self.program, device, &operands)?;
        drop(operands);
        let norms = candle_core::CudaStorage::wrap_cuda_slice(norms, device.clone());
        Ok((norms, self.keys.into()))
    }
}
