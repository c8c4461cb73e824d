//! A speed folder: `speed.parquet` and `meta.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Measurement, Mode};
use crate::error::{Error, Result};
use crate::files;
use crate::table::{Column, Table};

/// Version of the folder's layout; readers refuse others.
pub const SCHEMA: u32 = 1;

const META: &str = "meta.json";
const TABLE: &str = "speed.parquet";

/// What tells this folder from others with a `meta.json`.
const TASK: &str = "speed";

/// Provenance and settings: the content of `meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Layout version, [`SCHEMA`].
    pub schema: u32,
    /// Always "speed".
    pub task: String,
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
    /// Element type of weights and cache.
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
    /// Seconds of each length's one prefill, scoring included.
    pub prefill_s: Vec<f64>,
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

impl Meta {
    /// The fixed fields: layout, task, and this program's version.
    pub fn stamp() -> (u32, String, String) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        (SCHEMA, TASK.to_owned(), version)
    }
}

/// Measured speed with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Provenance and settings.
    pub meta: Meta,
    /// Every repeat.
    pub measurements: Vec<Measurement>,
}

impl Speed {
    /// Writes table and metadata into `folder`; the metadata last, which marks it as finished.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        table(&self.measurements).write(&folder.join(TABLE))?;
        let path = folder.join(META);
        let text = serde_json::to_string_pretty(&self.meta)
            .map_err(|e| Error::format(&path, e.to_string()))?;
        files::replace_with(&path, format!("{text}\n").as_bytes())
    }

    /// Reads a folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished measurement of speed.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(META);
        if !path.is_file() {
            let problem =
                "is not a speed folder (no meta.json); make one with `kvprof speed --out`";
            return Err(Error::format(folder, problem));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let meta: Meta = serde_json::from_str(&text).map_err(|e| {
            Error::format_at(
                &path,
                e.line(),
                format!("is not the metadata of a speed measurement: {e}"),
            )
        })?;
        if meta.schema != SCHEMA || meta.task != TASK {
            let problem = format!(
                "is of task {} and layout {}, this kvprof reads task {TASK}, layout {SCHEMA}",
                meta.task, meta.schema
            );
            return Err(Error::format(&path, problem));
        }
        let table_path = folder.join(TABLE);
        let measurements = measurements(&Table::read(&table_path)?, &table_path)?;
        Ok(Self { meta, measurements })
    }
}

fn table(measurements: &[Measurement]) -> Table {
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
    table
}

fn measurements(table: &Table, path: &Path) -> Result<Vec<Measurement>> {
    let number = |name| table.numbers(name);
    let (lengths, tokens, repeats) = (number("length")?, number("tokens")?, number("repeat")?);
    let (budgets, times) = (number("budget")?, number("ms_per_token")?);
    let (held, resident) = (number("kv_bytes")?, number("resident_bytes")?);
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
        })
    };
    (0..table.rows()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed() -> Speed {
        let (schema, task, kvprof) = Meta::stamp();
        let meta = Meta {
            schema,
            task,
            kvprof,
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
            lengths: vec![512],
            prefill_s: vec![0.25],
            budgets: vec![64],
            prompts_sha256: "b2".to_owned(),
            steps: 16,
            uncached_steps: 1,
            repeats: 1,
            seed: 0,
        };
        let modes = [Mode::NoCache, Mode::Full, Mode::Budget(64)];
        let measurements = modes.map(|mode| Measurement {
            length: 512,
            tokens: 511,
            mode,
            repeat: 0,
            ms_per_token: 41.5,
            // More than 32 bits hold.
            kv_bytes: if mode == Mode::NoCache { 0 } else { 6 << 30 },
            resident_bytes: (mode == Mode::Full).then_some(7 << 30),
        });
        Speed {
            meta,
            measurements: measurements.to_vec(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        speed().write(folder.path()).unwrap();
        assert_eq!(Speed::load(folder.path()).unwrap(), speed());
    }

    #[test]
    fn other_folders_and_damaged_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let problem = || Speed::load(path).unwrap_err().to_string();
        assert!(problem().contains("no meta.json"));
        std::fs::write(path.join(META), "{}").unwrap();
        assert!(problem().contains("not the metadata of a speed measurement"));
        let mut other = speed();
        other.meta.schema = 99;
        other.write(path).unwrap();
        assert!(problem().contains("layout 99"));
        let mut damaged = speed();
        damaged.measurements[1].ms_per_token = f64::NAN;
        damaged.write(path).unwrap();
        assert!(problem().contains("row 2 is damaged"));
    }
}
