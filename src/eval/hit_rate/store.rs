//! Hit rates on disk, and their means over heads and prompts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::counts::HitCounts;
use super::options::HitRateOptions;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::parts::RunKind;
use crate::table::{Column, Table};

/// Version of the folder's layout; readers refuse others.
pub const SCHEMA: u32 = 1;

const TABLE: &str = "hitrate";

/// How measurements of hit rates lie on disk.
pub static KIND: RunKind = RunKind {
    noun: "hit-rate run",
    made_with: "kvprof hitrate",
    drawn_with: "kvprof plot hitrate --hitrate",
    tables: &[TABLE],
    schema: SCHEMA,
};

/// Which of SnapKV's observations a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The important keys of generation can be identified before it: all steps, a vote per prompt window.
    Prompt,
    /// They stay the same while it goes on: the steps of one generated window, the last prompt window's vote.
    Generated,
}

impl Observation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Prompt, Self::Generated];

    /// Its value in the column `observation`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Generated => "generated",
        }
    }
}

/// Provenance and settings: the content of `meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitRateMeta {
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
    /// L.
    pub num_layers: usize,
    /// H_q.
    pub num_heads: usize,
    /// Data set name as a figure shows it.
    pub dataset: String,
    /// SHA-256 of the data set file.
    pub dataset_sha256: String,
    /// SHA-256 of the prompt template, followed by " raw" where the chat template was left out.
    pub template: String,
    /// Number of prompts.
    pub prompts: usize,
    /// SHA-256 of all prompts' token ids.
    pub prompts_sha256: String,
    /// Longest prompt allowed, in tokens; longer ones were cut in the middle.
    pub max_prompt_tokens: Option<usize>,
    /// Windows, K and θ.
    pub options: HitRateOptions,
    /// Device the model ran on.
    pub device: String,
    /// Element type of the cache and, but on the CPU, of everything else.
    pub dtype: String,
}

impl HitRateMeta {
    /// What a model and the options say; data set and command are left empty.
    pub fn of_model(model: &Model, options: &HitRateOptions) -> Self {
        let config = model.decoder.config();
        Self {
            schema: SCHEMA,
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command: String::new(),
            model: model.files.name.clone(),
            model_source: model.files.origin.clone(),
            model_sha256: model.files.sha256.clone(),
            num_layers: config.num_hidden_layers,
            num_heads: config.num_attention_heads,
            dataset: String::new(),
            dataset_sha256: String::new(),
            template: String::new(),
            prompts: 0,
            prompts_sha256: String::new(),
            max_prompt_tokens: None,
            options: options.clone(),
            device: format!("{:?}", model.decoder.device().location()),
            dtype: model.decoder.precision().to_string(),
        }
    }
}

/// Hit rates in memory.
#[derive(Clone, Debug)]
pub struct HitRates {
    /// Provenance and settings.
    pub meta: HitRateMeta,
    /// One row per prompt, layer, query head, observation, window.
    pub table: Table,
}

/// Hits of one window in every layer.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowRates {
    /// Of all important keys.
    pub all: LayerRates,
    /// Of those beyond the sinks.
    pub beyond_sinks: LayerRates,
    /// Share of the window's vote that the last prompt window names too, mean over heads and prompts.
    pub overlap: Vec<f64>,
}

/// Shares, 0 to 1, one per layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerRates {
    /// Mean over the counted steps of all heads, then over the prompts that have any; NaN for none.
    pub hit_rate: Vec<f64>,
    /// Share of the steps of all heads that are counted: those with an important key; mean over prompts.
    pub counted: Vec<f64>,
}

impl HitRates {
    /// Reads a folder of `kvprof hitrate`.
    ///
    /// Errors: [`Error::Format`] for a folder that is not a finished one.
    pub fn load(folder: &Path) -> Result<Self> {
        let meta = KIND.read_meta(folder)?;
        let table = Table::read(&folder.join(format!("{TABLE}.parquet")))?;
        let rates = Self { meta, table };
        rates.check_shape(folder)?;
        Ok(rates)
    }

    fn windows(&self, observation: Observation) -> usize {
        match observation {
            Observation::Prompt => self.meta.options.windows,
            Observation::Generated => self.meta.options.generated_windows,
        }
    }

    /// Prompt, layer, head, observation and window of every row, in order.
    fn keys(&self) -> impl Iterator<Item = ([usize; 4], Observation)> {
        let meta = &self.meta;
        let windows = move |o: Observation| (0..self.windows(o)).map(move |w| (o, w));
        let heads = (0..meta.prompts)
            .flat_map(|p| (0..meta.num_layers).map(move |l| (p, l)))
            .flat_map(|(p, l)| (0..meta.num_heads).map(move |h| (p, l, h)));
        heads.flat_map(move |(p, l, h)| {
            let of_head = Observation::ALL.into_iter().flat_map(windows);
            of_head.map(move |(o, w)| ([p, l, h, w], o))
        })
    }

    /// The table must hold the rows that `meta.json` promises, in the order that readers rely on.
    fn check_shape(&self, folder: &Path) -> Result<()> {
        let Some(Column::Text(observations)) = self.table.column("observation") else {
            return Err(Error::unknown("column", "observation", self.table.names()));
        };
        let mut indices = Vec::new();
        for name in ["prompt", "layer", "head", "window"] {
            indices.push(self.table.counts(name)?);
        }
        let same = |row: usize, key: &[usize; 4], observation: Observation| {
            let mut pairs = indices.iter().zip(key);
            pairs.all(|(column, &want)| column.get(row).is_some_and(|&i| i as usize == want))
                && observations
                    .get(row)
                    .is_some_and(|o| o == observation.name())
        };
        let (mut rows, mut ordered) = (0, true);
        // One more than there are is enough to know: a damaged file may promise any number.
        for (key, observation) in self.keys().take(self.table.rows() + 1) {
            ordered &= same(rows, &key, observation);
            rows += 1;
        }
        if ordered && rows == self.table.rows() {
            return Ok(());
        }
        let problem = format!(
            "{TABLE}.parquet does not hold the rows of {} prompts in order of prompt, layer, head \
             and window: it was changed or damaged, run kvprof hitrate again",
            self.meta.prompts
        );
        Err(Error::format(folder, problem))
    }

    /// The rates of every window of an observation, in the order of the text.
    ///
    /// Errors: [`Error::UnknownName`] for a missing column; [`Error::NotFinite`].
    pub fn rates(&self, observation: Observation) -> Result<Vec<WindowRates>> {
        let all = self.layer_rates(observation, "")?;
        let beyond = self.layer_rates(observation, "_beyond_sinks")?;
        let overlap = self.overlaps(observation)?;
        let windows = all.into_iter().zip(beyond).zip(overlap);
        Ok(windows
            .map(|((all, beyond_sinks), overlap)| WindowRates {
                all,
                beyond_sinks,
                overlap,
            })
            .collect())
    }

    /// Hit rates and counted steps of every window.
    fn layer_rates(&self, observation: Observation, suffix: &str) -> Result<Vec<LayerRates>> {
        let hits = self.finite(&format!("hits{suffix}"))?;
        let steps = self.table.counts(&format!("steps{suffix}"))?;
        let skipped = self.table.counts(&format!("skipped{suffix}"))?;
        let (prompts, layers) = (self.meta.prompts, self.meta.num_layers);
        let none = vec![vec![HitCounts::default(); prompts]; layers];
        let mut windows = vec![none; self.windows(observation)];
        for (row, ([p, l, _, w], _)) in self.rows_of(observation) {
            windows[w][l][p].add(&HitCounts {
                hits: hits[row],
                steps: steps[row] as usize,
                skipped: skipped[row] as usize,
                important: 0,
            });
        }
        let rate = |of_prompts: &Vec<HitCounts>| {
            mean(
                of_prompts
                    .iter()
                    .filter(|c| c.steps > 0)
                    .map(HitCounts::rate),
            )
        };
        let counted = |of_prompts: &Vec<HitCounts>| {
            let share = |c: &HitCounts| c.steps as f64 / (c.steps + c.skipped) as f64;
            mean(of_prompts.iter().map(share))
        };
        let of_window = |layers: &Vec<Vec<HitCounts>>| LayerRates {
            hit_rate: layers.iter().map(rate).collect(),
            counted: layers.iter().map(counted).collect(),
        };
        Ok(windows.iter().map(of_window).collect())
    }

    /// Tokens that the model wrote before the first stop id, for every prompt.
    ///
    /// Errors: [`Error::UnknownName`] for a missing column.
    pub fn answer_tokens(&self) -> Result<Vec<u32>> {
        let tokens = self.table.counts("answer_tokens")?;
        let rows = self.table.rows() / self.meta.prompts.max(1);
        Ok(tokens.iter().step_by(rows.max(1)).copied().collect())
    }

    /// `[window][layer]`: mean over heads and prompts.
    fn overlaps(&self, observation: Observation) -> Result<Vec<Vec<f64>>> {
        let overlap = self.finite("overlap")?;
        let rows = (self.meta.prompts * self.meta.num_heads) as f64;
        let mut means = vec![vec![0.0; self.meta.num_layers]; self.windows(observation)];
        for (row, ([_, l, _, w], _)) in self.rows_of(observation) {
            means[w][l] += overlap[row] / rows;
        }
        Ok(means)
    }

    fn rows_of(
        &self,
        observation: Observation,
    ) -> impl Iterator<Item = (usize, ([usize; 4], Observation))> {
        let rows = self.keys().enumerate();
        rows.filter(move |(_, (_, other))| *other == observation)
    }

    fn finite(&self, column: &str) -> Result<Vec<f64>> {
        let values = self.table.numbers(column)?;
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(Error::NotFinite {
                place: format!("column {column} of the hit rates of {}", self.meta.model),
                advice: "the table was changed or damaged; run kvprof hitrate again".to_owned(),
            }),
        }
    }
}

/// Arithmetic mean; NaN of nothing.
fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}
