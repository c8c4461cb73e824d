//! `kvprof utility`: what keeping more of every KV head is worth, as LU-KV's budget curve.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvprof::budget::{Budget, CacheBudget, Floor, Geometry, utility_budgets};
use kvprof::dataset::{self, Protocol};
use kvprof::eval::{Case, QuerySource, Sweep, Utilities};
use kvprof::method::Method;
use kvprof::select::HeadSplit;
use serde_json::json;

use super::load::ModelArguments;
use super::long_run::progress_bar;
use super::output_file::refuse_existing;
use super::prompts::{PromptArguments, check_room};

/// Arguments of `kvprof utility`.
#[derive(Debug, clap::Args)]
pub struct UtilityArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Data set: a built-in name, or a path to JSONL or Parquet
    #[arg(long, default_value = dataset::DEFAULT)]
    data: String,
    #[command(flatten)]
    prompts: PromptArguments,
    /// Scorer that ranks the tokens, as in methods: SCORER or SCORER(PARAMETERS)
    #[arg(long, default_value = "expected-attention(epsilon=0.02)")]
    rank: String,
    /// Tokens of the full cache's own continuation whose attention says what a token is worth
    #[arg(long, default_value_t = 64)]
    horizon: usize,
    /// First tokens that always stay
    #[arg(long, default_value_t = Floor::SINKS)]
    sinks: usize,
    /// Last tokens that always stay, and the rows that are observed
    #[arg(long, default_value_t = Floor::WINDOW)]
    window: usize,
    /// Curve to write: fractions removed, [99, L, H_kv], as kvpress's LUKVPress loads them
    #[arg(long, value_name = "CURVE.npy")]
    out: Option<PathBuf>,
    /// Overwrite another file
    #[arg(long)]
    force: bool,
    /// No progress
    #[arg(long)]
    quiet: bool,
    /// Print the utilities of all KV heads as JSON
    #[arg(long)]
    json: bool,
}

impl UtilityArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let methods = self.methods()?;
        self.prompts.check()?;
        anyhow::ensure!(
            self.horizon > 0,
            "--horizon is 0, at least one token is needed"
        );
        if let Some(out) = &self.out {
            refuse_existing(out, self.force)?;
        }
        let set = self.prompts.open(&self.data)?;
        let mut cases = Vec::new();
        let model = self.model.load_checked(self.quiet, |header| {
            cases = set.cases_of(header)?;
            let geometry = Geometry::of_files(&header.files, &header.config);
            geometry.refuse_windows("LU-KV's curve of")?;
            anyhow::ensure!(!cases.is_empty(), "the data set has no prompt");
            let short = cases
                .iter()
                .find(|case| case.context().len() <= self.sinks + self.window);
            if let Some(case) = short {
                anyhow::bail!(
                    "prompt {} has {} tokens, more than sinks and window take are needed",
                    case.id,
                    case.context().len()
                );
            }
            let room = |case| check_room(case, &header.config, self.horizon, "--horizon");
            cases.iter().try_for_each(room)?;
            // What reads a prompt again holds it twice while it does.
            let times = 1 + usize::from(methods.iter().any(|m| m.reads_again(self.window)));
            let longest = cases.iter().map(|case| case.ids.len()).max();
            Ok(times * (longest.unwrap_or(0) + self.horizon))
        })?;
        let budget = CacheBudget::Tokens(Budget::TokensPerHead(
            (self.sinks + self.window).max(1) as f64
        ));
        let sweep = Sweep {
            model: &model,
            methods: &methods,
            budgets: &[budget],
            sinks: self.sinks,
            window: self.window,
            whole_windows: false,
            max_new_tokens: self.horizon,
            observed_from: QuerySource::Context,
        };
        let utilities = self.measure(&sweep, &cases)?;
        model.check_files()?;
        let geometry = Geometry::of_model(&model);
        let floor = Floor::of(self.sinks, self.window);
        let curves = utilities.curves();
        let curve = utility_budgets(&geometry, &curves, utilities.tokens(), floor)?;
        if let Some(out) = &self.out {
            curve.write(out)?;
        }
        if self.json {
            let heads = curves
                .chunks(geometry.kv_heads.max(1))
                .map(|heads| json!(heads));
            return super::print_json(&json!({
                "model": geometry.model, "rank": self.rank, "horizon": self.horizon, "sinks": self.sinks,
                "window": self.window, "prompts": utilities.prompts(), "tokens": utilities.tokens(),
                "utilities": heads.collect::<Vec<_>>(),
            }));
        }
        self.write(&utilities, &geometry, &curve)
    }

    /// What ranks, and what looks ahead.
    fn methods(&self) -> anyhow::Result<Vec<Method>> {
        let ranked = Method::parse(&format!("uniform+{}", self.rank))?;
        anyhow::ensure!(
            ranked.residency_name == "keep" && ranked.held_as().is_none(),
            "--rank names a scorer: leave residencies and types out"
        );
        let split = ranked.cut.as_ref().map(|cut| cut.ranking.split);
        anyhow::ensure!(
            split == Some(HeadSplit::PerHead),
            "--rank {} names a split, but the curve says how heads share: leave it out",
            self.rank
        );
        anyhow::ensure!(
            !ranked.looks_ahead(self.window),
            "--rank oracle ranks by the very attention that tokens are valued by: name a scorer that could be deployed"
        );
        Ok(vec![ranked, Method::parse("oracle")?])
    }

    fn measure(&self, sweep: &Sweep<'_>, cases: &[Case]) -> anyhow::Result<Utilities> {
        let longest = cases.iter().map(|case| case.context().len()).max();
        let mut utilities = Utilities::new(longest.unwrap_or(0));
        let bar = progress_bar(cases.len(), "prompts", self.quiet);
        for case in cases {
            let added = utilities.add(sweep, case);
            let added = added.with_context(|| format!("measuring prompt {}", case.id))?;
            if !added && !self.quiet {
                bar.suspend(|| {
                    eprintln!(
                        "warning: the model says nothing after prompt {}; it is left out",
                        case.id
                    )
                });
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        anyhow::ensure!(
            utilities.prompts() > 0,
            "the model says nothing after any prompt"
        );
        Ok(utilities)
    }

    fn write(
        &self,
        utilities: &Utilities,
        geometry: &Geometry,
        curve: &kvprof::budget::interchange::BudgetCurve,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{} ranked by {}: {} of up to {} tokens, valued by {}up to {} of what the model says next",
            geometry.model,
            self.rank,
            super::counted(utilities.prompts(), "prompt"),
            utilities.tokens(),
            if self.prompts.protocol == Protocol::QuestionAfter {
                "the question and "
            } else {
                ""
            },
            super::counted(self.horizon, "token")
        )?;
        let mut table =
            super::text_table::text_table(["removed", "least of a KV head", "most of a KV head"]);
        for percent in [50, 75, 90] {
            let kept: Vec<f64> = curve
                .at(percent)?
                .concat()
                .iter()
                .map(|pruned| 100.0 * (1.0 - pruned))
                .collect();
            let least = kept.iter().copied().fold(f64::INFINITY, f64::min);
            let most = kept.iter().copied().fold(0.0, f64::max);
            table.add_row([
                format!("{percent} %"),
                format!("{least:.1} % kept"),
                format!("{most:.1} % kept"),
            ]);
        }
        writeln!(out, "{}", table.trim_fmt())?;
        let stays = self.sinks + self.window;
        let left = |percent: &usize| (100 - percent) * utilities.tokens() < 100 * stays;
        if let Some(percent) = (1..100).find(left) {
            writeln!(
                out,
                "from {percent} % removed on less is left than sinks and window take ({stays}): it is spread evenly"
            )?;
        }
        match &self.out {
            Some(path) => {
                let path = super::quoted(&path.to_string_lossy());
                let tokens = utilities.tokens();
                let budget = (200 * stays).div_ceil(tokens.max(1)).clamp(12, 99);
                writeln!(
                    out,
                    "wrote {path}; a plan of it: kvprof convert {path} --budget {budget}% --model {} --tokens {tokens} --sinks {} \
                     --window {} --out plan.json",
                    geometry.model, self.sinks, self.window
                )?;
            }
            None => writeln!(out, "nothing was written: add --out curve.npy")?,
        }
        Ok(())
    }
}
