//! Programs on a CUDA device.

use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg,
    SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CudaStorage, Result};

use super::program::{Argument, Buffer, Program, Source};

/// Bytes of dynamic shared memory that a block gets without asking.
const SHARED_BY_DEFAULT: u32 = 48 << 10;

/// Memory of a tensor; other streams wait for the program before they touch it.
pub(crate) struct Operand<'a> {
    address: u64,
    _held: SyncOnDrop<'a>,
}

impl<'a> Operand<'a> {
    /// Memory that is read, from an element on.
    pub(crate) fn read<T: DeviceRepr>(
        slice: &'a CudaSlice<T>,
        first: usize,
        stream: &'a CudaStream,
    ) -> Self {
        let (address, held) = slice.device_ptr(stream);
        Self {
            address: address + (first * size_of::<T>()) as u64,
            _held: held,
        }
    }

    /// Memory that is written, from an element on.
    pub(crate) fn write<T: DeviceRepr>(
        slice: &'a mut CudaSlice<T>,
        first: usize,
        stream: &'a CudaStream,
    ) -> Self {
        let (address, held) = slice.device_ptr_mut(stream);
        Self {
            address: address + (first * size_of::<T>()) as u64,
            _held: held,
        }
    }
}

/// Where a contiguous tensor starts in its storage.
pub(crate) fn start(layout: &candle_core::Layout, op: &'static str) -> Result<usize> {
    match layout.contiguous_offsets() {
        Some((from, _)) => Ok(from),
        None => Err(candle_core::Error::RequiresContiguous { op }),
    }
}

/// A tensor of an element type that an operation does not take.
pub(crate) fn wrong_type(storage: &CudaStorage, op: &'static str) -> candle_core::Error {
    use candle_core::backend::BackendStorage;
    candle_core::Error::UnsupportedDTypeForOp(storage.dtype(), op)
}

/// Runs a program; it goes on while this returns.
///
/// Errors: those of the driver.
pub(crate) fn run(program: &Program, device: &CudaDevice, operands: &[Operand<'_>]) -> Result<()> {
    // SAFETY: a program's kernels write scratch memory before they read it.
    let scratch: Vec<CudaSlice<u8>> = (program.scratch.iter())
        .map(|&bytes| unsafe { device.alloc::<u8>(bytes.max(1)) })
        .collect::<Result<_>>()?;
    let stream = device.cuda_stream();
    let scratch: Vec<Operand<'_>> = (scratch.iter())
        .map(|slice| Operand::read(slice, 0, &stream))
        .collect();
    let address = |buffer| match buffer {
        Buffer::Operand(i) => operands[i].address,
        Buffer::Scratch(i) => scratch[i].address,
    };
    for launch in &program.launches {
        let (name, code) = code(program.source);
        let function = device.get_or_load_custom_func(launch.kernel, name, code)?;
        if launch.shared > SHARED_BY_DEFAULT {
            let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, launch.shared as i32).w()?;
        }
        let addresses: Vec<u64> = (launch.arguments.iter())
            .map(|argument| match argument {
                Argument::Address(buffer, from) => address(*buffer) + *from as u64,
                _ => 0,
            })
            .collect();
        let mut builder = function.builder();
        for (argument, address) in launch.arguments.iter().zip(&addresses) {
            match argument {
                Argument::Address(..) => builder.arg(address),
                Argument::U32(number) => builder.arg(number),
                Argument::F32(number) => builder.arg(number),
                Argument::F64(number) => builder.arg(number),
                Argument::Eight(numbers) => builder.arg(numbers),
            };
        }
        let [x, y] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared,
        };
        // SAFETY: programs give kernels the arguments that they declare, and buffers of the sizes that they
        // index; the emulated tests check both.
        unsafe { builder.launch(config) }.w()?;
    }
    Ok(())
}

/// Name and PTX of a source.
fn code(source: Source) -> (&'static str, &'static str) {
    macro_rules! ptx {
        ($name:literal) => {
            (
                concat!("kvprof_", $name),
                include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")),
            )
        };
    }
    match source {
        Source::CountsToMass => ptx!("counts_to_mass"),
        Source::RowSums => ptx!("row_sums"),
        Source::PrefillAttention => ptx!("prefill_attention"),
        Source::RaggedAttention => ptx!("ragged_attention"),
        Source::FallingOrder => ptx!("falling_order"),
        Source::PrefixSums => ptx!("prefix_sums"),
        Source::RunningSums => ptx!("running_sums"),
        Source::RowPooling => ptx!("row_pooling"),
        Source::RowNorms => ptx!("row_norms"),
        Source::LargestEntries => ptx!("largest_entries"),
    }
}
