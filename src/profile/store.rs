//! A profile on disk: four Parquet tables and their provenance.

use std::path::Path;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::budget_grid::budget_grid;
use super::measures::LayerMeasures;
use super::options::MeasureOptions;
use super::rows::{PromptLabel, prompt_tables};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::config::ModelConfig;
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
    /// What a model and the measures asked for say; data set and command are left empty.
    pub fn of_model(model: &Model, options: &MeasureOptions) -> Self {
        let decoder = &model.decoder;
        let (device, dtype) = (decoder.device(), decoder.dtype());
        Self::of_files(&model.files, decoder.config(), device, dtype, options)
    }

    /// The same of a model whose weights have not been read.
    pub fn of_files(
        files: &ModelFiles,
        config: &ModelConfig,
        device: &Device,
        dtype: DType,
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
            dtype: dtype.as_str().to_owned(),
            seed: 0,
        }
    }

    /// What was measured.
    pub fn measures(&self) -> MeasureOptions {
        MeasureOptions {
            window: self.window,
            thresholds: self.thresholds.clone(),
            output_thresholds: self.output_thresholds.clone(),
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
    /// The profile of one prompt that was just measured, for allocating in its own prefill.
    pub fn of_prompt(
        model: &Model,
        ids: &[u32],
        layers: &[LayerMeasures],
        options: &MeasureOptions,
    ) -> Self {
        let label = PromptLabel {
            index: 0,
            id: "prompt".to_owned(),
            tokens: ids.len(),
        };
        let [heads, kv_heads, layers, curves] = prompt_tables(&label, layers, options);
        Self {
            meta: Meta {
                prompts: 1,
                ..Meta::of_model(model, options)
            },
            heads,
            kv_heads,
            layers,
            curves,
        }
    }

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
        let tokens = self.layers.counts("tokens")?;
        let grids: Vec<usize> = (0..meta.prompts)
            .map(|p| {
                let row = p * meta.num_layers;
                tokens
                    .get(row)
                    .map_or(0, |&t| budget_grid(t as usize).len())
            })
            .collect();
        let one = vec![1; meta.prompts];
        for (name, table, inner, heads, repeats) in [
            ("heads", &self.heads, "head", meta.num_heads, &one),
            (
                "kv_heads",
                &self.kv_heads,
                "kv_head",
                meta.num_kv_heads,
                &one,
            ),
            ("layers", &self.layers, "layer", 1, &one),
            ("curves", &self.curves, "head", meta.num_heads, &grids),
        ] {
            let mut rows = Vec::new();
            for (prompt, &repeat) in repeats.iter().enumerate() {
                for layer in 0..meta.num_layers {
                    for head in 0..heads {
                        let inner = if inner == "layer" { layer } else { head };
                        let row = [prompt as u32, layer as u32, inner as u32];
                        rows.extend(std::iter::repeat_n(row, repeat));
                    }
                }
            }
            let columns = [
                table.counts("prompt")?,
                table.counts("layer")?,
                table.counts(inner)?,
            ];
            let ordered = table.rows() == rows.len()
                && rows.iter().enumerate().all(|(i, row)| {
                    columns
                        .iter()
                        .zip(row)
                        .all(|(column, &want)| column.get(i) == Some(&want))
                });
            if !ordered {
                return Err(Error::format(
                    folder,
                    format!(
                        "{name}.parquet does not hold the {} rows of {} prompts in order of \
                         prompt, layer and head: it was changed or damaged, profile again",
                        rows.len(),
                        meta.prompts
                    ),
                ));
            }
        }
        Ok(())
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
