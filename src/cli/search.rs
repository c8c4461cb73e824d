//! `kvprof search`: a plan found by what it does to what the model says next.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use kvprof::budget::{BudgetPlan, CacheBudget, Floor, Geometry, Provenance, Request, allocators};
use kvprof::dataset;
use kvprof::error::Error;
use kvprof::eval::search::{PlanSearch, SearchOptions, Searched, hold_out};
use kvprof::eval::{Bootstrap, Case, QuerySource, Sweep, contexts};
use kvprof::method::{DECODE_ROOM, Method};
use kvprof::model::Model;
use serde_json::json;

use super::load::ModelArguments;
use super::long_run::progress_bar;
use super::output_file::refuse_existing;
use super::prompts::{PromptArguments, check_room};
use super::reference::WindowArguments;
use super::search_report::SearchReport;

/// The largest step of a factor's logarithm: one of 55 at once.
const MOST_STEP: f64 = 4.0;

/// Is set by the first Ctrl-C, which ends the search with what it has; the second ends everything.
fn until_stopped() -> Arc<AtomicBool> {
    let enough = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&enough);
    let handler = move || {
        if heard.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!(
            "\nstopping: the best plan so far is tried on what was held out, and kept; Ctrl-C again drops it"
        );
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        eprintln!("warning: Ctrl-C will keep nothing: {e}");
    }
    enough
}

/// A share, or none of it.
fn share_or_none(text: &str) -> Result<f64, String> {
    if ["0", "0%"].contains(&text.trim()) {
        return Ok(0.0);
    }
    super::certify::share(text)
}

/// Arguments of `kvprof search`.
#[derive(Debug, clap::Args)]
pub struct SearchArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Data set: a built-in name, or a path to JSONL or Parquet
    #[arg(long, default_value = dataset::DEFAULT)]
    data: String,
    #[command(flatten)]
    prompts: PromptArguments,
    /// What stays: mean tokens per KV head (128), or a share of the prompt (12%)
    #[arg(long)]
    budget: CacheBudget,
    /// How tokens are ranked, and how heads share: a scorer, or SCORER+SPLIT
    #[arg(long, default_value = "snapkv")]
    rank: String,
    /// Strategies whose plans are tried first; the search sets out from the best of them
    #[arg(
        long,
        default_value = "uniform,pyramid,zigzag,mass-optimal,output-optimal"
    )]
    start: String,
    /// Groups of neighbouring layers; each has a factor of its own
    #[arg(long, default_value_t = 8)]
    groups: usize,
    /// Most plans to try beside the starts
    #[arg(long, default_value_t = 120, value_name = "PLANS")]
    most: usize,
    /// First step of the factors' logarithms
    #[arg(long, default_value_t = 0.5)]
    step: f64,
    /// Smallest step
    #[arg(long, default_value_t = 0.1)]
    least_step: f64,
    /// Share of the contexts that the search never sees
    #[arg(long, default_value = "50%", value_name = "SHARE", value_parser = share_or_none)]
    held_out: f64,
    /// First tokens that always stay
    #[arg(long, default_value_t = Floor::SINKS)]
    sinks: usize,
    /// Last tokens that always stay, and the rows that are observed
    #[arg(long, default_value_t = Floor::WINDOW)]
    window: usize,
    #[command(flatten)]
    windows: WindowArguments,
    /// Tokens of the full cache's answer that divergence is measured on
    #[arg(long, default_value_t = 32)]
    max_new_tokens: usize,
    /// Seed of what is held out, of the order in which factors are tried, and of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Plan file to write; without it the plan is only shown
    #[arg(long, value_name = "PLAN.json")]
    out: Option<PathBuf>,
    /// Overwrite another file
    #[arg(long)]
    force: bool,
    /// No progress
    #[arg(long)]
    quiet: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

impl SearchArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let methods = self.methods()?;
        self.check()?;
        if let Some(out) = &self.out {
            refuse_existing(out, self.force)?;
        }
        let set = self.prompts.open(&self.data)?;
        let (mut cases, mut parts) = (Vec::new(), [Vec::new(), Vec::new()]);
        let model = self.model.load_checked(self.quiet, |header| {
            cases = set.cases_of(header)?;
            parts = hold_out(contexts(&cases, true), self.held_out, self.seed);
            let geometry = Geometry::of_files(&header.files, &header.config);
            self.check_parts(&parts, &cases, &geometry)?;
            let new = self.max_new_tokens;
            let room = |case| check_room(case, &header.config, new, "--max-new-tokens");
            cases.iter().try_for_each(room)?;
            let kept = parts[0]
                .iter()
                .filter_map(|context| cases.get(*context.first()?));
            let kept = kept.map(|case| case.ids.len() + self.max_new_tokens.max(DECODE_ROOM));
            let held_out = parts[1]
                .iter()
                .flatten()
                .map(|place| cases[*place].ids.len());
            let cached = kept.sum::<usize>() + held_out.max().unwrap_or(0);
            // What reads a prompt again holds it twice while it does.
            let again = methods.iter().any(|method| method.reads_again(self.window));
            let longest = cases.iter().map(|case| case.ids.len()).max();
            Ok(cached + if again { longest.unwrap_or(0) } else { 0 })
        })?;
        let searched = self.search(&model, &methods, &cases, parts)?;
        model.check_files()?;
        let report = SearchReport {
            budget: self.budget,
            rank: &self.rank,
            groups: self.groups,
            seed: self.seed,
            searched: &searched,
        };
        let plan = self.plan(&report, &model, &set.data.sha256);
        if let Some(out) = &self.out {
            plan.write(out)?;
        }
        if self.json {
            return super::print_json(&json!({ "searched": report.facts(), "plan": plan }));
        }
        report.write(&plan.geometry.model, self.out.as_deref())
    }

    /// The starts, each ranking as it was asked for.
    fn methods(&self) -> anyhow::Result<Vec<Method>> {
        let names = Method::split_list(&self.start);
        for (place, name) in names.iter().enumerate() {
            let again = names[..place].contains(name);
            anyhow::ensure!(!again, "--start names {name} twice");
            let strategy = name.split(['(', ':', '@']).next().unwrap_or(name);
            if !allocators().any(|entry| entry.name == strategy) {
                let known = allocators().map(|entry| entry.name);
                return Err(Error::unknown("strategy", strategy, known).into());
            }
        }
        let starts = names.into_iter().map(|start| {
            let spelled = format!("{}+{}", start.trim(), self.rank);
            let mut method = Method::parse(&spelled)?;
            start.trim().clone_into(&mut method.name);
            method.check()?;
            anyhow::ensure!(
                method.cut.is_some() && method.residency_name == "keep" && method.held_as().is_none(),
                "--start and --rank name what is cut: residencies and types are not searched for"
            );
            anyhow::ensure!(
                !method.needs_given_profile() && !method.looks_ahead(self.window),
                "a search measures its prompts itself, and no plan can look ahead: leave @profile and oracle out"
            );
            Ok(method)
        });
        starts.collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        self.prompts.check()?;
        self.budget.check()?;
        anyhow::ensure!(
            self.budget.tokens().is_some(),
            "--budget {} is in bytes, and a search spends tokens: name tokens (128) or a share of the prompt (12%)",
            self.budget
        );
        anyhow::ensure!(
            self.max_new_tokens > 1,
            "--max-new-tokens is {}, at least 2 are needed",
            self.max_new_tokens
        );
        let steps = self.step <= MOST_STEP && self.least_step > 0.0 && self.least_step <= self.step;
        anyhow::ensure!(
            steps,
            "--step {} and --least-step {} leave nothing to try: 0 < least-step <= step <= {MOST_STEP} is needed",
            self.step,
            self.least_step
        );
        Ok(())
    }

    /// What can be refused before weights are read.
    fn check_parts(
        &self,
        [calibration, held_out]: &[Vec<Vec<usize>>; 2],
        cases: &[Case],
        model: &Geometry,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(!cases.is_empty(), "the data set has no prompt");
        anyhow::ensure!(
            !calibration.is_empty() && held_out.len() != 1,
            "{} contexts are searched on and {} held out: one at least is needed to search on, and none or two to hold out \
             (--limit, --held-out)",
            calibration.len(),
            held_out.len()
        );
        let floor = self.floor();
        floor.check()?;
        floor.check_layers(model, usize::MAX)?;
        let parts = if floor.whole_windows {
            model.global_layers().len()
        } else {
            model.layers
        };
        anyhow::ensure!(
            (2..=parts).contains(&self.groups),
            "--groups is {}: between 2 and {parts} are needed, the layers that take part in the budget",
            self.groups
        );
        for case in cases {
            let tokens = case.context().len();
            anyhow::ensure!(
                tokens > self.window,
                "prompt {} has {tokens} tokens to cut, more than the window of {} are needed: lower --window",
                case.id,
                self.window
            );
            if let Some(budget) = self.budget.tokens() {
                let request = Request::of_model(model.clone(), budget, floor, tokens);
                (request.check_floor()).with_context(|| format!("prompt {}", case.id))?;
            }
        }
        Ok(())
    }

    fn floor(&self) -> Floor {
        self.windows.of(Floor::of(self.sinks, self.window))
    }

    fn search(
        &self,
        model: &Model,
        methods: &[Method],
        cases: &[Case],
        [calibration, held_out]: [Vec<Vec<usize>>; 2],
    ) -> anyhow::Result<Searched> {
        let search = PlanSearch {
            sweep: Sweep {
                model,
                methods,
                budgets: std::slice::from_ref(&self.budget),
                sinks: self.sinks,
                window: self.window,
                whole_windows: self.windows.whole_windows,
                max_new_tokens: self.max_new_tokens,
                observed_from: QuerySource::Context,
            },
            cases,
            calibration,
            held_out,
            groups: self.groups,
            options: SearchOptions {
                most: self.most,
                step: self.step,
                least_step: self.least_step,
                seed: self.seed,
            },
            bootstrap: Bootstrap {
                seed: self.seed,
                ..Bootstrap::default()
            },
        };
        let bar = progress_bar(self.most + methods.len(), "plans", self.quiet);
        bar.set_message("prefilling");
        let enough = until_stopped();
        let searched = search.run(&mut |kl, lowest| {
            bar.inc(1);
            bar.set_message(format!("kl {kl:.4}, lowest {lowest:.4}"));
            if enough.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        bar.finish_and_clear();
        searched.context("searching for a plan")
    }

    /// The plan with what is known of it.
    fn plan(&self, report: &SearchReport<'_>, model: &Model, data_sha256: &str) -> BudgetPlan {
        let mut parameters = report.facts();
        parameters["data_sha256"] = data_sha256.into();
        parameters["max_new_tokens"] = self.max_new_tokens.into();
        BudgetPlan {
            parameters,
            provenance: Provenance {
                kvprof: env!("CARGO_PKG_VERSION").to_owned(),
                command: super::command_line(&["--force", "--quiet", "--json"]),
                source: Some(self.data.clone()),
                ..Provenance::default()
            },
            geometry: Geometry::of_model(model),
            ..report.searched.plan.clone()
        }
    }
}
