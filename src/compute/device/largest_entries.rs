//! The largest numbers of a matrix's rows, without a sort.

use candle_core::{CpuStorage, DType, Device, Tensor};

use super::operation::{OnCpu, Operation};
use super::program::{Argument, Buffer, Launch, Program, size, source};
use crate::error::{Error, Result};

/// Columns of a block.
const TILE: usize = 4096;

/// Values of a digit, of as many bits as shifts are apart; also the threads of a block.
const DIGITS: u32 = 256;

/// Shifts of the digits of a number, from the top.
const NUMBER_SHIFTS: [u32; 8] = [56, 48, 40, 32, 24, 16, 8, 0];

/// How many columns every row of a matrix keeps, and which in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Columns of each row that no other row can take, those that always stay included.
    pub own: Vec<usize>,
    /// Further ones, which go to the largest of what is left over all rows.
    pub shared: usize,
    /// First columns that always stay.
    pub sinks: usize,
    /// Last columns that always stay.
    pub window: usize,
}

/// The columns that every row keeps: what always stays, its largest numbers, and the largest of all rows'.
///
/// Numbers are ordered as [`f64::total_cmp`] orders them; ties go to the later column, then to the upper row.
/// Differs: exact to the column; no sort.
/// Shapes: `(rows, columns)`, float64 -> `(1 + rows + kept)`, u32: whether a number is not finite, how many columns each
/// row keeps, and the columns, ascending, row by row.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for quotas that the rows do not have.
pub fn largest_entries(numbers: &Tensor, quotas: &Quotas) -> Result<Tensor> {
    let op = LargestEntries::new(numbers.dims2()?, quotas)?;
    op.run(&[numbers, &op.chosen(numbers.device())?])
}

/// [`largest_entries`] of one shape.
pub struct LargestEntries {
    rows: usize,
    columns: usize,
    sinks: usize,
    /// First column of the window.
    window: usize,
    /// Columns of each row beyond those that always stay.
    chosen: Vec<u32>,
    shared: usize,
    /// Operands: numbers, columns of each row beyond those that always stay, what is found.
    pub program: Program,
}

impl LargestEntries {
    /// For numbers `(rows, columns)`.
    ///
    /// Errors: as [`largest_entries`].
    pub fn new((rows, columns): (usize, usize), quotas: &Quotas) -> Result<Self> {
        let sinks = quotas.sinks.min(columns);
        let window = columns - quotas.window.min(columns);
        let forced = sinks + (columns - window.max(sinks));
        if quotas.own.len() != rows {
            let bound = format!("{rows} heads are scored");
            let found = quotas.own.len();
            return Err(Error::invalid("heads that keep tokens", found, bound));
        }
        size("number of scores", rows * columns)?;
        let chosen = |&own: &usize| {
            if (forced..=columns).contains(&own) {
                return Ok((own - forced) as u32);
            }
            let bound = format!("{forced} of {columns} stay in any case");
            Err(Error::invalid("tokens of a head", own, bound))
        };
        let chosen: Vec<u32> = quotas.own.iter().map(chosen).collect::<Result<_>>()?;
        let own: usize = quotas.own.iter().sum();
        let left = rows * columns - own;
        if quotas.shared > left {
            let bound = format!("{left} are left");
            return Err(Error::invalid("shared tokens", quotas.shared, bound));
        }
        let output = (DType::U32, 1 + rows + own + quotas.shared);
        let operands = [DType::F64, DType::U32];
        let mut op = Self {
            rows,
            columns,
            sinks,
            window,
            chosen,
            shared: quotas.shared,
            program: Program::new(source!("largest_entries"), operands, output),
        };
        if rows * columns > 0 {
            op.launches()?;
        }
        Ok(op)
    }

    /// The second operand.
    ///
    /// Errors: [`Error::Candle`].
    pub fn chosen(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.chosen, self.rows, device)?)
    }

    fn launches(&mut self) -> Result<()> {
        let tiles = self.columns.div_ceil(TILE);
        let edges = self.program.scratch(16 * (self.rows + 1));
        let counts = self.program.scratch(4 * DIGITS as usize * self.rows);
        let places = self.program.scratch(4 * tiles * self.rows);
        let [edges, counts, places] = [edges, counts, places].map(Argument::from);
        let [numbers, own, found] = [0, 1, 2].map(|i| Argument::from(Buffer::Operand(i)));
        let (rows, tiles) = (size("number of rows", self.rows)?, tiles as u32);
        let [columns, sinks, window, shared] =
            [self.columns, self.sinks, self.window, self.shared].map(|n| Argument::U32(n as u32));
        let all = [tiles, rows];
        let start = [own, edges, counts, found, rows.into(), shared];
        self.launch("best_start", [rows + 1, 1], &start)?;
        self.launch("best_check", all, &[numbers, found, columns])?;
        let own_ones = self.chosen.iter().any(|own| *own > 0);
        let competitions = [(false, own_ones, 0, rows), (true, self.shared > 0, rows, 1)];
        for (compete, any, first_edge, edges_of_it) in competitions {
            for (of_index, shift) in self.digits().filter(|_| any) {
                let digit = [u32::from(of_index), shift].map(Argument::U32);
                let [of_index, shift] = digit;
                let compete = u32::from(compete).into();
                let count = [
                    numbers, own, edges, counts, columns, sinks, window, compete, of_index, shift,
                ];
                self.launch("best_count", all, &count)?;
                let pick = [edges, counts, first_edge.into(), of_index, shift];
                self.launch("best_pick", [edges_of_it, 1], &pick)?;
            }
        }
        let tally = [numbers, own, edges, places, columns, sinks, window];
        self.launch("best_tally", all, &tally)?;
        let sums = [places, found, rows.into(), tiles.into()];
        self.launch("best_places", [1, 1], &sums)?;
        let write = [numbers, own, edges, places, found, columns, sinks, window];
        self.launch("best_write", all, &write)
    }

    /// Digits from the top: whether of the index, and their shifts.
    fn digits(&self) -> impl Iterator<Item = (bool, u32)> + use<> {
        let bits = usize::BITS - (self.columns - 1).leading_zeros();
        let of_index = (0..bits.div_ceil(8)).rev().map(|digit| (true, 8 * digit));
        let of_number = NUMBER_SHIFTS.map(|shift| (false, shift));
        of_number.into_iter().chain(of_index)
    }

    fn launch(&mut self, kernel: &'static str, grid: [u32; 2], all: &[Argument]) -> Result<()> {
        self.program.launch(Launch {
            kernel,
            grid,
            threads: DIGITS,
            shared: 0,
            arguments: all.to_vec(),
        })
    }

    /// The columns of a row that do not stay anyway.
    fn candidates(&self, row: usize, numbers: &[f64]) -> Vec<Candidate> {
        (self.sinks..self.window.max(self.sinks))
            .map(|column| Candidate::new(numbers[column], column, row))
            .collect()
    }
}

impl Operation for LargestEntries {
    fn program(&self) -> &Program {
        &self.program
    }

    fn on_cpu(&self, operands: &OnCpu<'_>) -> candle_core::Result<CpuStorage> {
        let numbers = operands.numbers::<f64>(0)?;
        let own = operands.numbers::<u32>(1)?;
        let mut kept = Vec::with_capacity(self.rows);
        let mut others = Vec::new();
        for (row, &own) in own.iter().enumerate() {
            let numbers = &numbers[row * self.columns..][..self.columns];
            let mut ranked = self.candidates(row, numbers);
            let rest = largest_first(&mut ranked, own as usize);
            if self.shared > 0 {
                others.extend_from_slice(rest);
            }
            let mut columns: Vec<u32> = (0..self.sinks as u32).collect();
            columns.extend(ranked[..own as usize].iter().map(|entry| entry.column()));
            columns.extend(self.window.max(self.sinks) as u32..self.columns as u32);
            kept.push(columns);
        }
        largest_first(&mut others, self.shared);
        for winner in &others[..self.shared] {
            kept[winner.row()].push(winner.column());
        }
        let mut found = vec![u32::from(numbers.iter().any(|x| !x.is_finite()))];
        found.extend(kept.iter().map(|columns| columns.len() as u32));
        for mut columns in kept {
            columns.sort_unstable();
            found.extend(columns);
        }
        Ok(CpuStorage::U32(found))
    }
}

/// An entry that may be kept: the bits of its number, rising as numbers do, its column, and its row, the upper last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u128);

impl Candidate {
    fn new(number: f64, column: usize, row: usize) -> Self {
        let bits = number.to_bits();
        let rising = if bits >> 63 == 0 {
            bits | 1 << 63
        } else {
            !bits
        };
        Self(u128::from(rising) << 64 | (column as u128) << 32 | u128::from(!(row as u32)))
    }

    fn column(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn row(self) -> usize {
        !(self.0 as u32) as usize
    }
}

/// Brings the largest `count` to the front, in any order; the others.
fn largest_first(candidates: &mut [Candidate], count: usize) -> &[Candidate] {
    if (1..candidates.len()).contains(&count) {
        candidates.select_nth_unstable_by(count, |a, b| b.cmp(a));
    }
    &candidates[count..]
}
