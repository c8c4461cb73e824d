//! `kvprof profile`: prefill prompts, measure every head, leave a profile folder.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use candle_core::Device;
use kvprof::dataset;
use kvprof::model::footprint::Prefill;
use kvprof::model::{Model, ModelHeader};
use kvprof::profile::{self, MeasureOptions, Meta, Profile, Prompt, Run, prompts_sha256};

use super::jobs::JobArguments;
use super::load::ModelArguments;
use super::long_run::{TokenProgress, progress_bar, stop_cleanly};
use super::prompts::{PromptArguments, PromptSet};
use super::room::Room;
use super::summary::Summary;
use super::{counted, quoted};

/// Arguments of `kvprof profile`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
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
    /// Seed, kept as provenance: nothing in a profile is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output folder; by default named after model and data set
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Say what it would take in memory and whether that is there, and do nothing
    #[arg(long, conflicts_with_all = ["out", "resume"])]
    dry_run: bool,
    /// Continue a run that was interrupted
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    jobs: JobArguments,
    /// No progress and no table
    #[arg(long)]
    quiet: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
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

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let set = self.prompts.open(&self.data)?;
        let (header, device) = self.model.open(self.quiet)?;
        let cases = set.cases_of(&header)?;
        let prompts: Vec<Prompt> = cases.iter().map(Prompt::from).collect();
        let room = Room::of(
            &Prefill {
                config: &header.config,
                weights: header.weight_memory(&device, self.model.dtype.0),
                device: &device,
                precision: self.model.precision()?,
                window: self.window.0,
                jobs: self.jobs.at_once(prompts.len()),
            },
            &prompts,
        );
        if self.dry_run {
            return room.write(&header, self.json);
        }
        room.refuse_what_cannot_fit()?;
        let meta = self.meta(&set, &header, &device, &prompts)?;
        let folder = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("profile-{}-{}", meta.model, meta.dataset)));
        let run = Run::prepare(&folder, meta, self.resume)?;
        stop_cleanly(&folder);
        let model = self.model.read(header, &device)?;
        self.measure(&run, &prompts, &model)?;
        let profile = run.finish()?;
        self.report(&profile, &folder)
    }

    fn options(&self) -> MeasureOptions {
        MeasureOptions {
            window: self.window.0,
            thresholds: self.thresholds.clone(),
            output_thresholds: self.output_thresholds.clone(),
            needs: None,
        }
    }

    /// What can be refused before a model is fetched or loaded.
    fn check(&self) -> anyhow::Result<()> {
        self.prompts.check()?;
        self.jobs.check()?;
        self.options().check()?;
        if let Some(folder) = &self.out {
            profile::KIND.check_place::<Meta>(folder)?;
        }
        Ok(())
    }

    fn meta(
        &self,
        set: &PromptSet<'_>,
        header: &ModelHeader,
        device: &Device,
        prompts: &[Prompt],
    ) -> anyhow::Result<Meta> {
        let (files, config) = (&header.files, &header.config);
        let precision = self.model.precision()?;
        Ok(Meta {
            command: super::command_line(&["--resume", "--quiet", "--json"]),
            dataset: set.data.name.clone(),
            dataset_sha256: set.data.sha256.clone(),
            template: set.template_digest(),
            prompts: prompts.len(),
            prompts_sha256: prompts_sha256(prompts),
            max_prompt_tokens: self.prompts.max_prompt_tokens,
            seed: self.seed,
            ..Meta::of_files(files, config, device, precision, &self.options())
        })
    }

    fn measure(&self, run: &Run, prompts: &[Prompt], model: &Model) -> anyhow::Result<()> {
        let layers = model.decoder.config().num_hidden_layers.max(1);
        let todo: Vec<usize> = (0..prompts.len()).filter(|&i| !run.has(i)).collect();
        let tokens: usize = todo.iter().map(|&i| prompts[i].ids.len()).sum();
        let bar = progress_bar(tokens, "tokens", self.quiet);
        self.jobs.run(&todo, &|index| {
            let prompt = &prompts[index];
            bar.set_message(format!("prompt {}/{}", index + 1, prompts.len()));
            let mut progress = TokenProgress::of(&bar, layers);
            run.measure(index, prompt, &model.decoder, &mut |tokens| {
                progress.layer_done(tokens);
            })
            .with_context(|| format!("profiling prompt {} ({})", index + 1, prompt.id))
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    fn report(&self, profile: &Profile, folder: &Path) -> anyhow::Result<()> {
        let summary = Summary::of(profile)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let value = serde_json::json!({
                "profile": folder, "meta": profile.meta, "layers": summary.to_json(),
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        } else if !self.quiet {
            summary.write(&mut out)?;
            let meta = &profile.meta;
            let tokens = profile.layers.counts("tokens")?;
            let (least, most) = (tokens.iter().min(), tokens.iter().max());
            writeln!(
                out,
                "\nMean over {} of {} ({} to {} tokens), written to {}",
                counted(meta.prompts, "prompt"),
                meta.dataset,
                least.unwrap_or(&0),
                most.unwrap_or(&0),
                folder.display()
            )?;
            let mut next = format!(
                "kvprof plot lmba --profile {}",
                quoted(&folder.to_string_lossy())
            );
            if !meta.thresholds.contains(&0.9) {
                next.push_str(&format!(" --threshold {}", summary.threshold()));
            }
            writeln!(out, "Next: {next}")?;
        }
        Ok(())
    }
}
