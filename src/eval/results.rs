//! Results on disk: Parquet tables and their provenance.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::sha256_hex;
use crate::method::RESIDENCIES;
use crate::registry;
use crate::run::{RunKind, RunRecord, RunSettings, read_tables};
use crate::table::Table;

/// What an evaluation was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalSettings {
    /// `qa` or `needle`.
    pub task: String,
    /// Methods in full, in the order asked for; the names are those of the tables.
    pub methods: Vec<Value>,
    /// Budgets as they were asked for.
    pub budgets: Vec<String>,
    /// Method that the others were compared with; it changes no row.
    pub baseline: String,
    /// Sinks of every selection.
    pub sinks: usize,
    /// Observation window of every selection.
    pub window: usize,
    /// Whether layers with a window keep all that they see, apart from the budget.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_windows: bool,
    /// Most tokens that were generated.
    pub max_new_tokens: usize,
    /// The profile that `@profile` methods were allocated from: SHA-256 of its tables.
    pub profile_sha256: Option<String>,
    /// Seed of everything that is random.
    pub seed: u64,
    /// Whose rows scorers looked from, where it was not the end of what was prefilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_from: Option<String>,
}

/// Provenance and settings of an evaluation.
pub type EvalRecord = RunRecord<EvalSettings>;

/// The baseline of evaluations that do not name theirs.
const UNNAMED_BASELINE: &str = "snapkv";

/// A finished evaluation in memory.
#[derive(Clone, Debug)]
pub struct Results {
    /// Provenance and settings.
    pub meta: EvalRecord,
    /// One row per prompt, method, budget: everything that repeats bit for bit.
    pub results: Table,
    /// One row per prompt, method, budget, layer: share of the evidence kept.
    pub evidence: Table,
    /// One row per prompt, method, budget: seconds.
    pub timings: Table,
    /// One row per prompt, method, budget: what the cache held while it lived; absent in folders of before it was kept.
    pub residency: Option<Table>,
    /// One row per prompt, method, budget, step: what the step brought back; absent where no method recalls.
    pub recall: Option<Table>,
}

/// File names of the tables inside a results folder, in the order of [`Results`]' fields; the last is there only where
/// a method recalls.
pub const RESULT_TABLES: [&str; 5] = ["results", "evidence", "timings", RESIDENCY, RECALL];

/// The table that older folders lack.
const RESIDENCY: &str = "residency";

/// The table of what steps bring back.
const RECALL: &str = "recall";

/// How evaluations lie on disk.
pub static RESULTS: RunKind = RunKind {
    noun: "evaluation",
    made_with: "kvprof eval",
    or_made_with: &[],
    drawn_with: "kvprof plot frontier --results",
    tables: &RESULT_TABLES,
    schema: 2,
    fields: "schema kvprof command task model model_sha256 num_layers num_kv_heads windows? dataset dataset_sha256 template prompts \
             prompts_sha256 methods budgets baseline? sinks window whole_windows? max_new_tokens profile_sha256? protocol? observed_from? device dtype seed",
};

impl RunSettings for EvalSettings {
    const KIND: &'static RunKind = &RESULTS;

    fn tables(&self) -> &'static [&'static str] {
        let recalls = |method: &Value| {
            let name = method.get("residency").and_then(Value::as_str);
            let rule = name.map(|n| registry::build("residency", RESIDENCIES, n, Value::Null));
            rule.is_some_and(|rule| rule.is_ok_and(|rule| rule.recalls()))
        };
        if self.methods.iter().any(recalls) {
            &RESULT_TABLES
        } else {
            &RESULT_TABLES[..4]
        }
    }
}

impl Results {
    /// Reads a results folder.
    ///
    /// Errors: [`crate::error::Error::Format`] for a folder that is not a finished evaluation.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut meta = EvalRecord::read(folder)?;
        if meta.settings.baseline.is_empty() {
            meta.settings.baseline = UNNAMED_BASELINE.to_owned();
        }
        let [results, evidence, timings, ..] = RESULT_TABLES;
        let [results, evidence, timings] = read_tables(folder, [results, evidence, timings])?;
        let read_if_there = |name: &str| {
            let path = folder.join(format!("{name}.parquet"));
            path.is_file().then(|| Table::read(&path)).transpose()
        };
        let (residency, recall) = (read_if_there(RESIDENCY)?, read_if_there(RECALL)?);
        Ok(Self {
            meta,
            results,
            evidence,
            timings,
            residency,
            recall,
        })
    }
}

/// Digest of a results folder: what was found and what was asked for, without seconds.
///
/// The same as `sha256sum results.parquet meta.json | sha256sum` inside the folder.
///
/// Errors: [`Error::Io`].
pub fn results_digest(folder: &Path) -> Result<String> {
    let mut list = String::new();
    for name in ["results.parquet", "meta.json"] {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        list.push_str(&format!("{}  {name}\n", sha256_hex(&bytes)));
    }
    Ok(sha256_hex(list.as_bytes()))
}
