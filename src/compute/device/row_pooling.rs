//! Rows pooled over neighbouring columns and reduced in groups.

use candle_core::{CpuStorage, DType, Tensor};
use serde::{Deserialize, Serialize};

use super::operation::{OnCpu, Operation};
use super::program::{Buffer, Launch, Program, size, source};
use crate::error::{Error, Result};

/// Threads of a block, each with a column of its own.
const THREADS: u32 = 128;

/// How neighbouring numbers are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The largest of the kernel.
    Max,
    /// The mean of the kernel; beyond the ends it counts zeros.
    Avg,
    /// Not at all.
    None,
}

/// How the rows of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupReduce {
    /// Their mean.
    Mean,
    /// Their maximum.
    Max,
}

/// Which comes first; it matters wherever one of the two is a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Pool every row, then reduce the group.
    PoolFirst,
    /// Reduce the group, then pool.
    ReduceFirst,
}

/// What [`pool_rows`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPooling {
    /// Rows that become one.
    pub rows: usize,
    /// How they do.
    pub group: GroupReduce,
    /// First columns, whose numbers count; the others' become zero.
    pub prefix: usize,
    /// How neighbours are pooled.
    pub pooling: Pooling,
    /// Width of the pooling, odd.
    pub kernel: usize,
    /// Pooling or reduction first.
    pub order: Order,
}

impl RowPooling {
    /// The mean over groups of `rows` rows, for all `columns`, and nothing else.
    pub fn mean_of_groups(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            group: GroupReduce::Mean,
            prefix: columns,
            pooling: Pooling::None,
            kernel: 1,
            order: Order::PoolFirst,
        }
    }
}

/// One row per group: pooled over neighbouring columns, reduced over the group's rows.
///
/// Differs: in float64, added column by column and row by row, so that every device gives the same bits; maxima leave
/// out negative numbers and what is none.
/// Shapes: `(rows, columns)`, float64 -> `(groups, columns)`.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for rows that are no whole groups, or a kernel that is not odd.
pub fn pool_rows(numbers: &Tensor, how: RowPooling) -> Result<Tensor> {
    PoolRows::new(numbers.dims2()?, how)?.run(&[numbers])
}

/// [`pool_rows`] of one shape.
pub struct PoolRows {
    how: RowPooling,
    columns: usize,
    /// Operands: numbers, pooled ones.
    pub program: Program,
}

impl PoolRows {
    /// For numbers `(rows, columns)`.
    ///
    /// Errors: as [`pool_rows`].
    pub fn new((rows, columns): (usize, usize), mut how: RowPooling) -> Result<Self> {
        if how.rows == 0 || !rows.is_multiple_of(how.rows) {
            let bound = format!("it must divide the {rows} query heads");
            return Err(Error::invalid("size of a group", how.rows, bound));
        }
        if how.kernel.is_multiple_of(2) {
            let bound = "the kernel of the pooling must be odd, to be centred on a token";
            return Err(Error::invalid("kernel", how.kernel, bound));
        }
        how.prefix = how.prefix.min(columns);
        let groups = rows / how.rows;
        let output = (DType::F64, (groups, columns));
        let mut program = Program::new(source!("row_pooling"), [DType::F64], output);
        let wide = size("number of columns", columns)?;
        program.launch(Launch {
            kernel: "pool_rows",
            grid: [wide.div_ceil(THREADS), size("number of groups", groups)?],
            threads: THREADS,
            shared: 0,
            arguments: vec![
                Buffer::Operand(0).into(),
                Buffer::Operand(1).into(),
                size("size of a group", how.rows)?.into(),
                wide.into(),
                (how.prefix as u32).into(),
                match how.pooling {
                    Pooling::Max => 0,
                    Pooling::Avg => 1,
                    Pooling::None => 2,
                }
                .into(),
                size("kernel", how.kernel / 2)?.into(),
                u32::from(how.group == GroupReduce::Max).into(),
                u32::from(how.order == Order::ReduceFirst).into(),
            ],
        })?;
        Ok(Self {
            how,
            columns,
            program,
        })
    }

    /// The row that a group's rows become.
    fn pooled(&self, rows: &[&[f64]]) -> Vec<f64> {
        let rows: Vec<&[f64]> = rows.iter().map(|row| &row[..self.how.prefix]).collect();
        let mut pooled = match (self.how.pooling, self.how.order) {
            (Pooling::None, _) => self.reduce(&rows),
            (_, Order::PoolFirst) => {
                let pooled: Vec<Vec<f64>> = rows.iter().map(|row| self.pool(row)).collect();
                self.reduce(&pooled.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            (_, Order::ReduceFirst) => self.pool(&self.reduce(&rows)),
        };
        pooled.resize(self.columns, 0.0);
        pooled
    }

    fn pool(&self, row: &[f64]) -> Vec<f64> {
        let reach = self.how.kernel / 2;
        let around = |i: usize| {
            let end = row.len().min(i.saturating_add(reach).saturating_add(1));
            row[i.saturating_sub(reach)..end].iter().copied()
        };
        let columns = 0..row.len();
        match self.how.pooling {
            Pooling::None => row.to_vec(),
            Pooling::Max => columns.map(|i| largest(around(i))).collect(),
            Pooling::Avg => {
                let width = self.how.kernel as f64;
                columns.map(|i| around(i).sum::<f64>() / width).collect()
            }
        }
    }

    fn reduce(&self, rows: &[&[f64]]) -> Vec<f64> {
        let of = |i: usize| rows.iter().map(move |row| row[i]);
        let columns = 0..self.how.prefix;
        match self.how.group {
            GroupReduce::Mean => {
                let count = rows.len() as f64;
                columns.map(|i| of(i).sum::<f64>() / count).collect()
            }
            GroupReduce::Max => columns.map(|i| largest(of(i))).collect(),
        }
    }
}

/// The largest of some numbers, zero at least; what is not a number is left out.
fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |largest, x| if x > largest { x } else { largest })
}

impl Operation for PoolRows {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let rows = operands.numbers::<f64>(0)?.chunks(self.columns.max(1));
        let rows: Vec<&[f64]> = rows.collect();
        let groups = rows.chunks(self.how.rows);
        Ok(CpuStorage::F64(
            groups.flat_map(|rows| self.pooled(rows)).collect(),
        ))
    }
}
