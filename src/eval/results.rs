//! Results on disk: four Parquet tables and their provenance.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
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
}

/// File names of the tables inside a results folder, in the order of [`Results`]' fields.
pub const RESULT_TABLES: [&str; 4] = ["results", "evidence", "timings", RESIDENCY];

/// The table that older folders lack.
const RESIDENCY: &str = "residency";

/// How evaluations lie on disk.
pub static RESULTS: RunKind = RunKind {
    noun: "evaluation",
    made_with: "kvprof eval",
    drawn_with: "kvprof plot frontier --results",
    tables: &RESULT_TABLES,
    schema: 2,
    fields: "schema kvprof command task model model_sha256 num_layers num_kv_heads windows? dataset dataset_sha256 template prompts \
             prompts_sha256 methods budgets baseline? sinks window whole_windows? max_new_tokens profile_sha256? device dtype seed",
};

impl RunSettings for EvalSettings {
    const KIND: &'static RunKind = &RESULTS;
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
        let [results, evidence, timings, _] = RESULT_TABLES;
        let [results, evidence, timings] = read_tables(folder, [results, evidence, timings])?;
        let path = folder.join(format!("{RESIDENCY}.parquet"));
        let residency = path.is_file().then(|| Table::read(&path)).transpose()?;
        Ok(Self {
            meta,
            results,
            evidence,
            timings,
            residency,
        })
    }
}
