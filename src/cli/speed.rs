//! `kvprof speed`: what a cache saves per token, what it costs in bytes, and what budgets leave of both.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use kvprof::budget::Floor;
use kvprof::dataset::needle::{self, Depths};
use kvprof::dataset::{Template, cut};
use kvprof::eval::speed::{
    self, Measurement, Mode, Prompt, Speed, SpeedOptions, SpeedRecord, SpeedSettings, Summary,
};
use kvprof::method::Ranking;
use kvprof::model::Model;
use kvprof::profile::{self, prompts_sha256};
use kvprof::run::{DataRecord, ModelRecord, RunFolder};
use kvprof::select::HeadSplit;
use serde_json::{Value, json};

use super::compress::deployable;
use super::load::ModelArguments;
use super::long_run::{RunArguments, progress_bar, run_command, stop_cleanly};
use super::parameters::object;
use super::quoted;
use super::text_table::{once, text_table};

/// Arguments of `kvprof speed`.
#[derive(Debug, clap::Args)]
pub struct SpeedArguments {
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
    #[command(flatten)]
    run: RunArguments,
}

impl SpeedArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let (options, ranking) = (self.options(), self.ranking()?);
        self.check(&options)?;
        let model = self.model.load_checked(self.run.quiet, |header| {
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
        let folder = self.run.folder(&["speed", &model.files.name]);
        let prompts = self.prompts(&model)?;
        let record = self.record(&model, &prompts, &options, &ranking);
        let run = RunFolder::prepare(&folder, record, prompts.len(), self.run.resume)?
            .reading(model.files.in_use.clone());
        stop_cleanly(&folder);
        self.measure(&run, &model, &prompts, &options, &ranking)?;
        run.finish()?;
        self.report(&Speed::load(&folder)?, &folder)
    }

    fn options(&self) -> SpeedOptions {
        SpeedOptions {
            budgets: super::sorted(&self.budgets),
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
    fn check(&self, options: &SpeedOptions) -> anyhow::Result<()> {
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
        self.run.check_place::<SpeedSettings>()
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
        let lengths = super::sorted(&self.lengths);
        data.records.iter().zip(lengths).map(prompt).collect()
    }

    /// Measures the lengths that are not there yet.
    fn measure(
        &self,
        run: &RunFolder<SpeedSettings>,
        model: &Model,
        prompts: &[Prompt],
        options: &SpeedOptions,
        ranking: &Ranking,
    ) -> anyhow::Result<()> {
        let todo = || prompts.iter().enumerate().filter(|(i, _)| !run.has(*i));
        let rounds = |p: &Prompt| options.modes(p.ids.len()).len() * options.repeats;
        let total = todo().map(|(_, prompt)| rounds(prompt)).sum();
        let bar = progress_bar(total, "measurements", self.run.quiet);
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

    fn record(
        &self,
        model: &Model,
        prompts: &[Prompt],
        options: &SpeedOptions,
        ranking: &Ranking,
    ) -> SpeedRecord {
        let measured: Vec<_> = (prompts.iter())
            .map(|prompt| profile::Prompt {
                id: prompt.length.to_string(),
                ids: prompt.ids.clone(),
            })
            .collect();
        let data = DataRecord {
            prompts_sha256: prompts_sha256(&measured),
            ..DataRecord::default()
        };
        let settings = SpeedSettings {
            threads: candle_core::utils::get_num_threads(),
            scorer: self.scorer.clone(),
            scorer_parameters: ranking.scorer.parameters(),
            sinks: self.sinks,
            window: self.window,
            lengths: prompts.iter().map(|p| p.length).collect(),
            budgets: options.budgets.clone(),
            steps: options.steps,
            uncached_steps: options.uncached_steps,
            repeats: options.repeats,
            seed: self.seed,
        };
        SpeedRecord::new(run_command(), ModelRecord::of_model(model), data, settings)
    }

    fn report(&self, speed: &Speed, folder: &Path) -> anyhow::Result<()> {
        let summaries = speed::summarise(&speed.measurements);
        let json = || {
            let rows: Vec<Value> = summaries.iter().map(|s| as_json(s, &summaries)).collect();
            json!({"speed": folder, "meta": speed.meta, "summary": rows})
        };
        self.run.show(json, |out| {
            write_table(out, &speed.meta, &summaries)?;
            writeln!(out, "\nWritten to {}", folder.display())?;
            let folder = quoted(&folder.to_string_lossy());
            writeln!(out, "Next: kvprof plot speed --speed {folder}")?;
            Ok(())
        })
    }
}

/// The full cache at the same length.
fn full_of<'s>(summary: &Summary, all: &'s [Summary]) -> Option<&'s Summary> {
    all.iter()
        .find(|s| s.length == summary.length && s.mode == Mode::Full)
}

fn as_json(summary: &Summary, all: &[Summary]) -> Value {
    let budget = match summary.mode {
        Mode::Budget(tokens) => Some(tokens),
        Mode::NoCache | Mode::Full => None,
    };
    let full = full_of(summary, all);
    json!({
        "length": summary.length, "tokens": summary.tokens, "mode": summary.mode.name(),
        "budget": budget, "repeats": summary.repeats, "ms_per_token": summary.median_ms,
        "ms_per_token_least": summary.least_ms, "ms_per_token_most": summary.most_ms,
        "kv_bytes": summary.kv_bytes, "prefill_s": summary.prefill_s, "resident_bytes": summary.resident_bytes,
        "time_of_full": full.map(|f| summary.median_ms / f.median_ms),
        "bytes_of_full": full.map(|f| summary.kv_bytes as f64 / f.kv_bytes as f64),
    })
}

fn write_table(out: &mut impl Write, meta: &SpeedRecord, all: &[Summary]) -> std::io::Result<()> {
    let headings = "length, <held, ms/token, least to most, of full, KV MB, of full";
    let mut table = text_table(headings.split(", "));
    let mut length = None;
    for s in all {
        let of_full = full_of(s, all).map(|f| {
            let bytes = 100.0 * s.kv_bytes as f64 / f.kv_bytes as f64;
            let time = s.median_ms / f.median_ms;
            (format!("{time:.2} x"), format!("{bytes:.1} %"))
        });
        let (time, bytes) = of_full.unwrap_or_default();
        table.add_row([
            once(&mut length, s.length),
            s.mode.to_string(),
            format!("{:.1}", s.median_ms),
            format!("{:.1} to {:.1}", s.least_ms, s.most_ms),
            time,
            format!("{:.2}", s.kv_bytes as f64 / 1e6),
            bytes,
        ]);
    }
    let (settings, model) = (&meta.settings, &meta.model);
    writeln!(
        out,
        "{}\n\nMedian of {} repeats in turns, {} steps each ({} without a cache); {} in {} on {}",
        table.trim_fmt(),
        settings.repeats,
        settings.steps,
        settings.uncached_steps,
        model.name,
        model.dtype,
        model.device
    )?;
    let full = all.iter().filter(|s| s.mode == Mode::Full);
    let prefills: Vec<String> = full
        .map(|s| format!("{} in {:.1} s", s.length, s.prefill_s))
        .collect();
    writeln!(out, "One prefill a length: {}", prefills.join(", "))
}
