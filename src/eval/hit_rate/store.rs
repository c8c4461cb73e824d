//! Hit rates on disk, and their means over heads and prompts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::counts::HitCounts;
use super::options::HitRateOptions;
use crate::error::{Error, Result};
use crate::run::{RunKind, RunRecord, RunSettings, read_tables};
use crate::table::Table;

const TABLE: &str = "hitrate";

/// How measurements of hit rates lie on disk.
pub static KIND: RunKind = RunKind {
    noun: "hit-rate run",
    made_with: "kvprof hitrate",
    or_made_with: &[],
    drawn_with: "kvprof plot hitrate --hitrate",
    tables: &[TABLE],
    schema: 1,
    fields: "schema kvprof command model model_source model_sha256 num_layers num_heads windows? dataset dataset_sha256 template \
             prompts prompts_sha256 max_prompt_tokens? protocol? options device dtype",
};

impl RunSettings for HitRateSettings {
    const KIND: &'static RunKind = &KIND;

    fn check(&self) -> Result<()> {
        self.options.check()
    }
}

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

/// What a measurement of hit rates was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HitRateSettings {
    /// Windows, K and θ.
    pub options: HitRateOptions,
}

/// Provenance and settings of hit rates.
pub type HitRateRecord = RunRecord<HitRateSettings>;

/// Hit rates in memory.
#[derive(Clone, Debug)]
pub struct HitRates {
    /// Provenance and settings.
    pub meta: HitRateRecord,
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
        let meta = HitRateRecord::read(folder)?;
        let [table] = read_tables(folder, [TABLE])?;
        let rates = Self { meta, table };
        rates.check_shape(folder)?;
        Ok(rates)
    }

    fn windows(&self, observation: Observation) -> usize {
        match observation {
            Observation::Prompt => self.meta.settings.options.windows,
            Observation::Generated => self.meta.settings.options.generated_windows,
        }
    }

    /// Prompt, layer, head, observation and window of every row, in order.
    fn keys(&self) -> impl Iterator<Item = ([usize; 4], Observation)> {
        let (prompts, model) = (self.meta.data.prompts, &self.meta.model);
        let windows = move |o: Observation| (0..self.windows(o)).map(move |w| (o, w));
        let heads = (0..prompts)
            .flat_map(|p| (0..model.num_layers).map(move |l| (p, l)))
            .flat_map(|(p, l)| (0..model.num_heads).map(move |h| (p, l, h)));
        heads.flat_map(move |(p, l, h)| {
            let of_head = Observation::ALL.into_iter().flat_map(windows);
            of_head.map(move |(o, w)| ([p, l, h, w], o))
        })
    }

    /// The table must hold the rows that `meta.json` promises, in the order that readers rely on.
    fn check_shape(&self, folder: &Path) -> Result<()> {
        let index = |name: &str| self.table.counts(name);
        let (prompt, layer) = (index("prompt")?, index("layer")?);
        let indices = [prompt, layer, index("head")?, index("window")?];
        let found = self.table.texts("observation")?.iter().enumerate();
        let found = found.map(|(row, o)| (indices.map(|column| column[row] as usize), o.as_str()));
        // The table's rows are compared first: a damaged file may promise any number.
        if found.eq(self.keys().map(|(key, o)| (key, o.name()))) {
            return Ok(());
        }
        let problem = format!(
            "{TABLE}.parquet does not hold the rows of {} prompts in order of prompt, layer, head \
             and window: it was changed or damaged, run kvprof hitrate again",
            self.meta.data.prompts
        );
        Err(Error::format(folder, problem))
    }

    /// The rates of every window of an observation, in the order of the text.
    ///
    /// Errors: [`Error::UnknownName`] for a missing column; [`Error::NotFinite`].
    pub fn rates(&self, observation: Observation) -> Result<Vec<WindowRates>> {
        let (all, beyond_sinks) = (self.counts("")?, self.counts("_beyond_sinks")?);
        let overlap = self.finite("overlap")?;
        let (prompts, model) = (self.meta.data.prompts, &self.meta.model);
        // Prompt and number of every row, `[window][layer]`.
        let mut windows = vec![vec![Vec::new(); model.num_layers]; self.windows(observation)];
        for (row, ([p, l, _, w], other)) in self.keys().enumerate() {
            if other == observation {
                windows[w][l].push((p, row));
            }
        }
        let heads = (prompts * model.num_heads) as f64;
        let overlap =
            |rows: &Cell| -> f64 { rows.iter().map(|&(_, row)| overlap[row] / heads).sum() };
        let rates = |layers: &Vec<Cell>| WindowRates {
            all: LayerRates::of(layers, &all),
            beyond_sinks: LayerRates::of(layers, &beyond_sinks),
            overlap: layers.iter().map(overlap).collect(),
        };
        Ok(windows.iter().map(rates).collect())
    }

    /// Hits of every row.
    fn counts(&self, suffix: &str) -> Result<Vec<HitCounts>> {
        let hits = self.finite(&format!("hits{suffix}"))?;
        let steps = self.table.counts(&format!("steps{suffix}"))?;
        let skipped = self.table.counts(&format!("skipped{suffix}"))?;
        let counts = hits.into_iter().zip(steps).zip(skipped);
        let counts = counts.map(|((hits, &steps), &skipped)| HitCounts {
            hits,
            steps: steps as usize,
            skipped: skipped as usize,
            important: 0,
        });
        Ok(counts.collect())
    }

    /// Tokens that the model wrote before the first stop id, for every prompt.
    ///
    /// Errors: [`Error::UnknownName`] for a missing column.
    pub fn answer_tokens(&self) -> Result<Vec<u32>> {
        let tokens = self.table.counts("answer_tokens")?;
        let rows = self.table.rows() / self.meta.data.prompts.max(1);
        Ok(tokens.iter().step_by(rows.max(1)).copied().collect())
    }

    fn finite(&self, column: &str) -> Result<Vec<f64>> {
        let values = self.table.numbers(column)?;
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        let model = &self.meta.model.name;
        Err(Error::NotFinite {
            place: format!("column {column} of the hit rates of {model}"),
            advice: "the table was changed or damaged; run kvprof hitrate again".to_owned(),
        })
    }
}

/// Prompt and number of the rows of one layer and window, prompt after prompt.
type Cell = Vec<(usize, usize)>;

impl LayerRates {
    /// Of the rows of every layer, given the hits of all rows.
    fn of(layers: &[Cell], counts: &[HitCounts]) -> Self {
        let mut rates = Self::default();
        for rows in layers {
            let of_prompt = |heads: &[(usize, usize)]| {
                let mut sum = HitCounts::default();
                heads.iter().for_each(|&(_, row)| sum.add(&counts[row]));
                sum
            };
            let prompts = rows.chunk_by(|a, b| a.0 == b.0).map(of_prompt);
            let prompts: Vec<HitCounts> = prompts.collect();
            let counted = prompts.iter().filter(|c| c.steps > 0);
            rates.hit_rate.push(mean(counted.map(HitCounts::rate)));
            let share = |c: &HitCounts| c.steps as f64 / (c.steps + c.skipped) as f64;
            rates.counted.push(mean(prompts.iter().map(share)));
        }
        rates
    }
}

/// Arithmetic mean; NaN of nothing.
fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}
