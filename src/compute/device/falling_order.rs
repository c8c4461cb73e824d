//! The order that sorts rows by falling number.

use candle_core::{CpuStorage, DType, Tensor};

use super::operation::{OnCpu, Operation};
use super::program::{Buffer, Launch, Program, size, source};
use crate::error::{Error, Result};

/// Entries that are sorted in shared memory; a power of two.
const TILE: u32 = 2048;

/// Threads of the blocks that sort tiles, and of all others.
const THREADS: [u32; 2] = [512, 256];

/// Columns of every row by falling number, ties by lower index.
///
/// Differs: candle's `arg_sort` holds a whole row in shared memory, which long rows do not fit.
/// Shapes: `(rows, columns)`, float32 or float64, without NaN -> `(rows, columns)`, u32.
/// Errors: [`Error::Candle`]; [`Error::Unsupported`] for other element types.
pub fn falling_order(numbers: &Tensor) -> Result<Tensor> {
    FallingOrder::new(numbers.dims2()?, numbers.dtype())?.run(&[numbers])
}

/// [`falling_order`] of one shape.
pub struct FallingOrder {
    columns: usize,
    /// Operands: numbers, order.
    pub program: Program,
}

/// Names of the kernels for one element type, and the bytes of a number with its index.
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
    /// For numbers `(rows, columns)` of an element type.
    ///
    /// Errors: as [`falling_order`].
    pub fn new((rows, columns): (usize, usize), dtype: DType) -> Result<Self> {
        let kernels = match dtype {
            DType::F32 => NARROW,
            DType::F64 => WIDE,
            other => {
                return Err(Error::Unsupported {
                    what: "type of numbers to sort",
                    found: other.as_str().into(),
                    supported: "f32, f64".into(),
                });
            }
        };
        let output = (DType::U32, (rows, columns));
        let mut program = Program::new(source!("falling_order"), [dtype], output);
        if columns > 0 {
            launches(&mut program, &kernels, rows, columns)?;
        }
        Ok(Self { columns, program })
    }
}

fn launches(program: &mut Program, kernels: &Kernels, rows: usize, columns: usize) -> Result<()> {
    let padded = columns.next_power_of_two().max(TILE as usize);
    let entries = program.scratch(kernels.entry * rows * padded);
    let (rows, columns) = (
        size("number of rows", rows)?,
        size("number of columns", columns)?,
    );
    let padded = size("number of columns", padded)?;
    let (tiles, [tile_threads, threads]) = (padded / TILE, THREADS);
    let mut launch = |kernel, blocks, threads, arguments| {
        program.launch(Launch {
            kernel,
            grid: [blocks, rows],
            threads,
            shared: 0,
            arguments,
        })
    };
    let [numbers, order] = [0, 1].map(Buffer::Operand);
    launch(
        kernels.tiles,
        tiles,
        tile_threads,
        vec![numbers.into(), entries.into(), columns.into()],
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
        columns.div_ceil(threads),
        threads,
        vec![entries.into(), order.into(), padded.into(), columns.into()],
    )
}

impl Operation for FallingOrder {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let numbers: Vec<f64> = if self.program.operands == [DType::F64] {
            operands.numbers::<f64>(0)?.to_vec()
        } else {
            let narrow = operands.numbers::<f32>(0)?;
            narrow.iter().map(|&number| f64::from(number)).collect()
        };
        let mut orders = Vec::with_capacity(numbers.len());
        for row in numbers.chunks(self.columns.max(1)) {
            let mut order: Vec<u32> = (0..row.len() as u32).collect();
            // Stable: equal numbers stay in the order of their indices.
            order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
            orders.extend(order);
        }
        Ok(CpuStorage::U32(orders))
    }
}
