//! `kvprof profile`: prefill prompts, measure every head, leave a profile folder.

use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use kvprof::dataset;
use kvprof::model::cache::Representation;
use kvprof::model::footprint::Prefill;
use kvprof::profile::{
    MeasureOptions, Profile, ProfileRecord, ProfileRun, ProfileSettings, Prompt,
};
use kvprof::run::ModelRecord;
use serde_json::json;

use super::jobs::JobArguments;
use super::load::ModelArguments;
use super::long_run::{PromptWork, RunArguments, run_command, stop_cleanly};
use super::memory_need::MemoryNeed;
use super::prompts::PromptArguments;
use super::summary::Summary;
use super::{counted, quoted};

/// Arguments of `kvprof profile`.
#[derive(Debug, clap::Args)]
pub struct ProfileArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Data set: a built-in name, or a path to JSONL or Parquet
    #[arg(long, default_value = dataset::DEFAULT)]
    data: String,
    #[command(flatten)]
    prompts: PromptArguments,
    /// Observation window in rows, or `all`
    #[arg(long, default_value = "32")]
    window: Window,
    /// Retained-mass thresholds of MBA
    #[arg(long, value_delimiter = ',', default_values_t = MeasureOptions::default().thresholds)]
    thresholds: Vec<f64>,
    /// Cosine thresholds of LMBO
    #[arg(long, value_delimiter = ',', default_values_t = MeasureOptions::default().output_thresholds)]
    output_thresholds: Vec<f64>,
    /// Types of the cache whose cost is measured, separated by `;`: f16, q8, q4, q2, k=q8,v=q4, q8_0, ..; none by default
    #[arg(long, value_name = "TYPES", value_delimiter = ';')]
    quantise: Vec<Representation>,
    /// Seed, kept as provenance: nothing in a profile is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Say what it would take in memory and whether that is there, and do nothing
    #[arg(long, conflicts_with_all = ["out", "resume"])]
    dry_run: bool,
    #[command(flatten)]
    jobs: JobArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Clone, Copy, Debug)]
struct Window(Option<usize>);

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|w| Self(Some(w)))
                .map_err(|_| "expected a number or `all`".into()),
        }
    }
}

impl ProfileArguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.prompts.check()?;
        self.jobs.check()?;
        let measures = MeasureOptions {
            window: self.window.0,
            thresholds: self.thresholds.clone(),
            output_thresholds: self.output_thresholds.clone(),
            quantise: self.quantise.clone(),
            needs: None,
        };
        measures.check()?;
        self.run.check_place::<ProfileSettings>()?;
        let set = self.prompts.open(&self.data)?;
        let (header, device) = self.model.open(self.run.quiet)?;
        measures.check_types(header.config.head_dim, &device)?;
        let cases = set.cases_of(&header)?;
        let prompts: Vec<Prompt> = cases.iter().map(Prompt::from).collect();
        let precision = self.model.precision()?;
        let need = MemoryNeed::of(
            &Prefill {
                config: &header.config,
                weights: header.weight_memory(&device, precision.dtype),
                device: &device,
                precision,
                window: self.window.0,
                compares_types: !self.quantise.is_empty(),
                jobs: self.jobs.at_once(prompts.len()),
            },
            &prompts,
        );
        if self.dry_run {
            return need.write(&header, self.run.json);
        }
        need.refuse_what_cannot_fit()?;
        let record = ProfileRecord::new(
            run_command(),
            ModelRecord::of_files(&header.files, &header.config, &device, precision),
            set.record(&prompts),
            ProfileSettings {
                measures,
                seed: self.seed,
            },
        );
        let names = ["profile", &record.model.name, &record.data.name];
        let folder = self.run.folder(&names);
        let run = ProfileRun::prepare(&folder, record, prompts.len(), self.run.resume)?
            .reading(header.files.in_use.clone());
        stop_cleanly(&folder);
        let decoder = self.model.read(header, &device)?.decoder;
        let work = PromptWork {
            prompts: &prompts,
            generated: 0,
            layers: decoder.config().num_hidden_layers(),
            quiet: self.run.quiet,
        };
        work.measure(
            self.jobs,
            |index| run.has(index),
            &|index, prompt, on_layer| run.measure(index, prompt, &decoder, on_layer),
        )?;
        run.finish()?;
        self.report(&Profile::load(&folder)?, &folder)
    }

    fn report(&self, profile: &Profile, folder: &Path) -> anyhow::Result<()> {
        let (summary, meta) = (Summary::of(profile)?, &profile.meta);
        let types = type_costs(profile)?;
        let json = || {
            json!({
                "profile": folder, "meta": meta, "layers": summary.to_json(), "types": types,
            })
        };
        self.run.show(json, |out| {
            let tokens = profile.layers.counts("tokens")?;
            writeln!(
                out,
                "{}\n\nMean over {} of {} ({} to {} tokens), written to {}",
                summary.table(),
                counted(meta.data.prompts, "prompt"),
                meta.data.name,
                tokens.iter().min().unwrap_or(&0),
                tokens.iter().max().unwrap_or(&0),
                folder.display()
            )?;
            write_types(out, &types)?;
            let shown = quoted(&folder.to_string_lossy());
            let threshold = if meta.settings.measures.thresholds.contains(&0.9) {
                String::new()
            } else {
                format!(" --threshold {}", summary.threshold())
            };
            writeln!(out, "Next: kvprof plot lmba --profile {shown}{threshold}")?;
            Ok(())
        })
    }
}

/// What a type of the cache costs: relative L2 of the layers' outputs, mean over prompts.
#[derive(serde::Serialize)]
struct TypeCost {
    cache: String,
    mean: f64,
    most: f64,
    layer_of_most: usize,
}

/// One for every type that was measured.
fn type_costs(profile: &Profile) -> anyhow::Result<Vec<TypeCost>> {
    if profile.quantisation.is_none() {
        return Ok(Vec::new());
    }
    let errors = profile.type_grid("l2_pooled")?;
    let types = profile.meta.settings.measures.quantise.iter().enumerate();
    let costs = types.filter_map(|(i, held_as)| {
        let layers = 0..profile.meta.model.num_layers;
        let of_layer = |l: usize| {
            let prompts = errors.iter().filter_map(|layers| layers.get(l)?.get(i));
            prompts.sum::<f64>() / errors.len().max(1) as f64
        };
        let means: Vec<f64> = layers.map(of_layer).collect();
        let most = means.iter().copied().enumerate();
        let (layer_of_most, most) = most.max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(TypeCost {
            cache: held_as.to_string(),
            mean: means.iter().sum::<f64>() / means.len().max(1) as f64,
            most,
            layer_of_most,
        })
    });
    Ok(costs.collect())
}

/// A line for each.
fn write_types(out: &mut impl Write, costs: &[TypeCost]) -> std::io::Result<()> {
    if costs.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nRelative L2 of the output with keys and values in other types, mean over prompts:"
    )?;
    costs.iter().try_for_each(|cost| {
        let TypeCost {
            cache,
            mean,
            most,
            layer_of_most,
        } = cost;
        writeln!(
            out,
            "{cache}: {mean:.5}, at most {most:.5} in layer {layer_of_most}"
        )
    })
}
