//! `kvprof hitrate`: do windows of the prompt name the keys that generation will look at?

use kvprof::budget::Geometry;
use kvprof::eval::hit_rate::{
    HitRateOptions, HitRateRecord, HitRateRun, HitRateSettings, HitRates,
};
use kvprof::profile::Prompt;
use kvprof::run::ModelRecord;

use super::hitrate_table;
use super::jobs::JobArguments;
use super::load::ModelArguments;
use super::long_run::{PromptWork, RunArguments, run_command, stop_cleanly};
use super::prompts::PromptArguments;

/// Arguments of `kvprof hitrate`.
#[derive(Debug, clap::Args)]
pub struct HitRateArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Data set: a built-in name, or a path to JSONL or Parquet
    #[arg(long, default_value = "wikimqa-style-4k")]
    data: String,
    #[command(flatten)]
    prompts: PromptArguments,
    #[command(flatten)]
    windows: WindowArguments,
    #[command(flatten)]
    jobs: JobArguments,
    #[command(flatten)]
    run: RunArguments,
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

impl HitRateArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let options = self.windows.options();
        self.prompts.check()?;
        self.jobs.check()?;
        options.check()?;
        options.check_context(usize::MAX, self.prompts.max_prompt_tokens)?;
        self.run.check_place::<HitRateSettings>()?;
        let set = self.prompts.open(&self.data)?;
        let (mut prompts, mut questions) = (Vec::new(), Vec::new());
        // Lengths are looked at before the weights are read: nothing is measured of a prompt too short.
        let model = self.model.load_checked(self.run.quiet, |header| {
            // Keys that a window has passed are no prediction that could be right or wrong.
            Geometry::of_files(&header.files, &header.config).refuse_windows("hit rates of")?;
            let context = header.config.max_position_embeddings;
            options.check_context(context, self.prompts.max_prompt_tokens)?;
            for case in set.cases_of(header)? {
                let (prompt, question) = (Prompt::from(&case), case.question().to_vec());
                let context = header.config.context_of(case.ids.len());
                let context = context.saturating_sub(question.len());
                options.check_prompt(&prompt.id, prompt.ids.len(), context)?;
                prompts.push(prompt);
                questions.push(question);
            }
            let lengths = prompts.iter().zip(&questions);
            let longest = lengths.map(|(p, q)| p.ids.len() + q.len()).max();
            let tokens = longest.map_or(0, |longest| longest + options.generated_tokens());
            Ok(self.jobs.at_once(prompts.len()) * tokens)
        })?;
        let work = PromptWork {
            prompts: &prompts,
            generated: options.generated_tokens(),
            layers: model.decoder.config().num_hidden_layers(),
            quiet: self.run.quiet,
        };
        let record = HitRateRecord::new(
            run_command(),
            ModelRecord::of_model(&model),
            set.record(&prompts),
            HitRateSettings { options },
        );
        let names = ["hitrate", &record.model.name, &record.data.name];
        let folder = self.run.folder(&names);
        let run = HitRateRun::prepare(&folder, record, prompts.len(), self.run.resume)?
            .reading(model.files.in_use.clone());
        stop_cleanly(&folder);
        work.measure(
            self.jobs,
            |index| run.has(index),
            &|index, prompt, on_layer| {
                run.measure(index, prompt, &questions[index], &model, on_layer)
            },
        )?;
        run.finish()?;
        hitrate_table::report(&HitRates::load(&folder)?, &folder, &self.run)
    }
}
