//! Running sums down the columns of a matrix.

use candle_core::{CpuStorage, DType, Tensor};

use super::operation::{OnCpu, Operation};
use super::program::{Buffer, Launch, Program, size, source};
use crate::error::Result;

/// Rows that one thread walks through; sums over them are added up before the next are.
const STRETCH: usize = 64;

/// Threads of a block, each with a column of its own.
const THREADS: u32 = 128;

/// Sums of the first rows of a matrix, for every number of rows.
///
/// Differs: candle's `cumsum` multiplies with a triangle, which is quadratic. Sums are float64 over stretches
/// of rows and rounded once.
/// Shapes: `(rows, columns)`, float32 -> the same.
/// Errors: [`crate::error::Error::Candle`]; [`crate::error::Error::Invalid`] for more rows than a device takes.
pub fn running_sums(values: &Tensor) -> Result<Tensor> {
    RunningSums::new(values.dims2()?)?.run(&[values])
}

/// [`running_sums`] of one shape.
pub struct RunningSums {
    columns: usize,
    /// Operands: values, sums.
    pub program: Program,
}

impl RunningSums {
    /// For values `(rows, columns)`.
    ///
    /// Errors: as [`running_sums`].
    pub fn new((rows, columns): (usize, usize)) -> Result<Self> {
        let output = (DType::F32, (rows, columns));
        let mut program = Program::new(source!("running_sums"), [DType::F32], output);
        let stretches = rows.div_ceil(STRETCH);
        let totals = program.scratch(8 * stretches * columns);
        let blocks = size("number of columns", columns)?.div_ceil(THREADS);
        let (high, wide) = (
            size("number of rows", rows)?,
            size("number of columns", columns)?,
        );
        let mut launch = |kernel, blocks_of_rows, arguments| {
            program.launch(Launch {
                kernel,
                grid: [blocks, blocks_of_rows],
                threads: THREADS,
                shared: 0,
                arguments,
            })
        };
        let [values, sums] = [0, 1].map(Buffer::Operand);
        let (many, stretch) = (stretches as u32, STRETCH as u32);
        if rows > 0 {
            launch(
                "running_totals",
                many,
                vec![
                    values.into(),
                    totals.into(),
                    high.into(),
                    wide.into(),
                    stretch.into(),
                ],
            )?;
            launch(
                "running_offsets",
                1,
                vec![totals.into(), many.into(), wide.into()],
            )?;
            launch(
                "running_sums",
                many,
                vec![
                    values.into(),
                    totals.into(),
                    sums.into(),
                    high.into(),
                    wide.into(),
                    stretch.into(),
                ],
            )?;
        }
        Ok(Self { columns, program })
    }
}

impl Operation for RunningSums {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let values = operands.numbers::<f32>(0)?;
        let columns = self.columns.max(1);
        let mut sums = Vec::with_capacity(values.len());
        let mut before = vec![0f64; columns];
        for stretch in values.chunks(STRETCH * columns) {
            let mut own = vec![0f64; columns];
            let mut running = before.clone();
            for row in stretch.chunks(columns) {
                for (column, &value) in row.iter().enumerate() {
                    own[column] += f64::from(value);
                    running[column] += f64::from(value);
                }
                sums.extend(running[..row.len()].iter().map(|&sum| sum as f32));
            }
            before.iter_mut().zip(own).for_each(|(b, own)| *b += own);
        }
        Ok(CpuStorage::F32(sums))
    }
}
