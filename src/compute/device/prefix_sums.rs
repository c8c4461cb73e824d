//! Running sums along the rows of a matrix.

use candle_core::{CpuStorage, DType, Tensor};

use super::operation::{OnCpu, Operation};
use super::program::{Buffer, Launch, Program, size, source};
use crate::error::Result;

/// Threads of a block, and numbers that it brings at once.
const THREADS: u32 = 256;

/// Running sums of every row.
///
/// Differs: added one after another, so that every device gives the same bits.
/// Shapes: `(rows, columns)`, float64 -> the same.
/// Errors: [`crate::error::Error::Candle`]; [`crate::error::Error::Invalid`] for sizes beyond 32 bits.
pub fn prefix_sums(numbers: &Tensor) -> Result<Tensor> {
    PrefixSums::new(numbers.dims2()?)?.run(&[numbers])
}

/// [`prefix_sums`] of one shape.
pub struct PrefixSums {
    columns: usize,
    /// Operands: numbers, sums.
    pub program: Program,
}

impl PrefixSums {
    /// For numbers `(rows, columns)`.
    ///
    /// Errors: as [`prefix_sums`].
    pub fn new((rows, columns): (usize, usize)) -> Result<Self> {
        let output = (DType::F64, (rows, columns));
        let mut program = Program::new(source!("prefix_sums"), [DType::F64], output);
        program.launch(Launch {
            kernel: "prefix_sums",
            grid: [size("number of rows", rows)?, 1],
            threads: THREADS,
            shared: 0,
            arguments: vec![
                Buffer::Operand(0).into(),
                Buffer::Operand(1).into(),
                size("number of columns", columns)?.into(),
            ],
        })?;
        Ok(Self { columns, program })
    }
}

impl Operation for PrefixSums {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let numbers = operands.numbers::<f64>(0)?;
        let mut sums = Vec::with_capacity(numbers.len());
        for row in numbers.chunks(self.columns.max(1)) {
            let mut sum = 0.0;
            sums.extend(row.iter().map(|number| {
                sum += number;
                sum
            }));
        }
        Ok(CpuStorage::F64(sums))
    }
}
