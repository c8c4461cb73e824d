//! `kvprof speed`: what a cache saves per token, what it costs in bytes, and what budgets leave of both.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::budget::Floor;
use kvprof::dataset::needle::{self, Depths};
use kvprof::dataset::{Template, cut};
use kvprof::eval::speed::{self, Measurement, Meta, Mode, Options, Prompt, Speed, Summary};
use kvprof::method::Ranking;
use kvprof::model::Model;
use kvprof::parts::PartsFolder;
use kvprof::profile::{self, prompts_sha256};
use kvprof::select::HeadSplit;
use serde_json::Value;

use super::compress::deployable;
use super::load::ModelArguments;
use super::long_run::{progress_bar, stop_cleanly};
use super::parameters::object;
use super::quoted;

/// Arguments of `kvprof speed`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Prompt lengths in tokens
    #[arg(long, value_delimiter = ',', default_values_t = [512, 1024, 2048, 4096])]
    lengths: Vec<usize>,
    /// Budgets in tokens per KV head, the same in every layer
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256, 1024])]
    budgets: Vec<usize>,
    /// Rule that ranks tokens; `kvprof list scorers` names them all
    #[arg(long, default_value = "snapkv")]
    scorer: String,
    /// A parameter of the scorer; repeat it for several
    #[arg(long = "scorer-set", value_name = "KEY=VALUE")]
    scorer_parameters: Vec<String>,
    /// First tokens that always stay
    #[arg(long, default_value_t = 4)]
    sinks: usize,
    /// Last tokens that always stay, and the rows that scorers look from
    #[arg(long, default_value_t = 32)]
    window: usize,
    /// Decoding steps that a repeat times
    #[arg(long, default_value_t = 16)]
    steps: usize,
    /// Tokens that a repeat times without a cache; 0 leaves that out
    #[arg(long, default_value_t = 1)]
    no_cache_steps: usize,
    /// How often everything is measured, in turns
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Seed of the prompts, which are needles in haystacks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output folder; by default named after the model
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Continue a measurement that was interrupted, or show a finished one again
    #[arg(long)]
    resume: bool,
    /// No progress and no table
    #[arg(long)]
    quiet: bool,
    /// Print medians as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        let (options, ranking) = (self.options(), self.ranking()?);
        self.check(&options)?;
        let model = self.model.load_checked(self.quiet, |header| {
            let context = header.config.max_position_embeddings;
            let most = context.saturating_sub(self.steps + 1);
            let long = self.lengths.iter().find(|length| **length > most);
            anyhow::ensure!(
                long.is_none(),
                "--lengths {} and {} steps exceed the model's context of {context}: at most {most}",
                long.unwrap_or(&0),
                self.steps + 1
            );
            Ok(self.lengths.iter().max().copied().unwrap_or(0))
        })?;
        let folder = match &self.out {
            Some(folder) => folder.clone(),
            None => PathBuf::from(format!("speed-{}", model.files.name)),
        };
        let prompts = self.prompts(&model)?;
        let meta = self.meta(&model, &prompts, &options, &ranking);
        let run = PartsFolder::prepare(&folder, &speed::KIND, meta, prompts.len(), self.resume)?;
        stop_cleanly(&folder);
        self.measure(&run, &model, &prompts, &options, &ranking)?;
        run.finish()?;
        self.report(&Speed::load(&folder)?, &folder)
    }

    fn options(&self) -> Options {
        let mut budgets = self.budgets.clone();
        budgets.sort_unstable();
        budgets.dedup();
        Options {
            budgets,
            steps: self.steps,
            uncached_steps: self.no_cache_steps,
            repeats: self.repeats,
        }
    }

    fn ranking(&self) -> anyhow::Result<Ranking> {
        let parameters = Value::Object(object("--scorer-set", &self.scorer_parameters)?);
        Ok(Ranking {
            name: self.scorer.clone(),
            scorer: deployable(&self.scorer, parameters)?,
            split: HeadSplit::PerHead,
        })
    }

    /// What can be refused before a model is loaded.
    fn check(&self, options: &Options) -> anyhow::Result<()> {
        let stays = self.sinks.saturating_add(self.window);
        options.check(stays)?;
        anyhow::ensure!(
            !self.lengths.is_empty(),
            "--lengths is empty, one is needed"
        );
        let longest = self.lengths.iter().max().copied().unwrap_or(0);
        anyhow::ensure!(
            longest > stays,
            "--lengths {longest} is not above the {stays} tokens that sinks ({}) and window ({}) take: allow more",
            self.sinks,
            self.window
        );
        let idle = self.budgets.iter().find(|budget| **budget >= longest);
        anyhow::ensure!(
            idle.is_none(),
            "--budgets {} cuts nothing from prompts of at most {longest} tokens: take a smaller one",
            idle.unwrap_or(&0)
        );
        if let Some(folder) = &self.out {
            speed::KIND.check_place::<Meta>(folder)?;
        }
        Ok(())
    }

    /// A needle prompt of every length, each once and in order.
    fn prompts(&self, model: &Model) -> anyhow::Result<Vec<Prompt>> {
        let ids = |text: &str| model.message_ids(text, false, None, cut::middle_cut);
        let grid = needle::Options {
            lengths: self.lengths.clone(),
            depths: Depths::new(vec![50.0])?,
            seeds: self.seed..self.seed.saturating_add(1),
        };
        let data = needle::dataset(&grid, &|text| Ok(ids(text)?.len())).context("--lengths")?;
        let template = Template::default_for(data.kind);
        let prompt = |(record, length): (_, usize)| {
            let ids = ids(&template.render(record)?.text)?;
            Ok(Prompt { length, ids })
        };
        let mut lengths = self.lengths.clone();
        lengths.sort_unstable();
        lengths.dedup();
        data.records.iter().zip(lengths).map(prompt).collect()
    }

    /// Measures the lengths that are not there yet.
    fn measure(
        &self,
        run: &PartsFolder<Meta>,
        model: &Model,
        prompts: &[Prompt],
        options: &Options,
        ranking: &Ranking,
    ) -> anyhow::Result<()> {
        let todo = || prompts.iter().enumerate().filter(|(i, _)| !run.has(*i));
        let rounds = |p: &Prompt| options.modes(p.ids.len()).len() * options.repeats;
        let total = todo().map(|(_, prompt)| rounds(prompt)).sum();
        let bar = progress_bar(total, "measurements", self.quiet);
        for (index, prompt) in todo() {
            bar.set_message(format!("{} tokens", prompt.length));
            let mut done = |_: &Measurement| bar.inc(1);
            let floor = Floor::of(self.sinks, self.window);
            let measured =
                speed::measure(&model.decoder, prompt, options, ranking, floor, &mut done);
            let rows = measured.with_context(|| format!("measuring {} tokens", prompt.length))?;
            run.write(index, &[speed::speed_table(&rows)])?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn meta(
        &self,
        model: &Model,
        prompts: &[Prompt],
        options: &Options,
        ranking: &Ranking,
    ) -> Meta {
        let measured: Vec<_> = (prompts.iter())
            .map(|prompt| profile::Prompt {
                id: prompt.length.to_string(),
                ids: prompt.ids.clone(),
            })
            .collect();
        Meta {
            schema: speed::SCHEMA,
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command: super::command_line(&["--resume", "--quiet", "--json"]),
            model: model.files.name.clone(),
            model_source: model.files.origin.clone(),
            model_sha256: model.files.sha256.clone(),
            device: format!("{:?}", model.decoder.device().location()),
            dtype: model.decoder.precision().to_string(),
            threads: candle_core::utils::get_num_threads(),
            scorer: self.scorer.clone(),
            scorer_parameters: ranking.scorer.parameters(),
            sinks: self.sinks,
            window: self.window,
            lengths: prompts.iter().map(|p| p.length).collect(),
            budgets: options.budgets.clone(),
            prompts_sha256: prompts_sha256(&measured),
            steps: options.steps,
            uncached_steps: options.uncached_steps,
            repeats: options.repeats,
            seed: self.seed,
        }
    }

    fn report(&self, speed: &Speed, folder: &Path) -> anyhow::Result<()> {
        let summaries = speed::summarise(&speed.measurements);
        let mut out = std::io::stdout().lock();
        if self.json {
            let rows: Vec<Value> = summaries.iter().map(|s| json(s, &summaries)).collect();
            let value = serde_json::json!({"speed": folder, "meta": speed.meta, "summary": rows});
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        } else if !self.quiet {
            write_table(&mut out, &speed.meta, &summaries)?;
            writeln!(out, "\nWritten to {}", folder.display())?;
            let folder = quoted(&folder.to_string_lossy());
            writeln!(out, "Next: kvprof plot speed --speed {folder}")?;
        }
        Ok(())
    }
}

/// The full cache at the same length.
fn full_of<'s>(summary: &Summary, all: &'s [Summary]) -> Option<&'s Summary> {
    all.iter()
        .find(|s| s.length == summary.length && s.mode == Mode::Full)
}

fn json(summary: &Summary, all: &[Summary]) -> Value {
    let budget = match summary.mode {
        Mode::Budget(tokens) => Some(tokens),
        Mode::NoCache | Mode::Full => None,
    };
    let full = full_of(summary, all);
    serde_json::json!({
        "length": summary.length, "tokens": summary.tokens, "mode": summary.mode.name(),
        "budget": budget, "repeats": summary.repeats, "ms_per_token": summary.median_ms,
        "ms_per_token_least": summary.least_ms, "ms_per_token_most": summary.most_ms,
        "kv_bytes": summary.kv_bytes, "prefill_s": summary.prefill_s, "resident_bytes": summary.resident_bytes,
        "time_of_full": full.map(|f| summary.median_ms / f.median_ms),
        "bytes_of_full": full.map(|f| summary.kv_bytes as f64 / f.kv_bytes as f64),
    })
}

fn write_table(out: &mut impl Write, meta: &Meta, summaries: &[Summary]) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>7}  {:<12} {:>9}  {:>19}  {:>9}  {:>9}  {:>7}",
        "length", "held", "ms/token", "least to most", "of full", "KV MB", "of full"
    )?;
    let mut length = None;
    for s in summaries {
        let shown = match length.replace(s.length) == Some(s.length) {
            true => String::new(),
            false => s.length.to_string(),
        };
        let range = format!("{:.1} to {:.1}", s.least_ms, s.most_ms);
        let (time, bytes) = match full_of(s, summaries) {
            Some(full) => (
                format!("{:.2} x", s.median_ms / full.median_ms),
                format!("{:.1} %", 100.0 * s.kv_bytes as f64 / full.kv_bytes as f64),
            ),
            None => (String::new(), String::new()),
        };
        let megabytes = s.kv_bytes as f64 / 1e6;
        writeln!(
            out,
            "{shown:>7}  {:<12} {:>9.1}  {range:>19}  {time:>9}  {megabytes:>9.2}  {bytes:>7}",
            s.mode.to_string(),
            s.median_ms,
        )?;
    }
    writeln!(
        out,
        "\nMedian of {} repeats in turns, {} steps each ({} without a cache); {} in {} on {}",
        meta.repeats, meta.steps, meta.uncached_steps, meta.model, meta.dtype, meta.device
    )?;
    let full = summaries.iter().filter(|s| s.mode == Mode::Full);
    let prefills: Vec<String> = full
        .map(|s| format!("{} in {:.1} s", s.length, s.prefill_s))
        .collect();
    writeln!(out, "One prefill a length: {}", prefills.join(", "))
}
