//! What every number of a head's best keys holds.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::numbers;
use super::program::{Buffer, Launch, Program, Source, size};
use crate::error::Result;

/// Threads of a block, and weights that it brings at once.
const THREADS: u32 = 256;

/// Running sums of weights in their order.
///
/// Differs: added one after another, so that every device gives the same bits.
/// Shapes: `(H, T)`, float64, in the order in which budgets keep keys -> `(H, T)`.
/// Errors: [`crate::error::Error::Candle`].
pub fn prefix_sums(sorted: &Tensor) -> Result<Tensor> {
    let op = PrefixSums::new(sorted.dims2()?)?;
    Ok(sorted.contiguous()?.apply_op1_no_bwd(&op)?)
}

/// [`prefix_sums`] of one shape.
pub struct PrefixSums {
    heads: usize,
    keys: usize,
    /// Operands: weights, sums.
    pub program: Program,
}

impl PrefixSums {
    /// For weights `(H, T)`.
    ///
    /// Errors: [`crate::error::Error::Invalid`] for sizes beyond 32 bits.
    pub fn new((heads, keys): (usize, usize)) -> Result<Self> {
        let mut program = Program::new(Source::PrefixSums);
        program.launch(Launch {
            kernel: "prefix_sums",
            grid: [size("number of heads", heads)?, 1],
            threads: THREADS,
            shared: 0,
            arguments: vec![
                Buffer::Operand(0).into(),
                Buffer::Operand(1).into(),
                size("number of keys", keys)?.into(),
            ],
        })?;
        Ok(Self {
            heads,
            keys,
            program,
        })
    }
}

impl CustomOp1 for PrefixSums {
    fn name(&self) -> &'static str {
        "prefix_sums"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let sorted = numbers::<f64>(storage, layout, self.name())?;
        let mut sums = Vec::with_capacity(sorted.len());
        for head in sorted.chunks(self.keys.max(1)) {
            let mut sum = 0.0;
            sums.extend(head.iter().map(|weight| {
                sum += weight;
                sum
            }));
        }
        Ok((CpuStorage::F64(sums), (self.heads, self.keys).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{Operand, run, start};
        let device = &storage.device;
        let stream = device.cuda_stream();
        let first = start(layout, self.name())?;
        let sorted = storage.as_cuda_slice::<f64>()?;
        let mut sums = device.alloc_zeros::<f64>(self.heads * self.keys)?;
        let operands = [
            Operand::read(sorted, first, &stream),
            Operand::write(&mut sums, 0, &stream),
        ];
        run(&self.program, device, &operands)?;
        drop(operands);
        let sums = candle_core::CudaStorage::wrap_cuda_slice(sums, device.clone());
        Ok((sums, (self.heads, self.keys).into()))
    }
}
