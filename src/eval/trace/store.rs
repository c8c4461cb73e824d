//! A trace in memory, as it was read from its folder.

use std::path::Path;

use super::measure::Step;
use super::settings::{TABLES, TraceRecord, TraceSettings};
use crate::error::{Error, Result};
use crate::model::residency::ResidencyBytes;
use crate::run::read_tables;
use crate::table::Table;

/// What one method did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodTrace {
    /// Its name.
    pub name: String,
    /// The budget that it spent, as it was asked for; `full` where it spends none.
    pub budget: String,
    /// Its steps, the same in every repeat.
    pub steps: Vec<Step>,
    /// Milliseconds, `[repeat][step]`.
    pub ms: Vec<Vec<f64>>,
}

/// A trace with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Provenance and settings.
    pub meta: TraceRecord,
    /// Every method, in the order asked for.
    pub methods: Vec<MethodTrace>,
}

impl Trace {
    /// Reads a folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished trace, or whose tables do not hold the rows that
    /// its record promises.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta = TraceRecord::read(folder)?;
        let tables = read_tables(folder, TABLES)?;
        let methods = methods(&meta.settings, &tables).map_err(|problem| match problem {
            Problem::Column(missing) => missing,
            Problem::Rows(table) => {
                let problem = format!(
                    "{table}.parquet does not hold the steps that meta.json promises: it was changed or damaged, run \
                     kvprof trace again"
                );
                Error::format(folder, problem)
            }
        })?;
        Ok(Self { meta, methods })
    }
}

/// What may be wrong with the tables.
enum Problem {
    /// A column is missing or of another type.
    Column(Error),
    /// This table's rows are others than those that were promised.
    Rows(&'static str),
}

impl From<Error> for Problem {
    fn from(missing: Error) -> Self {
        Self::Column(missing)
    }
}

fn methods(
    settings: &TraceSettings,
    [steps, times]: &[Table; 2],
) -> std::result::Result<Vec<MethodTrace>, Problem> {
    let [step_rows, time_rows] = TABLES;
    let names: Vec<&str> = settings.names().collect();
    let (count, repeats) = (settings.new_tokens, settings.repeats);
    // Compared before anything is reserved: a damaged file may promise any number.
    let promised = names.len().checked_mul(count);
    if promised != Some(steps.rows()) {
        return Err(Problem::Rows(step_rows));
    }
    if promised.and_then(|rows| rows.checked_mul(repeats)) != Some(times.rows()) {
        return Err(Problem::Rows(time_rows));
    }
    let all = StepColumns::of(steps)?;
    let (method, repeat) = (times.texts("method")?, times.counts("repeat")?);
    let (step, ms) = (times.counts("step")?, times.numbers("ms")?);
    let of_method = |(index, name): (usize, &&str)| {
        let first = index * count;
        let own = (0..count).map(|s| all.step(first + s, name, s));
        let own: Option<Vec<Step>> = own.collect();
        let of_repeat = |r: usize| -> Option<Vec<f64>> {
            let first = (r * names.len() + index) * count;
            let own = (0..count).map(|s| {
                let row = first + s;
                let is_own =
                    method[row] == **name && (repeat[row], step[row]) == (r as u32, s as u32);
                Some(ms[row]).filter(|ms| is_own && ms.is_finite() && *ms >= 0.0)
            });
            own.collect()
        };
        let ms: Option<Vec<Vec<f64>>> = (0..repeats).map(of_repeat).collect();
        Ok(MethodTrace {
            name: (*name).to_owned(),
            budget: all.budget.get(first).cloned().unwrap_or_default(),
            steps: own.ok_or(Problem::Rows(step_rows))?,
            ms: ms.ok_or(Problem::Rows(time_rows))?,
        })
    };
    names.iter().enumerate().map(of_method).collect()
}

/// The columns of the table of steps.
struct StepColumns<'t> {
    method: &'t [String],
    budget: &'t [String],
    step: &'t [u32],
    position: &'t [u32],
    token: &'t [u32],
    peak_rows: &'t [u32],
    resident: Vec<f64>,
    offloaded: Vec<f64>,
    mean_rows: Vec<f64>,
}

impl<'t> StepColumns<'t> {
    fn of(table: &'t Table) -> Result<Self> {
        Ok(Self {
            method: table.texts("method")?,
            budget: table.texts("budget")?,
            step: table.counts("step")?,
            position: table.counts("position")?,
            token: table.counts("token")?,
            peak_rows: table.counts("peak_rows")?,
            resident: table.numbers("resident_bytes")?,
            offloaded: table.numbers("offloaded_bytes")?,
            mean_rows: table.numbers("mean_rows")?,
        })
    }

    /// A row, if it is that of this step.
    fn step(&self, row: usize, method: &str, step: usize) -> Option<Step> {
        let (resident, offloaded) = (self.resident[row], self.offloaded[row]);
        let values = [resident, offloaded, self.mean_rows[row]];
        let is_own = self.method[row] == method && self.step[row] as usize == step;
        if !is_own || !values.iter().all(|v| v.is_finite() && *v >= 0.0) {
            return None;
        }
        Some(Step {
            position: self.position[row] as usize,
            token: self.token[row],
            bytes: ResidencyBytes {
                resident: resident as usize,
                offloaded: offloaded as usize,
            },
            mean_rows: self.mean_rows[row],
            peak_rows: self.peak_rows[row] as usize,
        })
    }
}
