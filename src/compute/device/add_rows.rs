//! Sums over rows of attention, kept where the rows are.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor};

use super::operation::numbers;
use super::program::{Buffer, Launch, Program, size, source};
use crate::compute::rounding::rounding_for_sums;
use crate::error::{Error, Result};

/// Threads of a block, each with a key of its own.
const THREADS: u32 = 128;

/// Adds the rows from `first_row` on to sums over at most `rows_in_all` rows.
///
/// Differs: rounds as [`crate::model::attention::RowSums`] does, so that the sums are the same in any order.
/// Shapes: sums `(G, T)`, float64, contiguous (a view of a larger tensor's heads will do); probabilities
/// `(G, rows, keys)`, float32, of the first keys.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for shapes that do not match.
pub fn add_rows(
    sums: &Tensor,
    probabilities: &Tensor,
    first_row: usize,
    rows_in_all: usize,
) -> Result<()> {
    let op = AddRows::new(
        sums.dims2()?,
        probabilities.dims3()?,
        first_row,
        rows_in_all,
    )?;
    Ok(sums.inplace_op2(&probabilities.contiguous()?, &op)?)
}

/// Adds all rows to sums, one after another and without rounding.
///
/// Differs: such sums depend on the order in which rows come, on every device in the same way.
/// Shapes and errors: as [`add_rows`].
pub fn add_rows_in_order(sums: &Tensor, probabilities: &Tensor) -> Result<()> {
    let op = AddRows::in_order(sums.dims2()?, probabilities.dims3()?)?;
    Ok(sums.inplace_op2(&probabilities.contiguous()?, &op)?)
}

/// [`add_rows`] of one shape.
pub struct AddRows {
    rows: usize,
    first_row: usize,
    keys: usize,
    width: usize,
    /// Adding and subtracting it rounds; 0 does not.
    rounding: f64,
    /// Operands: probabilities, sums.
    pub program: Program,
}

impl AddRows {
    /// For sums `(G, T)` and probabilities `(G, rows, keys)`.
    ///
    /// Errors: as [`add_rows`].
    pub fn new(
        sums: (usize, usize),
        rows: (usize, usize, usize),
        first_row: usize,
        rows_in_all: usize,
    ) -> Result<Self> {
        Self::rounded(sums, rows, first_row, rounding_for_sums(rows_in_all))
    }

    /// The same for all rows and without rounding; see [`add_rows_in_order`].
    ///
    /// Errors: as [`add_rows`].
    pub fn in_order(sums: (usize, usize), rows: (usize, usize, usize)) -> Result<Self> {
        Self::rounded(sums, rows, 0, 0.0)
    }

    fn rounded(
        (heads, width): (usize, usize),
        (group, rows, keys): (usize, usize, usize),
        first_row: usize,
        rounding: f64,
    ) -> Result<Self> {
        if heads != group || keys > width {
            let bound = format!("the sums are of {heads} heads and {width} keys");
            return Err(Error::invalid(
                "shape of attention rows",
                format!("{group} heads and {keys} keys"),
                bound,
            ));
        }
        let output = (DType::F64, (heads, width));
        let mut program = Program::new(source!("row_sums"), [DType::F32], output);
        if first_row < rows {
            program.launch(Launch {
                kernel: "row_sums",
                grid: [
                    size("number of keys", keys)?.div_ceil(THREADS),
                    size("size of a group", group)?,
                ],
                threads: THREADS,
                shared: 0,
                arguments: vec![
                    Buffer::Operand(0).into(),
                    Buffer::Operand(1).into(),
                    size("number of rows", rows)?.into(),
                    size("number of rows", first_row)?.into(),
                    size("number of keys", keys)?.into(),
                    size("number of keys", width)?.into(),
                    rounding.into(),
                ],
            })?;
        }
        Ok(Self {
            rows,
            first_row,
            keys,
            width,
            rounding,
            program,
        })
    }
}

impl InplaceOp2 for AddRows {
    fn name(&self) -> &'static str {
        "add_rows"
    }

    fn cpu_fwd(
        &self,
        sums: &mut CpuStorage,
        sums_layout: &Layout,
        probabilities: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        let probabilities = numbers::<f32>(probabilities, layout, self.name())?;
        let (CpuStorage::F64(sums), Some((from, to))) = (sums, sums_layout.contiguous_offsets())
        else {
            candle_core::bail!("{}: the sums must be float64 and contiguous", self.name());
        };
        let lines = sums[from..to].chunks_mut(self.width.max(1));
        let heads = probabilities.chunks((self.rows * self.keys).max(1));
        for (sums, rows) in lines.zip(heads) {
            for row in rows.chunks(self.keys.max(1)).skip(self.first_row) {
                for (sum, &p) in sums.iter_mut().zip(row) {
                    *sum += (f64::from(p) + self.rounding) - self.rounding;
                }
            }
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        sums: &mut candle_core::CudaStorage,
        sums_layout: &Layout,
        probabilities: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        use super::cuda::{Operand, run, start};
        let device = sums.device.clone();
        let stream = device.cuda_stream();
        let first = start(sums_layout, self.name())?;
        let probabilities_first = start(layout, self.name())?;
        let probabilities = probabilities.as_cuda_slice::<f32>()?;
        let sums = sums.as_cuda_slice_mut::<f64>()?;
        let operands = [
            Operand::read(probabilities, probabilities_first, &stream),
            Operand::write(sums, first, &stream),
        ];
        run(&self.program, &device, &operands)
    }
}
