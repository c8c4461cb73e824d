//! `kvprof eval`: one prefill per prompt, every method and budget, paired statistics.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use kvprof::budget::{Budget, CacheBudget, Floor, Geometry, profile_digest};
use kvprof::dataset::needle;
use kvprof::dataset::{self, Dataset};
use kvprof::eval::{
    Case, EvalRecord, EvalSettings, RecallSummary, ResidencySummary, Results, Sweep, compare,
};
use kvprof::method::Method;
use kvprof::model::Model;
use kvprof::model::config::ModelConfig;
use kvprof::profile::{Profile, Prompt};
use kvprof::run::{ModelRecord, RunFolder};
use serde_json::json;

use super::eval_table;
use super::eval_work::{Cost, EvalWork};
use super::jobs::JobArguments;
use super::load::{self, ModelArguments};
use super::long_run::{RunArguments, run_command, stop_cleanly};
use super::method_files::{MethodFileArguments, check_files, write_prompts};
use super::needle_grid::NeedleArguments;
use super::prompts::{PromptArguments, PromptSet};
use super::query_source::QueryArguments;
use super::quoted;
use super::reference::WindowArguments;

/// Arguments of `kvprof eval`.
#[derive(Debug, clap::Args)]
pub struct EvalArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// What is asked: questions of a data set, or needles in haystacks
    #[arg(long, value_enum, default_value = "qa")]
    task: Task,
    /// Data set: a built-in name, or a path to JSONL or Parquet [default: wikimqa-style-2k]
    #[arg(long)]
    data: Option<String>,
    #[command(flatten)]
    prompts: PromptArguments,
    #[command(flatten)]
    needles: NeedleArguments,
    /// Methods, separated by commas; `kvprof list methods` names them, others are spelled
    /// STRATEGY+SCORER+SPLIT+RESIDENCY+cache(TYPE)
    #[arg(
        long,
        default_value = "full,snapkv,ada-kv,pyramid,zigzag,mass-optimal,output-optimal,streaming,tova,knorm,oracle"
    )]
    methods: String,
    #[command(flatten)]
    files: MethodFileArguments,
    /// Budgets: mean tokens per KV head and layer (128), shares of the prompt (12%), bytes (5MB), or shares of the
    /// full cache's bytes (12%bytes)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "64,128,256,512",
        allow_negative_numbers = true
    )]
    budgets: Vec<CacheBudget>,
    /// Method that the others are compared with, at the same budget
    #[arg(long, default_value = "snapkv")]
    baseline: String,
    /// Profile folder that methods with @profile are allocated from
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// First tokens that always stay
    #[arg(long, default_value_t = 4)]
    sinks: usize,
    /// Last tokens that always stay, and the rows that are observed
    #[arg(long, default_value_t = 32)]
    window: usize,
    #[command(flatten)]
    windows: WindowArguments,
    /// Most tokens to generate
    #[arg(long, default_value_t = 32)]
    max_new_tokens: usize,
    #[command(flatten)]
    queries: QueryArguments,
    /// Resamples of the bootstrap
    #[arg(long, default_value_t = 10_000)]
    resamples: usize,
    /// Seed of needles and bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    jobs: JobArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// What the prompts ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Records of a data set.
    Qa,
    /// Needles in haystacks of our own, over lengths and depths.
    Needle,
}

impl EvalArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let mut methods = self.files.methods(&self.methods, &self.budgets)?;
        self.check(&methods)?;
        let profile = (self.profile.as_deref()).map(Profile::load).transpose();
        let profile = profile.context("reading the profile")?;
        for method in &mut methods {
            let read = profile.as_ref().map_or(Ok(()), |p| method.allocate_from(p));
            read.and_then(|()| method.check())
                .with_context(|| format!("method {}", method.name))?;
        }
        let set = self.prompts.of(self.dataset()?)?;
        if let Some(out) = &self.files.write_prompts {
            let (header, _) = self.model.open(self.run.quiet)?;
            return write_prompts(out, &set.cases_of(&header)?);
        }
        let mut cases = Vec::new();
        let model = self.model.load_checked(self.run.quiet, |header| {
            cases = set.cases_of(header)?;
            self.check_cases(&cases, &methods, &header.config)?;
            let geometry = Geometry::of_files(&header.files, &header.config);
            check_profile(profile.as_ref(), &geometry)?;
            check_files(&methods, &cases, &geometry)?;
            let prefilled = self.model.precision()?.cache;
            anyhow::ensure!(
                prefilled.holds_tokens_alone() || !self.queries.rewinds(),
                "--observe-from takes back what is looked from, and a full cache of {prefilled} cannot be rewound for it: \
                 take --cache-dtype q8_0, bf16 or f16"
            );
            for method in &methods {
                method.check_geometry(&geometry)?;
                method.check_held(prefilled)?;
                anyhow::ensure!(
                    prefilled.holds_tokens_alone()
                        || !(method.looks_ahead(self.window) || method.reads_again(self.window)),
                    "method {} looks at what is fed behind the full cache and taken back, and one of {prefilled} cannot be \
                     rewound for it: leave {0} out, or take --cache-dtype q8_0, bf16 or f16",
                    method.name
                );
            }
            let floor = self.windows.of(Floor::of(self.sinks, self.window));
            if methods.iter().any(|method| method.cut.is_some()) {
                floor.check_layers(&geometry, usize::MAX)?;
            }
            let longest = cases.iter().map(|case| case.ids.len()).max().unwrap_or(0);
            // What reads a prompt again holds it twice while it does.
            let again = methods.iter().any(|method| method.reads_again(self.window));
            let cached = if again { 2 * longest } else { longest };
            Ok(self.jobs.at_once(cases.len()) * cached)
        })?;
        let meta = self.meta(&set, &model, &methods, &cases)?;
        let folder = (self.run).folder(&["eval", &meta.model.name, &meta.data.name]);
        let run = RunFolder::prepare(&folder, meta, cases.len(), self.run.resume)?
            .reading(model.files.in_use.clone());
        stop_cleanly(&folder);
        let observed_from = self.queries.source(&model.tokenizer)?;
        let sweep = Sweep {
            model: &model,
            methods: &methods,
            budgets: &self.budgets,
            sinks: self.sinks,
            window: self.window,
            whole_windows: self.windows.whole_windows,
            max_new_tokens: self.max_new_tokens,
            observed_from,
        };
        let work = EvalWork {
            run: &run,
            sweep: &sweep,
            cases: &cases,
            jobs: self.jobs,
            quiet: self.run.quiet,
        };
        let cost = work.measure()?;
        run.finish()?;
        self.report(&Results::load(&folder)?, &folder, cost)
    }

    /// What can be refused before anything is read.
    fn check(&self, methods: &[Method]) -> anyhow::Result<()> {
        self.prompts.check()?;
        self.jobs.check()?;
        self.queries.check(self.prompts.protocol)?;
        let others = self.data.is_some() || self.prompts.shapes_text();
        anyhow::ensure!(
            self.task == Task::Qa || !others,
            "--data, --template and --max-prompt-tokens do not fit --task needle, whose prompts are made to \
             measure: leave them out, or make a file with `kvprof dataset needle`"
        );
        anyhow::ensure!(
            self.task == Task::Needle || !self.needles.given(),
            "--lengths, --depths and --seeds belong to --task needle: add it, or leave them out"
        );
        anyhow::ensure!(
            self.max_new_tokens > 0,
            "--max-new-tokens is 0, at least one is needed"
        );
        anyhow::ensure!(
            self.resamples >= 100,
            "--resamples is {}, at least 100 are needed",
            self.resamples
        );
        anyhow::ensure!(
            methods.iter().any(|m| m.name == self.baseline),
            "--baseline {} is not among the methods: add it to --methods, or name another of {}",
            self.baseline,
            self.methods
        );
        let given = methods.iter().find(|m| m.needs_given_profile());
        match (given, &self.profile) {
            (Some(method), None) => anyhow::bail!(
                "method {} is allocated from a profile: give one with --profile",
                method.name
            ),
            (None, Some(_)) => anyhow::bail!(
                "--profile is read by methods such as zigzag@profile only: add one, or leave it out"
            ),
            _ => {}
        }
        self.check_budgets(methods)?;
        self.run.check_place::<EvalSettings>()
    }

    fn check_budgets(&self, methods: &[Method]) -> anyhow::Result<()> {
        let cuts = methods.iter().any(|method| method.cut.is_some());
        let (sinks, window) = (self.sinks, self.window);
        let stays = sinks.saturating_add(window);
        for (i, budget) in self.budgets.iter().enumerate() {
            budget.check()?;
            let again = self.budgets[..i].contains(budget);
            anyhow::ensure!(!again, "budget {budget} is given twice");
            anyhow::ensure!(
                !cuts
                    || !matches!(budget.tokens(), Some(Budget::TokensPerHead(tokens)) if tokens < stays as f64),
                "budget {budget} is below the {stays} tokens that sinks ({sinks}) and window ({window}) take: \
                 allow more, or lower them"
            );
        }
        Ok(())
    }

    fn dataset(&self) -> anyhow::Result<Dataset> {
        match self.task {
            Task::Qa => Dataset::open(self.data.as_deref().unwrap_or(dataset::DEFAULT))
                .context("reading the data set"),
            Task::Needle => {
                let (model, raw) = (&self.model, self.prompts.raw);
                let count = load::message_counter(&model.model, &model.terms, raw, self.run.quiet)?;
                let options = self.needles.options(self.seed)?;
                needle::dataset(&options, &count).context("building needles")
            }
        }
    }

    fn check_cases(
        &self,
        cases: &[Case],
        methods: &[Method],
        config: &ModelConfig,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(!cases.is_empty(), "the data set has no prompt");
        let (new, window) = (self.max_new_tokens, self.window);
        let floor = self.windows.of(Floor::of(self.sinks, window));
        let cuts = methods.iter().any(|m| m.cut.is_some());
        for case in cases {
            let (id, tokens) = (&case.id, case.ids.len());
            let context_tokens = case.context().len();
            let context = config.context_of(tokens);
            let longest = case.longest(context, new);
            anyhow::ensure!(
                tokens <= longest,
                "prompt {id} has {tokens} tokens, at most {longest} leave room for {new} new ones and the accepted \
                 answers in a context of {context}: shorten prompts (--max-prompt-tokens or --lengths), or \
                 lower --max-new-tokens"
            );
            for method in methods {
                for budget in self.budgets_of(method) {
                    let checked = method.residency.check(context_tokens, &floor, budget);
                    checked.with_context(|| format!("method {} on prompt {id}", method.name))?;
                }
            }
            anyhow::ensure!(
                context_tokens > window || !cuts,
                "prompt {id} has {context_tokens} tokens to cut, more than the window of {window} are needed: lower \
                 --window"
            );
        }
        Ok(())
    }

    /// The budgets at which a method is tried; one that spends none is tried once.
    fn budgets_of(&self, method: &Method) -> Vec<Option<CacheBudget>> {
        if method.spends_budget() {
            let tried = self.budgets.iter().filter(|b| method.is_tried_at(**b));
            tried.copied().map(Some).collect()
        } else {
            vec![None]
        }
    }

    fn meta(
        &self,
        set: &PromptSet<'_>,
        model: &Model,
        methods: &[Method],
        cases: &[Case],
    ) -> anyhow::Result<EvalRecord> {
        let prompts: Vec<Prompt> = cases.iter().map(Prompt::from).collect();
        let settings = EvalSettings {
            task: super::name_of(&self.task),
            methods: methods.iter().map(Method::described).collect(),
            budgets: self.budgets.iter().map(ToString::to_string).collect(),
            baseline: self.baseline.clone(),
            sinks: self.sinks,
            window: self.window,
            whole_windows: self.windows.whole_windows,
            max_new_tokens: self.max_new_tokens,
            profile_sha256: self.profile.as_deref().map(profile_digest).transpose()?,
            seed: self.seed,
            observed_from: self.queries.in_files(),
        };
        let (model, data) = (ModelRecord::of_model(model), set.record(&prompts));
        Ok(EvalRecord::new(run_command(), model, data, settings))
    }

    fn report(&self, results: &Results, folder: &Path, cost: Option<Cost>) -> anyhow::Result<()> {
        let rows = compare(&results.results, &self.baseline, self.seed, self.resamples)?;
        let failures = failures(results)?;
        let recall = results.recall.as_ref().map(RecallSummary::of).transpose()?;
        let recall = recall.unwrap_or_default();
        let residencies = ResidencySummary::of(results)?;
        let all = results.results.rows();
        let json = || {
            json!({
                "results": folder, "failures": failures, "meta": results.meta, "baseline": self.baseline,
                "resamples": self.resamples, "comparisons": rows, "residency": residencies, "recall": recall,
                "cost": cost.as_ref().map(Cost::to_json),
            })
        };
        self.run.show(json, |out| {
            eval_table::write_protocol(out, results)?;
            eval_table::write(out, &rows, &self.baseline)?;
            eval_table::write_differences(out, &rows, "kl", &self.baseline)?;
            eval_table::write_residencies(out, results, &residencies)?;
            eval_table::write_recall(out, &recall)?;
            if let Some(cost) = &cost {
                writeln!(out, "\n{}", cost.in_words())?;
            }
            for (problem, rows) in &failures {
                writeln!(out, "\nFailed for {rows} of {all}: {problem}")?;
            }
            let folder = quoted(&folder.to_string_lossy());
            writeln!(out, "\nWritten to {folder}")?;
            writeln!(out, "Next: kvprof plot frontier --results {folder}")?;
            Ok(())
        })?;
        let failed: usize = failures.iter().map(|(_, rows)| rows).sum();
        anyhow::ensure!(
            failed < all,
            "every configuration failed; the reasons are in {}",
            folder.display()
        );
        Ok(())
    }
}

/// Every problem with the number of rows that it ended, in the order of their first.
fn failures(results: &Results) -> anyhow::Result<Vec<(&str, usize)>> {
    let mut found: Vec<(&str, usize)> = Vec::new();
    let errors = results.results.texts("error")?.iter();
    for error in errors.filter(|error| !error.is_empty()) {
        match found.iter_mut().find(|(known, _)| known == error) {
            Some((_, rows)) => *rows += 1,
            None => found.push((error, 1)),
        }
    }
    Ok(found)
}

/// Refuses a profile of another model.
fn check_profile(profile: Option<&Profile>, ours: &Geometry) -> anyhow::Result<()> {
    let Some(profile) = profile else {
        return Ok(());
    };
    let theirs = Geometry::of(&profile.meta);
    anyhow::ensure!(
        theirs.same_numbers(ours),
        "the profile is of {} with {}, {} has {}: profile it",
        theirs.model,
        theirs.numbers(),
        ours.model,
        ours.numbers()
    );
    Ok(())
}
