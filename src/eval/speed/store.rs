//! A measurement of speed on disk: `speed.parquet` and `meta.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Measurement, Mode};
use crate::error::{Error, Result};
use crate::run::{RunKind, RunRecord, RunSettings, read_tables};
use crate::table::{Rows, Table};

const TABLE: &str = "speed";

/// What a measurement of speed was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeedSettings {
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
    /// Timed decoding steps of one repeat.
    pub steps: usize,
    /// Timed tokens of one repeat without a cache.
    pub uncached_steps: usize,
    /// How often every mode was measured.
    pub repeats: usize,
    /// Seed of the prompts.
    pub seed: u64,
}

/// Provenance and settings of a measurement of speed.
pub type SpeedRecord = RunRecord<SpeedSettings>;

/// How measurements of speed lie on disk: a part per length.
pub static KIND: RunKind = RunKind {
    noun: "measurement of speed",
    made_with: "kvprof speed",
    or_made_with: &[],
    drawn_with: "kvprof plot speed --speed",
    tables: &[TABLE],
    schema: 2,
    fields: "schema kvprof command model model_source model_sha256 device dtype threads scorer scorer_parameters sinks \
             window lengths budgets prompts_sha256 steps uncached_steps repeats seed",
};

impl RunSettings for SpeedSettings {
    const KIND: &'static RunKind = &KIND;
}

/// Measured speed with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Provenance and settings.
    pub meta: SpeedRecord,
    /// Every repeat.
    pub measurements: Vec<Measurement>,
}

impl Speed {
    /// Reads a folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished measurement of speed.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta = SpeedRecord::read(folder)?;
        let [table] = read_tables(folder, [TABLE])?;
        let measurements = measurements(&table, &folder.join(format!("{TABLE}.parquet")))?;
        Ok(Self { meta, measurements })
    }
}

/// The rows of one part.
pub fn speed_table(measurements: &[Measurement]) -> Table {
    let mut rows = Rows::default();
    for m in measurements {
        let budget = match m.mode {
            Mode::Budget(tokens) => tokens as f64,
            Mode::NoCache | Mode::Full => f64::NAN,
        };
        rows.count("length", m.length);
        rows.count("tokens", m.tokens);
        rows.text("mode", m.mode.name());
        rows.number("budget", budget);
        rows.count("repeat", m.repeat);
        rows.number("ms_per_token", m.ms_per_token);
        rows.number("kv_bytes", m.kv_bytes as f64);
        let resident = m.resident_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        rows.number("resident_bytes", resident);
        rows.number("prefill_s", m.prefill_s);
    }
    rows.finish()
}

fn measurements(table: &Table, path: &Path) -> Result<Vec<Measurement>> {
    let modes = table.texts("mode")?;
    let number = |name| table.numbers(name);
    let (lengths, tokens, repeats) = (number("length")?, number("tokens")?, number("repeat")?);
    let (budgets, times) = (number("budget")?, number("ms_per_token")?);
    let (held, resident) = (number("kv_bytes")?, number("resident_bytes")?);
    let prefills = number("prefill_s")?;
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
    use crate::run::{DataRecord, ModelRecord, RunFolder};

    fn record(lengths: Vec<usize>) -> SpeedRecord {
        let model = ModelRecord {
            name: "tiny".to_owned(),
            source: "here".to_owned(),
            sha256: "a1".to_owned(),
            device: "Cpu".to_owned(),
            dtype: "f32".to_owned(),
            ..ModelRecord::default()
        };
        let data = DataRecord {
            prompts_sha256: "b2".to_owned(),
            ..DataRecord::default()
        };
        let settings = SpeedSettings {
            threads: 2,
            scorer: "snapkv".to_owned(),
            scorer_parameters: serde_json::json!({"kernel": 7}),
            sinks: 4,
            window: 32,
            lengths,
            budgets: vec![64],
            steps: 16,
            uncached_steps: 1,
            repeats: 1,
            seed: 0,
        };
        SpeedRecord::new("kvprof speed", model, data, settings)
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
        let prepare =
            |resume| RunFolder::prepare(&folder, record(vec![512, 1024]), 2, resume).unwrap();
        let run = prepare(false);
        run.write(0, &[speed_table(&measured(512))]).unwrap();
        assert!(Speed::load(&folder).is_err(), "not finished");
        drop(run);
        let run = prepare(true);
        assert!(run.has(0) && !run.has(1));
        run.write(1, &[speed_table(&measured(1024))]).unwrap();
        run.finish().unwrap();
        let speed = Speed::load(&folder).unwrap();
        assert_eq!(speed.meta, record(vec![512, 1024]));
        assert_eq!(speed.measurements, [measured(512), measured(1024)].concat());
    }

    #[test]
    fn damaged_rows_are_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("speed");
        let run = RunFolder::prepare(&folder, record(vec![512]), 1, false).unwrap();
        let mut rows = measured(512);
        rows[1].ms_per_token = f64::NAN;
        run.write(0, &[speed_table(&rows)]).unwrap();
        run.finish().unwrap();
        let problem = Speed::load(&folder).unwrap_err().to_string();
        assert!(problem.contains("row 2 is damaged"), "{problem}");
    }
}
