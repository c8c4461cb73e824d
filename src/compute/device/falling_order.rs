//! The order in which a budget keeps keys.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use super::numbers;
use super::program::{Buffer, Launch, Program, Source, size};
use crate::error::{Error, Result};

/// Entries that are sorted in shared memory; a power of two.
const TILE: u32 = 2048;

/// Threads of the blocks that sort tiles, and of all others.
const THREADS: [u32; 2] = [512, 256];

/// Keys of every head by falling weight, ties by lower index.
///
/// Differs: candle's `arg_sort` holds a whole row in shared memory, which long rows do not fit.
/// Shapes: weights `(H, T)`, float32 or float64, without NaN -> `(H, T)`, u32.
/// Errors: [`Error::Candle`]; [`Error::Unsupported`] for other element types.
pub fn falling_order(weights: &Tensor) -> Result<Tensor> {
    let op = FallingOrder::new(weights.dims2()?, weights.dtype())?;
    Ok(weights.contiguous()?.apply_op1_no_bwd(&op)?)
}

/// [`falling_order`] of one shape.
pub struct FallingOrder {
    heads: usize,
    keys: usize,
    /// Operands: weights, order.
    pub program: Program,
}

/// Names of the kernels for one element type, and the bytes of a weight with its index.
struct Kernels {
    tiles: &'static str,
    step: &'static str,
    merge: &'static str,
    order: &'static str,
    entry: usize,
}

const NARROW: Kernels = Kernels {
    tiles: "sort_tiles_f32",
    step: "sort_step_f32",
    merge: "sort_merge_f32",
    order: "sort_order_f32",
    entry: 8,
};

const WIDE: Kernels = Kernels {
    tiles: "sort_tiles_f64",
    step: "sort_step_f64",
    merge: "sort_merge_f64",
    order: "sort_order_f64",
    entry: 16,
};

impl FallingOrder {
    /// For weights `(H, T)` of an element type.
    ///
    /// Errors: as [`falling_order`].
    pub fn new((heads, keys): (usize, usize), dtype: DType) -> Result<Self> {
        let kernels = match dtype {
            DType::F32 => NARROW,
            DType::F64 => WIDE,
            other => {
                return Err(Error::Unsupported {
                    what: "type of weights to sort",
                    found: other.as_str().into(),
                    supported: "f32, f64".into(),
                });
            }
        };
        let mut program = Program::new(Source::FallingOrder);
        if keys > 0 {
            launches(&mut program, &kernels, heads, keys)?;
        }
        Ok(Self {
            heads,
            keys,
            program,
        })
    }
}

fn launches(program: &mut Program, kernels: &Kernels, heads: usize, keys: usize) -> Result<()> {
    let padded = keys.next_power_of_two().max(TILE as usize);
    let entries = program.scratch(kernels.entry * heads * padded);
    let (heads, keys) = (
        size("number of heads", heads)?,
        size("number of keys", keys)?,
    );
    let padded = size("number of keys", padded)?;
    let (tiles, [tile_threads, threads]) = (padded / TILE, THREADS);
    let mut launch = |kernel, blocks, threads, arguments| {
        program.launch(Launch {
            kernel,
            grid: [blocks, heads],
            threads,
            shared: 0,
            arguments,
        })
    };
    let [weights, order] = [0, 1].map(Buffer::Operand);
    launch(
        kernels.tiles,
        tiles,
        tile_threads,
        vec![weights.into(), entries.into(), keys.into()],
    )?;
    let mut run = TILE;
    while run < padded {
        run *= 2;
        let mut stride = run / 2;
        while stride >= TILE {
            launch(
                kernels.step,
                (padded / 2).div_ceil(threads),
                threads,
                vec![entries.into(), padded.into(), run.into(), stride.into()],
            )?;
            stride /= 2;
        }
        launch(
            kernels.merge,
            tiles,
            tile_threads,
            vec![entries.into(), run.into()],
        )?;
    }
    launch(
        kernels.order,
        keys.div_ceil(threads),
        threads,
        vec![entries.into(), order.into(), padded.into(), keys.into()],
    )
}

impl CustomOp1 for FallingOrder {
    fn name(&self) -> &'static str {
        "falling_order"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let weights: Vec<f64> = match storage {
            CpuStorage::F64(_) => numbers::<f64>(storage, layout, self.name())?.to_vec(),
            _ => {
                let weights = numbers::<f32>(storage, layout, self.name())?;
                weights.iter().map(|&w| f64::from(w)).collect()
            }
        };
        let mut orders = Vec::with_capacity(weights.len());
        for weights in weights.chunks(self.keys.max(1)) {
            let mut order: Vec<u32> = (0..weights.len() as u32).collect();
            // Stable: equal weights stay in the order of their indices.
            order.sort_by(|&a, &b| weights[b as usize].total_cmp(&weights[a as usize]));
            orders.extend(order);
        }
        Ok((CpuStorage::U32(orders), (self.heads, self.keys).into()))
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
        let weights = match &storage.slice {
            CudaStorageSlice::F32(weights) => Operand::read(weights, first, &stream),
            CudaStorageSlice::F64(weights) => Operand::read(weights, first, &stream),
            _ => return Err(wrong_type(storage, self.name())),
        };
        let mut order = device.alloc_zeros::<u32>(self.heads * self.keys)?;
        let operands = [weights, Operand::write(&mut order, 0, &stream)];
        run(&self.program, device, &operands)?;
        drop(operands);
        let order = candle_core::CudaStorage::wrap_cuda_slice(order, device.clone());
        Ok((order, (self.heads, self.keys).into()))
    }
}
