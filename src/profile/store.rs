//! A profile on disk: Parquet tables and their provenance.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::budget_grid::budget_grid;
use super::options::MeasureOptions;
use crate::error::{Error, Result};
use crate::run::{RunKind, RunRecord, RunSettings, read_tables};
use crate::table::Table;

/// What a profile was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileSettings {
    /// What was measured.
    #[serde(flatten)]
    pub measures: MeasureOptions,
    /// Seed given on the command line.
    pub seed: u64,
}

/// Provenance and settings of a profile.
pub type ProfileRecord = RunRecord<ProfileSettings>;

/// A finished profile in memory.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Provenance and settings.
    pub meta: ProfileRecord,
    /// One row per prompt, layer, query head.
    pub heads: Table,
    /// One row per prompt, layer, KV head.
    pub kv_heads: Table,
    /// One row per prompt, layer.
    pub layers: Table,
    /// One row per prompt, layer, query head, budget.
    pub curves: Table,
    /// One row per prompt, layer, type of the cache; absent where none was asked for.
    pub quantisation: Option<Table>,
}

/// File names of the tables inside every profile folder, in the order of [`Profile`]'s fields.
pub const TABLES: [&str; 4] = ["heads", "kv_heads", "layers", "curves"];

/// File name of the table of types of the cache, where they were asked for.
pub const QUANTISATION: &str = "quantisation";

/// [`TABLES`] and [`QUANTISATION`].
const ALL_TABLES: [&str; 5] = ["heads", "kv_heads", "layers", "curves", QUANTISATION];

/// A profile as a run on disk.
pub static KIND: RunKind = RunKind {
    noun: "profile",
    made_with: "kvprof profile",
    or_made_with: &["kvprof measure"],
    drawn_with: "kvprof plot lmba --profile",
    tables: &TABLES,
    schema: 1,
    fields: "schema kvprof command model model_source model_sha256 architecture num_layers num_heads num_kv_heads \
             head_dim windows? dataset dataset_sha256 template prompts prompts_sha256 max_prompt_tokens? protocol? window? \
             thresholds output_thresholds quantise? device dtype seed",
};

impl RunSettings for ProfileSettings {
    const KIND: &'static RunKind = &KIND;

    fn tables(&self) -> &'static [&'static str] {
        if self.measures.quantise.is_empty() {
            &TABLES
        } else {
            &ALL_TABLES
        }
    }

    fn check(&self) -> Result<()> {
        self.measures.check()
    }
}

impl Profile {
    /// Reads a profile folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished profile.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta = ProfileRecord::read(folder)?;
        let [heads, kv_heads, layers, curves] = read_tables(folder, TABLES)?;
        let asked = !meta.settings.measures.quantise.is_empty();
        let read = || Table::read(&folder.join(format!("{QUANTISATION}.parquet")));
        let profile = Self {
            quantisation: asked.then(read).transpose()?,
            meta,
            heads,
            kv_heads,
            layers,
            curves,
        };
        profile.check_shape(folder)?;
        Ok(profile)
    }

    /// Every table must hold the rows that `meta.json` promises, in the order that readers rely on.
    fn check_shape(&self, folder: &Path) -> Result<()> {
        let (model, prompts) = (&self.meta.model, self.meta.data.prompts);
        let tables = [
            ("heads", &self.heads, "head", model.num_heads),
            ("kv_heads", &self.kv_heads, "kv_head", model.num_kv_heads),
            ("layers", &self.layers, "layer", 1),
        ];
        // Numbers of rows before rows: what a damaged meta.json promises may be more than any memory.
        for (name, table, _, heads) in tables {
            self.check_rows(folder, name, table, heads)?;
        }
        let once = vec![1; prompts];
        for (name, table, inner, heads) in tables {
            self.check_order(folder, name, table, (inner, heads), &once)?;
        }
        let of_prompts = self.layers.counts("tokens")?.iter();
        let of_prompts = of_prompts.step_by(model.num_layers);
        let grids: Vec<usize> = of_prompts.map(|&t| budget_grid(t as usize).len()).collect();
        let heads = ("head", model.num_heads);
        self.check_order(folder, "curves", &self.curves, heads, &grids)?;
        let quantisation = self.quantisation.as_ref();
        quantisation.map_or(Ok(()), |table| self.check_types(folder, table))
    }

    /// A row for every type of every layer of every prompt, in that order.
    fn check_types(&self, folder: &Path, table: &Table) -> Result<()> {
        let types = &self.meta.settings.measures.quantise;
        self.check_rows(folder, QUANTISATION, table, types.len())?;
        let once = vec![types.len(); self.meta.data.prompts];
        self.check_order(folder, QUANTISATION, table, ("layer", 1), &once)?;
        let names: Vec<String> = types.iter().map(ToString::to_string).collect();
        if table
            .texts("cache")?
            .iter()
            .eq(names.iter().cycle().take(table.rows()))
        {
            return Ok(());
        }
        let problem = format!(
            "{QUANTISATION}.parquet does not hold the types {} of every layer: it was changed or damaged, profile again",
            names.join("; ")
        );
        Err(Error::format(folder, problem))
    }

    /// A row for every head of every layer of every prompt.
    fn check_rows(&self, folder: &Path, name: &str, table: &Table, heads: usize) -> Result<()> {
        let (prompts, layers) = (self.meta.data.prompts, self.meta.model.num_layers);
        let promised = prompts.checked_mul(layers);
        let promised = promised.and_then(|n| n.checked_mul(heads));
        if layers > 0 && heads > 0 && promised == Some(table.rows()) {
            return Ok(());
        }
        let problem = format!(
            "{name}.parquet has {} rows, but meta.json says {prompts} prompts, {layers} layers and {heads} rows for \
             each: it was changed or damaged, profile again",
            table.rows(),
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
        let layers = self.meta.model.num_layers;
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
            self.meta.data.prompts
        );
        Err(Error::format(folder, problem))
    }

    /// A column of `layers.parquet` as `[prompt][layer]`.
    ///
    /// Errors: [`Error::UnknownName`], listing the columns there are.
    pub fn layer_grid(&self, column: &str) -> Result<Vec<Vec<f64>>> {
        let values = self.layers.numbers(column)?;
        let prompts = values.chunks(self.meta.model.num_layers.max(1));
        Ok(prompts.map(<[f64]>::to_vec).collect())
    }

    /// A column of `quantisation.parquet` as `[prompt][layer][type]`, the types in the order in which they were asked for.
    ///
    /// Errors: [`Error::Invalid`] for a profile without it; [`Error::UnknownName`], listing the columns there are.
    pub fn type_grid(&self, column: &str) -> Result<Vec<Vec<Vec<f64>>>> {
        let table = self.quantisation.as_ref().ok_or_else(|| {
            let bound = "types of the cache were not measured: profile again with --quantise, such as --quantise 'f16;q8;q4;q2'";
            Error::invalid("quantisation.parquet of the profile", "absent", bound)
        })?;
        let values = table.numbers(column)?;
        let types = self.meta.settings.measures.quantise.len().max(1);
        let layers = self.meta.model.num_layers.max(1);
        let prompt = |values: &[f64]| values.chunks(types).map(<[f64]>::to_vec).collect();
        Ok(values.chunks(layers * types).map(prompt).collect())
    }

    /// A column of `heads.parquet` as `[prompt][layer][query head]`.
    ///
    /// Errors: [`Error::UnknownName`], listing the columns there are.
    pub fn head_grid(&self, column: &str) -> Result<Vec<Vec<Vec<f64>>>> {
        let values = self.heads.numbers(column)?;
        let model = &self.meta.model;
        let (layers, heads) = (model.num_layers.max(1), model.num_heads.max(1));
        let prompt = |values: &[f64]| values.chunks(heads).map(<[f64]>::to_vec).collect();
        Ok(values.chunks(layers * heads).map(prompt).collect())
    }
}
