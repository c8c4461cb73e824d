//! A measurement of speed on disk: `speed.parquet` and `meta.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Measurement, Mode};
use crate::error::{Error, Result};
use crate::parts::RunKind;
use crate::table::{Column, Table};

/// Version of the folder's layout; readers refuse others.
pub const SCHEMA: u32 = 2;

const TABLE: &str = "speed";

/// Provenance and settings: the content of `meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Layout version, [`SCHEMA`].
    pub schema: u32,
    /// Version of kvprof that measured.
    pub kvprof: String,
    /// Command line that repeats the measurement.
    pub command: String,
    /// Model name as a figure shows it.
    pub model: String,
    /// Where the weights came from.
    pub model_source: String,
    /// SHA-256 of the weight file.
    pub model_sha256: String,
    /// Device the model ran on.
    pub device: String,
    /// Element type of the cache and, but on the CPU, of everything else.
    pub dtype: String,
    /// Threads that share the work on a CPU.
    pub threads: usize,
    /// Scorer that chose what a budget keeps.
    pub scorer: String,
    /// Its parameters in full.
    pub scorer_parameters: Value,
    /// First tokens that always stayed.
    pub sinks: usize,
    /// Last tokens that always stayed.
    pub window: usize,
    /// Prompt lengths that were asked for, in tokens.
    pub lengths: Vec<usize>,
    /// Budgets in tokens per KV head.
    pub budgets: Vec<usize>,
    /// SHA-256 of all prompts' token ids.
    pub prompts_sha256: String,
    /// Timed decoding steps of one repeat.
    pub steps: usize,
    /// Timed tokens of one repeat without a cache.
    pub uncached_steps: usize,
    /// How often every mode was measured.
    pub repeats: usize,
    /// Seed of the prompts.
    pub seed: u64,
}

/// How measurements of speed lie on disk: a part per length.
pub static KIND: RunKind = RunKind {
    noun: "measurement of speed",
    made_with: "kvprof speed",
    drawn_with: "kvprof plot speed --speed",
    tables: &[TABLE],
    schema: SCHEMA,
};

/// Measured speed with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Provenance and settings.
    pub meta: Meta,
    /// Every repeat.
    pub measurements: Vec<Measurement>,
}

impl Speed {
    /// Reads a folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished measurement of speed.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta = KIND.read_meta(folder)?;
        let path = folder.join(format!("{TABLE}.parquet"));
        let measurements = measurements(&Table::read(&path)?, &path)?;
        Ok(Self { meta, measurements })
    }
}

/// The rows of one part.
pub fn speed_table(measurements: &[Measurement]) -> Table {
    let count = |of: fn(&Measurement) -> usize| {
        let values = measurements.iter().map(|m| of(m) as u32);
        Column::Count(values.collect())
    };
    let number =
        |of: fn(&Measurement) -> f64| Column::Number(measurements.iter().map(of).collect());
    let mut table = Table::default();
    table.push("length", count(|m| m.length));
    table.push("tokens", count(|m| m.tokens));
    let modes = measurements.iter().map(|m| m.mode.name().to_owned());
    table.push("mode", Column::Text(modes.collect()));
    let budget = |m: &Measurement| match m.mode {
        Mode::Budget(tokens) => tokens as f64,
        Mode::NoCache | Mode::Full => f64::NAN,
    };
    table.push("budget", number(budget));
    table.push("repeat", count(|m| m.repeat));
    table.push("ms_per_token", number(|m| m.ms_per_token));
    table.push("kv_bytes", number(|m| m.kv_bytes as f64));
    let resident = |m: &Measurement| m.resident_bytes.map_or(f64::NAN, |b| b as f64);
    table.push("resident_bytes", number(resident));
    table.push("prefill_s", number(|m| m.prefill_s));
    table
}

fn measurements(table: &Table, path: &Path) -> Result<Vec<Measurement>> {
    let number = |name| table.numbers(name);
    let (lengths, tokens, repeats) = (number("length")?, number("tokens")?, number("repeat")?);
    let (budgets, times) = (number("budget")?, number("ms_per_token")?);
    let (held, resident) = (number("kv_bytes")?, number("resident_bytes")?);
    let prefills = number("prefill_s")?;
    let Some(Column::Text(modes)) = table.column("mode") else {
        return Err(Error::unknown("column", "mode", table.names()));
    };
    let row = |row: usize| {
        let damaged = || Error::format(path, format!("row {} is damaged: measure again", row + 1));
        let mode = match modes[row].as_str() {
            "no-cache" => Mode::NoCache,
            "full" => Mode::Full,
            "budget" if budgets[row] >= 1.0 => Mode::Budget(budgets[row] as usize),
            _ => return Err(damaged()),
        };
        if !(times[row].is_finite() && times[row] > 0.0 && held[row] >= 0.0) {
            return Err(damaged());
        }
        Ok(Measurement {
            length: lengths[row] as usize,
            tokens: tokens[row] as usize,
            mode,
            repeat: repeats[row] as usize,
            ms_per_token: times[row],
            kv_bytes: held[row] as usize,
            resident_bytes: (resident[row] >= 0.0).then_some(resident[row] as usize),
            prefill_s: prefills[row],
        })
    };
    (0..table.rows()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::PartsFolder;

    fn meta(lengths: Vec<usize>) -> Meta {
        Meta {
            schema: SCHEMA,
            kvprof: "0".to_owned(),
            command: "kvprof speed".to_owned(),
            model: "tiny".to_owned(),
            model_source: "here".to_owned(),
            model_sha256: "a1".to_owned(),
            device: "Cpu".to_owned(),
            dtype: "f32".to_owned(),
            threads: 2,
            scorer: "snapkv".to_owned(),
            scorer_parameters: serde_json::json!({"kernel": 7}),
            sinks: 4,
            window: 32,
            lengths,
            budgets: vec![64],
            prompts_sha256: "b2".to_owned(),
            steps: 16,
            uncached_steps: 1,
            repeats: 1,
            seed: 0,
        }
    }

    fn measured(length: usize) -> Vec<Measurement> {
        let modes = [Mode::NoCache, Mode::Full, Mode::Budget(64)];
        let measurement = |mode| Measurement {
            length,
            tokens: length - 1,
            mode,
            repeat: 0,
            ms_per_token: 41.5,
            // More than 32 bits hold.
            kv_bytes: if mode == Mode::NoCache { 0 } else { 6 << 30 },
            resident_bytes: (mode == Mode::Full).then_some(7 << 30),
            prefill_s: 0.25,
        };
        modes.map(measurement).to_vec()
    }

    #[test]
    fn a_measurement_that_was_interrupted_goes_on() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("speed");
        let prepare = |resume| {
            PartsFolder::prepare(&folder, &KIND, meta(vec![512, 1024]), 2, resume).unwrap()
        };
        let run = prepare(false);
        run.write(0, &[speed_table(&measured(512))]).unwrap();
        assert!(Speed::load(&folder).is_err(), "not finished");
        let run = prepare(true);
        assert!(run.has(0) && !run.has(1));
        run.write(1, &[speed_table(&measured(1024))]).unwrap();
        run.finish().unwrap();
        let speed = Speed::load(&folder).unwrap();
        assert_eq!(speed.meta, meta(vec![512, 1024]));
        assert_eq!(speed.measurements, [measured(512), measured(1024)].concat());
    }

    #[test]
    fn damaged_rows_are_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("speed");
        let run = PartsFolder::prepare(&folder, &KIND, meta(vec![512]), 1, false).unwrap();
        let mut rows = measured(512);
        rows[1].ms_per_token = f64::NAN;
        run.write(0, &[speed_table(&rows)]).unwrap();
        run.finish().unwrap();
        let problem = Speed::load(&folder).unwrap_err().to_string();
        assert!(problem.contains("row 2 is damaged"), "{problem}");
    }
}
