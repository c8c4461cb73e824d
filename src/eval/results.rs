//! Results on disk: three Parquet tables and their provenance.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::parts::RunKind;
use crate::table::Table;

/// Version of the folder's layout; readers refuse others.
pub const RESULTS_SCHEMA: u32 = 2;

/// Provenance and settings of an evaluation: the content of `meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultsMeta {
    /// Layout version, [`RESULTS_SCHEMA`].
    pub schema: u32,
    /// Version of kvprof that measured.
    pub kvprof: String,
    /// Command line that repeats the measurement.
    pub command: String,
    /// `qa` or `needle`.
    pub task: String,
    /// Model name as a figure shows it.
    pub model: String,
    /// SHA-256 of the weight file.
    pub model_sha256: String,
    /// L.
    pub num_layers: usize,
    /// H_kv.
    pub num_kv_heads: usize,
    /// Data set name as a figure shows it.
    pub dataset: String,
    /// SHA-256 of the data set file, or of the generated records.
    pub dataset_sha256: String,
    /// SHA-256 of the prompt template, followed by " raw" where the chat template was left out.
    pub template: String,
    /// Number of prompts.
    pub prompts: usize,
    /// SHA-256 of all prompts' token ids.
    pub prompts_sha256: String,
    /// Methods in full, in the order asked for; the names are those of the tables.
    pub methods: Vec<Value>,
    /// Budgets as they were asked for.
    pub budgets: Vec<String>,
    /// Method that the others were compared with; it changes no row.
    #[serde(default = "uniform_snapkv")]
    pub baseline: String,
    /// Sinks of every selection.
    pub sinks: usize,
    /// Observation window of every selection.
    pub window: usize,
    /// Most tokens that were generated.
    pub max_new_tokens: usize,
    /// The profile that `@profile` methods were allocated from: SHA-256 of its tables.
    pub profile_sha256: Option<String>,
    /// Device the model ran on.
    pub device: String,
    /// Element type of the cache and, but on the CPU, of everything else.
    pub dtype: String,
    /// Seed of everything that is random.
    pub seed: u64,
}

/// The baseline of evaluations that do not name theirs.
fn uniform_snapkv() -> String {
    "snapkv".to_owned()
}

/// A finished evaluation in memory.
#[derive(Clone, Debug)]
pub struct Results {
    /// Provenance and settings.
    pub meta: ResultsMeta,
    /// One row per prompt, method, budget: everything that repeats bit for bit.
    pub results: Table,
    /// One row per prompt, method, budget, layer: share of the evidence kept.
    pub evidence: Table,
    /// One row per prompt, method, budget: seconds.
    pub timings: Table,
}

/// File names of the tables inside a results folder, in the order of [`Results`]' fields.
pub const RESULT_TABLES: [&str; 3] = ["results", "evidence", "timings"];

/// How evaluations lie on disk.
pub static RESULTS: RunKind = RunKind {
    noun: "evaluation",
    made_with: "kvprof eval",
    drawn_with: "kvprof plot frontier --results",
    tables: &RESULT_TABLES,
    schema: RESULTS_SCHEMA,
};

impl Results {
    /// Reads a results folder.
    ///
    /// Errors: [`crate::error::Error::Format`] for a folder that is not a finished evaluation.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta: ResultsMeta = RESULTS.read_meta(folder)?;
        let read = |name: &str| Table::read(&folder.join(format!("{name}.parquet")));
        let [results, evidence, timings] = RESULT_TABLES;
        Ok(Self {
            meta,
            results: read(results)?,
            evidence: read(evidence)?,
            timings: read(timings)?,
        })
    }
}
