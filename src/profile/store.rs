//! A profile on disk: four Parquet tables and their provenance.

use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::budget_grid::budget_grid;
use super::options::MeasureOptions;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::precision::Precision;
use crate::model::source::ModelFiles;
use crate::parts::RunKind;
use crate::table::Table;

/// Version of the folder's layout; readers refuse others.
pub const SCHEMA: u32 = 1;

/// Provenance and settings of a profile: the content of `meta.json`.
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
    /// Architecture, as the weight file names it.
    pub architecture: String,
    /// L.
    pub num_layers: usize,
    /// H_q.
    pub num_heads: usize,
    /// H_kv.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Data set name as a figure shows it.
    pub dataset: String,
    /// SHA-256 of the data set file.
    pub dataset_sha256: String,
    /// SHA-256 of the prompt template, followed by " raw" where the chat template was left out.
    pub template: String,
    /// Number of prompts.
    pub prompts: usize,
    /// SHA-256 of all prompts' token ids: what tokenizer, templates and cuts came to.
    pub prompts_sha256: String,
    /// Longest prompt allowed, in tokens; longer ones were cut in the middle.
    pub max_prompt_tokens: Option<usize>,
    /// Observation window w in rows; `None` is every row.
    pub window: Option<usize>,
    /// Retained-mass thresholds of MBA.
    pub thresholds: Vec<f64>,
    /// Cosine thresholds of LMBO.
    pub output_thresholds: Vec<f64>,
    /// Device the model ran on.
    pub device: String,
    /// Element type of the cache and, but on the CPU, of everything else.
    pub dtype: String,
    /// Seed given on the command line.
    pub seed: u64,
}

impl Meta {
    /// What a model and the measures asked for say, before weights are read; data set and command are left empty.
    pub fn of_files(
        files: &ModelFiles,
        config: &ModelConfig,
        device: &Device,
        precision: Precision,
        options: &MeasureOptions,
    ) -> Self {
        Self {
            schema: SCHEMA,
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command: String::new(),
            model: files.name.clone(),
            model_source: files.origin.clone(),
            model_sha256: files.sha256.clone(),
            architecture: config.family.architecture.to_owned(),
            num_layers: config.num_hidden_layers,
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            dataset: String::new(),
            dataset_sha256: String::new(),
            template: String::new(),
            prompts: 0,
            prompts_sha256: String::new(),
            max_prompt_tokens: None,
            window: options.window,
            thresholds: options.thresholds.clone(),
            output_thresholds: options.output_thresholds.clone(),
            device: format!("{:?}", device.location()),
            dtype: precision.to_string(),
            seed: 0,
        }
    }

    /// What was measured.
    pub fn measures(&self) -> MeasureOptions {
        MeasureOptions {
            window: self.window,
            thresholds: self.thresholds.clone(),
            output_thresholds: self.output_thresholds.clone(),
            needs: None,
        }
    }
}

/// A finished profile in memory.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Provenance and settings.
    pub meta: Meta,
    /// One row per prompt, layer, query head.
    pub heads: Table,
    /// One row per prompt, layer, KV head.
    pub kv_heads: Table,
    /// One row per prompt, layer.
    pub layers: Table,
    /// One row per prompt, layer, query head, budget.
    pub curves: Table,
}

/// File names of the tables inside a profile folder, in the order of [`Profile`]'s fields.
pub const TABLES: [&str; 4] = ["heads", "kv_heads", "layers", "curves"];

/// A profile as a run on disk.
pub static KIND: RunKind = RunKind {
    noun: "profile",
    made_with: "kvprof profile",
    drawn_with: "kvprof plot lmba --profile",
    tables: &TABLES,
    schema: SCHEMA,
};

impl Profile {
    /// Reads a profile folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished profile.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta: Meta = KIND.read_meta(folder)?;
        let read = |name: &str| Table::read(&folder.join(format!("{name}.parquet")));
        let [heads, kv_heads, layers, curves] = TABLES;
        let profile = Self {
            heads: read(heads)?,
            kv_heads: read(kv_heads)?,
            layers: read(layers)?,
            curves: read(curves)?,
            meta,
        };
        profile.check_shape(folder)?;
        Ok(profile)
    }

    /// Every table must hold the rows that `meta.json` promises, in the order that readers rely on.
    fn check_shape(&self, folder: &Path) -> Result<()> {
        let meta = &self.meta;
        // Numbers of rows before rows: what a damaged meta.json promises may be more than any memory.
        self.check_rows(folder, "heads", &self.heads, meta.num_heads)?;
        self.check_rows(folder, "kv_heads", &self.kv_heads, meta.num_kv_heads)?;
        self.check_rows(folder, "layers", &self.layers, 1)?;
        let once = vec![1; meta.prompts];
        self.check_order(
            folder,
            "heads",
            &self.heads,
            ("head", meta.num_heads),
            &once,
        )?;
        let kv_heads = ("kv_head", meta.num_kv_heads);
        self.check_order(folder, "kv_heads", &self.kv_heads, kv_heads, &once)?;
        self.check_order(folder, "layers", &self.layers, ("layer", 1), &once)?;
        let of_prompts = self
            .layers
            .counts("tokens")?
            .iter()
            .step_by(meta.num_layers);
        let grids: Vec<usize> = of_prompts.map(|&t| budget_grid(t as usize).len()).collect();
        self.check_order(
            folder,
            "curves",
            &self.curves,
            ("head", meta.num_heads),
            &grids,
        )
    }

    /// A row for every head of every layer of every prompt.
    fn check_rows(&self, folder: &Path, name: &str, table: &Table, heads: usize) -> Result<()> {
        let meta = &self.meta;
        let promised =
            (meta.prompts.checked_mul(meta.num_layers)).and_then(|n| n.checked_mul(heads));
        if meta.num_layers > 0 && heads > 0 && promised == Some(table.rows()) {
            return Ok(());
        }
        let problem = format!(
            "{name}.parquet has {} rows, but meta.json says {} prompts, {} layers and {heads} rows for each: it \
             was changed or damaged, profile again",
            table.rows(),
            meta.prompts,
            meta.num_layers
        );
        Err(Error::format(folder, problem))
    }

    /// Rows in the order of prompt, layer and head, every one of a prompt as often as `repeats` says.
    fn check_order(
        &self,
        folder: &Path,
        name: &str,
        table: &Table,
        (inner, heads): (&str, usize),
        repeats: &[usize],
    ) -> Result<()> {
        let layers = self.meta.num_layers;
        let rows = repeats.iter().enumerate().flat_map(|(prompt, &repeat)| {
            let cells =
                (0..layers).flat_map(move |layer| (0..heads).map(move |head| (layer, head)));
            cells.flat_map(move |(layer, head)| {
                let inner = if inner == "layer" { layer } else { head };
                std::iter::repeat_n([prompt, layer, inner], repeat)
            })
        });
        let (prompt, layer) = (table.counts("prompt")?, table.counts("layer")?);
        let columns = prompt.iter().zip(layer).zip(table.counts(inner)?);
        let found = columns.map(|((&p, &l), &i)| [p, l, i].map(|n| n as usize));
        if found.eq(rows) {
            return Ok(());
        }
        let problem = format!(
            "{name}.parquet does not hold the rows of {} prompts in order of prompt, layer and head: it was \
             changed or damaged, profile again",
            self.meta.prompts
        );
        Err(Error::format(folder, problem))
    }

    /// A column of `layers.parquet` as `[prompt][layer]`.
    ///
    /// Errors: [`Error::UnknownName`], listing the columns there are.
    pub fn layer_grid(&self, column: &str) -> Result<Vec<Vec<f64>>> {
        let values = self.layers.numbers(column)?;
        Ok(values
            .chunks(self.meta.num_layers.max(1))
            .map(<[f64]>::to_vec)
            .collect())
    }

    /// A column of `heads.parquet` as `[prompt][layer][query head]`.
    ///
    /// Errors: [`Error::UnknownName`], listing the columns there are.
    pub fn head_grid(&self, column: &str) -> Result<Vec<Vec<Vec<f64>>>> {
        let values = self.heads.numbers(column)?;
        let (l, h) = (self.meta.num_layers.max(1), self.meta.num_heads.max(1));
        Ok(values
            .chunks(l * h)
            .map(|prompt| prompt.chunks(h).map(<[f64]>::to_vec).collect())
            .collect())
    }
}

/// A threshold as column names carry it: a percentage, `_` for the decimal point.
///
/// ```
/// assert_eq!(kvprof::profile::threshold_name(0.9), "90");
/// assert_eq!(kvprof::profile::threshold_name(0.999), "99_9");
/// ```
pub fn threshold_name(threshold: f64) -> String {
    let mut text = format!("{:.6}", threshold * 100.0);
    while text.ends_with('0') {
        text.pop();
    }
    text.trim_end_matches('.').replace('.', "_")
}
