//! Operations on tensors: each a program of a CUDA device, and its twin on the CPU.

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, Device, Layout, Storage, Tensor, WithDType};

use super::program::Program;
use crate::error::{Error, Result};

/// What a [`Program`] computes, for operands of one shape.
pub(crate) trait Operation {
    /// How a CUDA device does it.
    fn program(&self) -> &Program;

    /// How the CPU does it.
    ///
    /// Errors: those of [`OnCpu::numbers`].
    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage>;

    /// The output, on the device that the operands are on.
    ///
    /// Errors: [`Error::Candle`] for operands of other types or on another device than the first; [`Error::Unsupported`]
    /// on devices without kernels.
    fn run(&self, operands: &[&Tensor]) -> Result<Tensor> {
        let program = self.program();
        let name = program.source.name;
        let contiguous = operands.iter().map(|operand| operand.contiguous());
        let operands: Vec<Tensor> = contiguous.collect::<candle_core::Result<_>>()?;
        for (operand, dtype) in operands.iter().zip(&program.operands) {
            if operand.dtype() != *dtype {
                return Err(
                    candle_core::Error::UnsupportedDTypeForOp(operand.dtype(), name).into(),
                );
            }
        }
        let held: Vec<_> = operands.iter().map(Tensor::storage_and_layout).collect();
        let held = held.iter().map(|(storage, layout)| (&**storage, *layout));
        let held: Vec<(&Storage, &Layout)> = held.collect();
        let device = operands.first().map_or(&Device::Cpu, Tensor::device);
        let storage = match device {
            Device::Cpu => Storage::Cpu(self.on_cpu(&OnCpu { name, held })?),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Storage::Cuda(super::cuda::output(program, device, &held)?),
            other => {
                return Err(Error::Unsupported {
                    what: "device",
                    found: format!("{:?} for {name}", other.location()),
                    supported: "the CPU, and CUDA where it was built in".into(),
                });
            }
        };
        let shape = program.output.1.clone();
        Ok(Tensor::from_storage(
            storage,
            shape,
            BackpropOp::none(),
            false,
        ))
    }
}

/// Operands on the CPU.
pub(crate) struct OnCpu<'a> {
    name: &'static str,
    held: Vec<(&'a Storage, &'a Layout)>,
}

impl<'a> OnCpu<'a> {
    /// The numbers of an operand.
    ///
    /// Errors: [`candle_core::Error`] for one that is of another type or elsewhere.
    pub(crate) fn numbers<T: WithDType>(&self, operand: usize) -> candle_core::Result<&'a [T]> {
        match self.held[operand] {
            (Storage::Cpu(storage), layout) => numbers(storage, layout, self.name),
            _ => candle_core::bail!("{}: operand {operand} is on another device", self.name),
        }
    }
}

/// The numbers of a contiguous tensor on the CPU.
pub(super) fn numbers<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
    op: &'static str,
) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<T>()?[from..to]),
        None => Err(candle_core::Error::RequiresContiguous { op }),
    }
}
