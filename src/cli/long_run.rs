//! What verbs share that go through many prompts: a bar on stderr, and a clean stop.

use std::io::StdoutLock;
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvprof::profile::Prompt;
use kvprof::run::{RunFolder, RunSettings};
use serde_json::Value;

use super::jobs::JobArguments;

/// Where a run goes that can be stopped and continued, and what it says.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct RunArguments {
    /// Output folder; by default named after verb, model and data set
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Continue a run that was interrupted, or show a finished one again
    #[arg(long)]
    pub resume: bool,
    /// No progress and no table
    #[arg(long)]
    pub quiet: bool,
    /// Print what was measured as JSON
    #[arg(long)]
    pub json: bool,
}

impl RunArguments {
    /// Refuses a folder that no run of this kind can fill.
    pub fn check_place<S: RunSettings>(&self) -> anyhow::Result<()> {
        let place = self.out.as_deref();
        Ok(place.map_or(Ok(()), RunFolder::<S>::check_place)?)
    }

    /// The output folder, by default called after the `parts` of its name.
    pub fn folder(&self, parts: &[&str]) -> PathBuf {
        let folder = self.out.clone();
        // Names may come from files of other people.
        let named = || {
            parts
                .join("-")
                .replace(['/', '\\'], "-")
                .replace(char::is_control, "-")
        };
        folder.unwrap_or_else(|| PathBuf::from(named()))
    }

    /// Prints what was measured as it was asked for: as JSON, in words, or not at all.
    pub fn show(
        &self,
        json: impl FnOnce() -> Value,
        words: impl FnOnce(&mut StdoutLock<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.json {
            return super::print_json(&json());
        }
        if self.quiet {
            return Ok(());
        }
        words(&mut std::io::stdout().lock())
    }
}

/// The command line of a run, without what changes nothing in its folder.
pub fn run_command() -> String {
    super::command_line(&["--resume", "--quiet", "--json", "--verify"])
}

/// The prompts of a run.
pub struct PromptWork<'a> {
    /// All of them.
    pub prompts: &'a [Prompt],
    /// Tokens that are generated after each.
    pub generated: usize,
    /// L, since every layer reports its tokens.
    pub layers: usize,
    /// No bar.
    pub quiet: bool,
}

/// Measures one prompt, and tells the tokens of every layer that is done.
type MeasurePrompt<'a> =
    dyn Fn(usize, &Prompt, &mut dyn FnMut(usize)) -> kvprof::error::Result<()> + Sync + 'a;

impl PromptWork<'_> {
    /// Measures the prompts that are not there yet, with a bar over their tokens.
    pub fn measure(
        &self,
        jobs: JobArguments,
        has: impl Fn(usize) -> bool,
        measure: &MeasurePrompt<'_>,
    ) -> anyhow::Result<()> {
        let prompts = self.prompts;
        let todo: Vec<usize> = (0..prompts.len()).filter(|&i| !has(i)).collect();
        let tokens = todo.iter().map(|&i| prompts[i].ids.len() + self.generated);
        let bar = progress_bar(tokens.sum(), "tokens", self.quiet);
        jobs.run(&todo, &|index| {
            let prompt = &prompts[index];
            bar.set_message(format!("prompt {}/{}", index + 1, prompts.len()));
            let (mut layer_tokens, mut shown) = (0, 0);
            let mut layer_done = |tokens: usize| {
                layer_tokens += tokens;
                let done = layer_tokens / self.layers.max(1);
                bar.inc((done - shown) as u64);
                shown = done;
            };
            measure(index, prompt, &mut layer_done)
                .with_context(|| format!("measuring prompt {} ({})", index + 1, prompt.id))
        })?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// A bar over `total` of a unit, hidden where nothing is to be said.
pub fn progress_bar(total: usize, unit: &str, quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let style = format!("{{msg}} [{{bar:30}}] {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    bar.set_style(
        ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// Parts are renamed into place, so stopping at any moment is safe; say how to go on.
pub fn stop_cleanly(folder: &Path) {
    let folder = folder.display().to_string();
    let handler = move || {
        eprintln!("\nstopped; what is finished is kept in {folder}: add --resume to go on");
        std::process::exit(130);
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        eprintln!("warning: Ctrl-C will stop without a message: {e}");
    }
}
