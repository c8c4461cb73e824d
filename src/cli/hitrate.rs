//! `kvprof hitrate`: do windows of the prompt name the keys that generation will look at?

use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::eval::hit_rate::{self, HitRateMeta, HitRateOptions, HitRateRun};
use kvprof::model::Model;
use kvprof::profile::{Prompt, prompts_sha256};

use super::hitrate_table;
use super::jobs::JobArguments;
use super::load::ModelArguments;
use super::long_run::{TokenProgress, progress_bar, stop_cleanly};
use super::prompts::{PromptArguments, PromptSet};

/// Arguments of `kvprof hitrate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Data set: a built-in name, or a path to JSONL or Parquet
    #[arg(long, default_value = "wikimqa-style-4k")]
    data: String,
    #[command(flatten)]
    prompts: PromptArguments,
    #[command(flatten)]
    windows: WindowArguments,
    /// Output folder; by default named after model and data set
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Continue a run that was interrupted
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    jobs: JobArguments,
    /// No progress and no table
    #[arg(long)]
    quiet: bool,
    /// Print the hit rates of every window and layer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
struct WindowArguments {
    /// Windows at the end of the prompt that vote on what lies before them
    #[arg(long, default_value_t = HitRateOptions::default().windows)]
    windows: usize,
    /// Rows of a window
    #[arg(long, value_name = "ROWS", default_value_t = HitRateOptions::default().window)]
    window: usize,
    /// Windows of generated text; the model goes on past its stop ids until they are full
    #[arg(long, value_name = "WINDOWS", default_value_t = HitRateOptions::default().generated_windows)]
    generated_windows: usize,
    /// Share of the prefix that a window names
    #[arg(long, value_name = "SHARE", default_value_t = HitRateOptions::default().top)]
    top: f64,
    /// Attention above which a key is important to a generated token
    #[arg(long, value_name = "ATTENTION", default_value_t = HitRateOptions::default().theta)]
    theta: f64,
}

impl WindowArguments {
    fn options(&self) -> HitRateOptions {
        HitRateOptions {
            windows: self.windows,
            window: self.window,
            generated_windows: self.generated_windows,
            top: self.top,
            theta: self.theta,
        }
    }
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        let options = self.windows.options();
        self.check(&options)?;
        let set = self.prompts.open(&self.data)?;
        let mut prompts = Vec::new();
        // Lengths are looked at before the weights are read: nothing is measured of a prompt too short.
        let model = self.model.load_checked(self.quiet, |header| {
            let context = header.config.max_position_embeddings;
            options.check_context(context, self.prompts.max_prompt_tokens)?;
            prompts = set.cases_of(header)?.iter().map(Prompt::from).collect();
            for prompt in &prompts {
                options.check_prompt(&prompt.id, prompt.ids.len(), context)?;
            }
            let lengths = prompts
                .iter()
                .map(|p| p.ids.len() + options.generated_tokens());
            Ok(self.jobs.at_once(prompts.len()) * lengths.max().unwrap_or(0))
        })?;
        let meta = self.meta(&set, &model, &prompts, &options);
        let folder = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("hitrate-{}-{}", meta.model, meta.dataset)));
        let run = HitRateRun::prepare(&folder, meta, self.resume)?;
        stop_cleanly(&folder);
        self.measure(&run, &prompts, &model, &options)?;
        let rates = run.finish()?;
        hitrate_table::report(&rates, &folder, self.quiet, self.json)
    }

    /// What can be refused before a model is fetched or loaded.
    fn check(&self, options: &HitRateOptions) -> anyhow::Result<()> {
        self.prompts.check()?;
        self.jobs.check()?;
        options.check()?;
        options.check_context(usize::MAX, self.prompts.max_prompt_tokens)?;
        if let Some(folder) = &self.out {
            hit_rate::KIND.check_place::<HitRateMeta>(folder)?;
        }
        Ok(())
    }

    fn meta(
        &self,
        set: &PromptSet<'_>,
        model: &Model,
        prompts: &[Prompt],
        options: &HitRateOptions,
    ) -> HitRateMeta {
        HitRateMeta {
            command: super::command_line(&["--resume", "--quiet", "--json"]),
            dataset: set.data.name.clone(),
            dataset_sha256: set.data.sha256.clone(),
            template: set.template_digest(),
            prompts: prompts.len(),
            prompts_sha256: prompts_sha256(prompts),
            max_prompt_tokens: self.prompts.max_prompt_tokens,
            ..HitRateMeta::of_model(model, options)
        }
    }

    fn measure(
        &self,
        run: &HitRateRun,
        prompts: &[Prompt],
        model: &Model,
        options: &HitRateOptions,
    ) -> anyhow::Result<()> {
        let layers = model.decoder.config().num_hidden_layers.max(1);
        let todo: Vec<usize> = (0..prompts.len()).filter(|&i| !run.has(i)).collect();
        let cost = |i: usize| prompts[i].ids.len() + options.generated_tokens();
        let bar = progress_bar(todo.iter().map(|&i| cost(i)).sum(), "tokens", self.quiet);
        self.jobs.run(&todo, &|index| {
            let prompt = &prompts[index];
            bar.set_message(format!("prompt {}/{}", index + 1, prompts.len()));
            let mut progress = TokenProgress::of(&bar, layers);
            run.measure(index, prompt, model, &mut |tokens| {
                progress.layer_done(tokens);
            })
            .with_context(|| format!("measuring prompt {} ({})", index + 1, prompt.id))
        })?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// The folder as the next command takes it.
pub fn next_command(folder: &Path) -> String {
    format!(
        "kvprof plot hitrate --hitrate {}",
        super::quoted(&folder.to_string_lossy())
    )
}
