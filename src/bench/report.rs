//! Everything about a run in one JSON value: `bench.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arithmetic::Shape;
use super::growth::{Growth, growth};
use super::limits::LimitSpreads;
use super::options::BenchOptions;
use super::run::BenchMeasurements;
use super::summary::{WorkloadRow, summarise};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Model;
use crate::model::decoder::WeightBytes;
use crate::run::{Made, ModelRecord};

/// Version of the layout.
pub const SCHEMA: u32 = 1;

/// A run with its provenance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// What made it.
    #[serde(flatten)]
    pub made: Made,
    /// What was measured.
    pub model: Measured,
    /// Where.
    pub machine: Machine,
    /// T of the prompts.
    pub lengths: Vec<usize>,
    /// How often every workload was measured.
    pub repeats: usize,
    /// Timed decoding steps of a repeat.
    pub steps: usize,
    /// What the machine could do meanwhile; `None` on a GPU.
    pub limits: Option<LimitSpreads>,
    /// Every length and workload.
    pub rows: Vec<WorkloadRow>,
    /// How the seconds of bare prefill grow; `None` below three lengths.
    pub growth: Option<Growth>,
    /// The same of its CPU seconds.
    pub cpu_growth: Option<Growth>,
    /// What was not measured.
    pub left_out: Vec<LeftOut>,
}

/// The model of a bench, in its file a level below what made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchModel {
    /// Name as a figure shows it.
    pub name: String,
    /// Where the weights came from.
    pub source: String,
    /// SHA-256 of the weight file.
    pub sha256: String,
    /// Device it ran on.
    pub device: String,
    /// What products are computed in, and what the cache holds where that is another type: `f32, cache bf16`.
    pub dtype: String,
}

impl From<ModelRecord> for BenchModel {
    fn from(model: ModelRecord) -> Self {
        Self {
            name: model.name,
            source: model.source,
            sha256: model.sha256,
            device: model.device,
            dtype: model.dtype,
        }
    }
}

/// The model and what it holds in memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The model.
    #[serde(flatten)]
    pub model: BenchModel,
    /// Bytes of the weights in memory.
    pub weights: WeightBytes,
    /// Bytes that one token takes in the full cache.
    pub cache_bytes_per_token: usize,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the CPU as the system tells it.
    pub cpu: Option<String>,
    /// Threads that share the work on a CPU.
    pub threads: usize,
    /// Processes that wanted to run, mean over the minute before the measurement.
    pub load: Option<f64>,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let text = std::fs::read_to_string("/proc/loadavg").ok();
        let first = text.as_deref().and_then(|t| t.split_whitespace().next());
        Self {
            cpu: cpu_name(),
            threads: rayon::current_num_threads(),
            load: first.and_then(|number| number.parse().ok()),
        }
    }
}

/// A workload that a length was too short for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeftOut {
    /// T.
    pub length: usize,
    /// Its name.
    pub workload: &'static str,
    /// Tokens that it needs.
    pub least_tokens: usize,
}

impl BenchReport {
    /// Everything about a run.
    pub fn of(
        model: &Model,
        options: &BenchOptions,
        run: &BenchMeasurements,
        machine: Machine,
        command: String,
    ) -> Self {
        let config = model.decoder.config();
        let cache = model.decoder.precision().cache;
        let weights = model.decoder.weight_bytes();
        let shape_of = |tokens| Shape {
            config,
            weights,
            cache,
            tokens,
            steps: options.steps,
        };
        let limits = LimitSpreads::of(&run.limits);
        let best = limits.as_ref().map(LimitSpreads::best);
        let rows = summarise(&run.measurements, &shape_of, best.as_ref());
        let growth_of = |seconds: fn(&WorkloadRow) -> f64, flops_per_s| {
            let bare = rows.iter().filter(|row| row.workload == "prefill");
            let bare: Vec<_> = bare.map(|row| (row.length, seconds(row))).collect();
            growth(&bare, config, flops_per_s)
        };
        let wall = growth_of(|row| row.wall.median, best.map(|b| b.flops.wall));
        let cpu = growth_of(|row| row.cpu.median, best.map(|b| b.flops.cpu));
        let left = |(length, workload): (usize, &super::Workload)| LeftOut {
            length,
            workload: workload.name,
            least_tokens: workload.work.least_tokens(),
        };
        Self {
            made: Made::by(command, SCHEMA),
            model: Measured {
                model: ModelRecord::of_model(model).into(),
                weights,
                cache_bytes_per_token: config.cache_bytes_per_token(cache),
            },
            machine,
            lengths: options.lengths.clone(),
            repeats: options.repeats,
            steps: options.steps,
            limits,
            growth: wall,
            cpu_growth: cpu,
            rows,
            left_out: options.left_out().into_iter().map(left).collect(),
        }
    }

    /// As indented JSON; numbers that are not known are null.
    ///
    /// Errors: [`Error::Format`] where a value cannot be written.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::format(Path::new("bench.json"), e.to_string()))
    }

    /// Writes it to a file.
    ///
    /// Errors: [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        files::replace_with(path, format!("{}\n", self.to_json()?).as_bytes())
    }
}

/// Name of the CPU as Linux tells it.
pub fn cpu_name() -> Option<String> {
    name_in(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn name_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named_once_for_all_cores() {
        let text =
            "processor\t: 0\nmodel name\t: Made Up 9000\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(name_in(text).unwrap(), "Made Up 9000");
        assert_eq!(name_in("Features\t: fp asimd\n"), None);
    }
}
