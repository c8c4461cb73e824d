//! Programs on a CUDA device.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg,
    SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, WrapErr};
use candle_core::{CudaStorage, DType, Error, Layout, Result, Storage};
use half::{bf16, f16};

use super::program::{Argument, Buffer, Program, Source};

/// Bytes of dynamic shared memory that a block gets without asking.
const SHARED_BY_DEFAULT: u32 = 48 << 10;

/// Memory of a tensor; other streams wait for the program before they touch it.
pub(super) struct Operand<'a> {
    address: u64,
    _held: SyncOnDrop<'a>,
}

impl<'a> Operand<'a> {
    /// Memory that is read, from an element on.
    pub(super) fn read<T: DeviceRepr>(
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
    pub(super) fn write<T: DeviceRepr>(
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
pub(super) fn start(layout: &Layout, op: &'static str) -> Result<usize> {
    match layout.contiguous_offsets() {
        Some((from, _)) => Ok(from),
        None => Err(Error::RequiresContiguous { op }),
    }
}

/// An operand that a program reads, from an element on.
fn readable<'a>(
    storage: &'a Storage,
    first: usize,
    stream: &'a CudaStream,
    name: &'static str,
) -> Result<Operand<'a>> {
    use CudaStorageSlice::{BF16, F16, F32, F64, U32};
    let Storage::Cuda(storage) = storage else {
        candle_core::bail!("{name}: an operand is on another device");
    };
    Ok(match &storage.slice {
        F32(slice) => Operand::read(slice, first, stream),
        F64(slice) => Operand::read(slice, first, stream),
        U32(slice) => Operand::read(slice, first, stream),
        F16(slice) => Operand::read(slice, first, stream),
        BF16(slice) => Operand::read(slice, first, stream),
        _ => return Err(Error::UnsupportedDTypeForOp(storage.dtype(), name)),
    })
}

/// What a program gives for operands on its device.
///
/// Errors: those of the driver; [`candle_core::Error`] for operands elsewhere, and types that no kernel takes.
pub(super) fn output(
    program: &Program,
    device: &CudaDevice,
    operands: &[(&Storage, &Layout)],
) -> Result<CudaStorage> {
    let name = program.source.name;
    let stream = device.cuda_stream();
    macro_rules! written {
        ($type:ty) => {{
            let mut output = device.alloc_zeros::<$type>(program.output.1.elem_count())?;
            let mut all = Vec::with_capacity(operands.len() + 1);
            for (storage, layout) in operands {
                all.push(readable(storage, start(layout, name)?, &stream, name)?);
            }
            all.push(Operand::write(&mut output, 0, &stream));
            run(program, device, &all)?;
            drop(all);
            Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
        }};
    }
    match program.output.0 {
        DType::F32 => written!(f32),
        DType::F64 => written!(f64),
        DType::U32 => written!(u32),
        DType::F16 => written!(f16),
        DType::BF16 => written!(bf16),
        other => Err(Error::UnsupportedDTypeForOp(other, name)),
    }
}

/// Runs a program; it goes on while this returns.
///
/// Errors: those of the driver.
pub(super) fn run(program: &Program, device: &CudaDevice, operands: &[Operand<'_>]) -> Result<()> {
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
    let Source { name, ptx } = program.source;
    let module = format!("kvprof_{name}");
    for launch in &program.launches {
        let function = device.get_or_load_custom_func(launch.kernel, &module, ptx)?;
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
