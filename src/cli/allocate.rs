//! `kvprof allocate`: from a profile to budget plans.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::budget::{
    ALLOCATORS, Allocator, BITS_AND_TOKENS, BitsAndTokens, Budget, BudgetPlan, CacheBudget, Floor,
    Granularity, LowerBound, Measures, PROMPT_ALLOCATORS, Provenance, Request, are_alike,
    fit_bytes,
};
use kvprof::error::{Error, Result};
use kvprof::model::cache::Representation;
use kvprof::registry;
use serde_json::{Value, json};

use super::certified_plan::CertifiedAllocation;
use super::output_file::{check_writable, refuse_to_overwrite};
use super::parameters::object;
use super::plan_report::PlanReport;
use super::reference::{Reference, ReferenceArguments};

/// Arguments of `kvprof allocate`.
#[derive(Debug, clap::Args)]
pub struct AllocateArguments {
    #[command(flatten)]
    reference: ReferenceArguments,
    /// Rule that spreads the budget; `kvprof list strategies` names them all
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        required_unless_present = "certificate",
        conflicts_with = "certificate"
    )]
    strategy: String,
    /// Certificate of `kvprof certify`, which says strategy, budget, sinks, window and types, and is kept in the plan
    #[arg(
        long,
        value_name = "CERTIFICATE.json",
        conflicts_with_all = ["budget", "budgets", "cache_dtype", "granularity", "set", "floor"]
    )]
    certificate: Option<PathBuf>,
    /// What stays: tokens per KV head (128), a share of the prompt (12%), bytes (5MB), or a share of the bytes of the
    /// full cache in f32 (12%bytes)
    #[arg(
        long,
        allow_hyphen_values = true,
        required_unless_present_any = ["budgets", "certificate"],
        conflicts_with = "budgets"
    )]
    budget: Option<CacheBudget>,
    /// Several budgets, a plan each: PLAN.json becomes PLAN-128.json, and PLAN-12pct.json for 12%
    #[arg(long, allow_hyphen_values = true, value_delimiter = ',')]
    budgets: Vec<CacheBudget>,
    /// What the plan's keys and values are held in, which says how many tokens a budget in bytes gives; without it they
    /// are counted in f32, and the plan leaves open what they are held in
    #[arg(long, value_name = "TYPE")]
    cache_dtype: Option<Representation>,
    /// Whether the KV heads of a layer may differ: layer or head
    #[arg(long, default_value = "layer")]
    granularity: Granularity,
    /// A parameter of the strategy; the value is JSON, or else text (--set threshold=0.95)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What every KV head keeps at least: tokens (40), or a share of the budget (20%)
    #[arg(long, allow_hyphen_values = true)]
    floor: Option<String>,
    /// Plan file to write; without it the plan is only shown
    #[arg(long, value_name = "PLAN.json")]
    out: Option<PathBuf>,
    /// Overwrite another file
    #[arg(long)]
    force: bool,
    /// Write, and print nothing
    #[arg(long, requires = "out")]
    quiet: bool,
    /// Print layers and predictions as JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// What `--floor` and `--set` come to.
struct Settings {
    parameters: Value,
    rule: Rule,
    /// A floor that is no parameter of the strategy.
    floor: Option<LowerBound>,
}

/// What a strategy answers.
enum Rule {
    /// Tokens.
    Tokens(Box<dyn Allocator>),
    /// Tokens, and what they are held in.
    Bits(Box<BitsAndTokens>),
}

impl AllocateArguments {
    pub fn run(mut self) -> anyhow::Result<()> {
        let certified = self.certified()?;
        let settings = self.settings()?;
        let budgets = self.budgets()?;
        let outs = self.outs(&budgets);
        self.reference.floor(None)?;
        for out in outs.iter().flatten() {
            check_writable(out)?;
        }
        let mut reference = self.reference.read(self.quiet || self.json)?;
        let command = super::command_line(&["--force", "--quiet", "--json"]);
        let mut provenance = reference.provenance(command)?;
        if let Some(certified) = &certified {
            certified.check(&reference)?;
            provenance.certificate = Some(Box::new(certified.certificate.clone()));
        }
        let plans = budgets
            .iter()
            .map(|&budget| {
                let plan = self.allocate(&reference, &settings, budget, &provenance);
                plan.with_context(|| format!("allocating {budget} by {}", self.strategy))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        if let (Some(certified), [plan]) = (&certified, &plans[..]) {
            let own = reference.tokens;
            certified.check_plan(plan, |tokens| {
                reference.tokens = tokens;
                self.allocate(&reference, &settings, certified.budget, &provenance)
            })?;
            reference.tokens = own;
        }
        // What cannot be predicted is said before anything is written.
        let report = (!self.quiet).then(|| PlanReport::of(&reference, &plans, &outs));
        let report = report.transpose()?;
        let written = || {
            plans
                .iter()
                .zip(&outs)
                .filter_map(|(p, out)| Some((p, out.as_ref()?)))
        };
        for (plan, out) in written() {
            let loses = |old: &BudgetPlan| {
                let (old, new) = (&old.provenance.certificate, &plan.provenance.certificate);
                old.is_some() && old != new
            };
            let same =
                || BudgetPlan::read(out).is_ok_and(|old| old.allocates_like(plan) && !loses(&old));
            refuse_to_overwrite(out, self.force, same)?;
        }
        for (plan, out) in written() {
            plan.write(out)?;
        }
        match report {
            Some(report) if self.json => report.write_json(),
            Some(report) => report.write(&self.suggestion(&budgets)),
            None => Ok(()),
        }
    }

    /// Reads the certificate, and takes what it says for arguments.
    fn certified(&mut self) -> anyhow::Result<Option<CertifiedAllocation>> {
        let Some(path) = &self.certificate else {
            return Ok(None);
        };
        let reading = || format!("reading {}", path.display());
        let certified = CertifiedAllocation::read(path).with_context(reading)?;
        let (floor, arguments) = (certified.floor(), &mut self.reference);
        anyhow::ensure!(
            arguments.sinks.is_none()
                && arguments.window.is_none()
                && !arguments.windows.whole_windows,
            "--sinks, --window and --whole-windows are those of the certificate: leave them out"
        );
        arguments.sinks = Some(floor.sinks);
        arguments.window = Some(floor.window);
        arguments.windows.whole_windows = floor.whole_windows;
        if arguments.profile.is_none() {
            let [_, longest] = certified.certificate.calibration.tokens;
            arguments.tokens.get_or_insert(longest);
        }
        self.strategy.clone_from(&certified.strategy);
        self.set.clone_from(&certified.set);
        self.granularity = certified.granularity;
        self.budget = Some(certified.budget);
        self.cache_dtype = certified.held_as;
        Ok(Some(certified))
    }

    /// What to type where nothing was written.
    fn suggestion(&self, budgets: &[CacheBudget]) -> String {
        let name = match budgets {
            [budget] => format!("{}-{}.json", self.strategy, in_file_names(*budget)),
            _ => format!("{}.json", self.strategy),
        };
        format!("{} --out {name}", super::command_line(&["--force"]))
    }

    fn allocate(
        &self,
        reference: &Reference,
        settings: &Settings,
        budget: CacheBudget,
        provenance: &Provenance,
    ) -> anyhow::Result<BudgetPlan> {
        let limit = budget.bytes(reference.full_bytes());
        let allocator = match &settings.rule {
            Rule::Tokens(allocator) => allocator,
            Rule::Bits(rule) => {
                return self.bits_and_tokens(reference, settings, (rule, limit), provenance);
            }
        };
        let needs = allocator.needs(self.granularity)?;
        let measures = reference.measures(&needs)?;
        let of_tokens =
            |budget| self.of_tokens(reference, settings, measures.as_ref(), budget, provenance);
        let held_as = self.cache_dtype.unwrap_or(Representation::FLOAT32);
        held_as.check_width(reference.geometry.head_dim)?;
        let plan = match (limit, budget.tokens()) {
            (Some(limit), _) => {
                let bytes = |plan: &BudgetPlan| plan.layer_bytes(held_as).iter().sum();
                fit_bytes(
                    reference.parts(),
                    held_as.coded_together(),
                    limit,
                    &|plan: &BudgetPlan| are_alike(&plan.tokens),
                    &of_tokens,
                    &bytes,
                )?
            }
            (None, Some(budget)) => of_tokens(budget)?,
            (None, None) => anyhow::bail!("a budget is in tokens or in bytes"),
        };
        Ok(match self.cache_dtype {
            Some(held_as) => plan.all_held_as(held_as),
            None => plan,
        })
    }

    /// A plan of so many tokens.
    fn of_tokens(
        &self,
        reference: &Reference,
        settings: &Settings,
        measures: Option<&Measures>,
        budget: Budget,
        provenance: &Provenance,
    ) -> Result<BudgetPlan> {
        let request = reference.request(budget).by(self.granularity);
        let floor = settings.floor.map(|bound| plan_floor(&request, bound));
        let request = Request {
            measures,
            floor: floor.unwrap_or(request.floor),
            ..request
        };
        let parameters = settings.parameters.clone();
        BudgetPlan::allocate(&self.strategy, parameters, &request, provenance.clone())
    }

    /// A plan of tokens and types.
    fn bits_and_tokens(
        &self,
        reference: &Reference,
        settings: &Settings,
        (rule, limit): (&BitsAndTokens, Option<usize>),
        provenance: &Provenance,
    ) -> anyhow::Result<BudgetPlan> {
        let name = BITS_AND_TOKENS.name;
        let Some(limit) = limit else {
            anyhow::bail!("{name} spends bytes: --budget 5MB, or 12%bytes of the full cache");
        };
        anyhow::ensure!(
            self.granularity == Granularity::Layer,
            "{name} allocates by layer, whose outputs are measured: leave --granularity out"
        );
        anyhow::ensure!(
            self.cache_dtype.is_none(),
            "{name} chooses types by itself: leave --cache-dtype out, and name those to choose from with --set 'types=f16;q8;q4'"
        );
        let Some((_, profile)) = &reference.profile else {
            anyhow::bail!(
                "{name} reads a profile: make it with `kvprof profile --quantise`, name it with --profile"
            );
        };
        let floor = match settings.floor {
            None => reference.floor,
            Some(LowerBound::Tokens(tokens)) => Floor {
                tokens: tokens as usize,
                ..reference.floor
            },
            Some(LowerBound::OfBudget(_)) => anyhow::bail!(
                "--floor is a share of the budget, which is in bytes here: name tokens"
            ),
        };
        Ok(rule.plan(profile, floor, reference.tokens, limit, provenance.clone())?)
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let mut fields = object("--set", &self.set)?;
        let bits = self.strategy == BITS_AND_TOKENS.name;
        let has_floor = !bits && {
            let known = ALLOCATORS.iter().find(|entry| entry.name == self.strategy);
            let entry = known.ok_or_else(|| unknown_strategy(&self.strategy))?;
            (entry.build)(json!({}))?.has_floor()
        };
        let mut floor = None;
        if let Some(text) = &self.floor {
            let value = registry::typed(text);
            let bound = LowerBound::try_from(value.clone());
            let bound = bound.map_err(|problem| anyhow::anyhow!("--{problem}"))?;
            if has_floor {
                anyhow::ensure!(
                    fields.insert("floor".to_owned(), value).is_none(),
                    "--floor and --set floor are the same; leave one out"
                );
            } else {
                check_whole(bound)?;
                floor = Some(bound);
            }
        }
        let parameters = Value::Object(fields);
        let (name, own) = (&self.strategy, parameters.clone());
        let rule = if bits {
            Rule::Bits(registry::build("strategy", &[BITS_AND_TOKENS], name, own)?)
        } else {
            Rule::Tokens(registry::build("strategy", ALLOCATORS, name, own)?)
        };
        Ok(Settings {
            parameters,
            rule,
            floor,
        })
    }

    fn budgets(&self) -> anyhow::Result<Vec<CacheBudget>> {
        let budgets: Vec<_> = self.budget.iter().chain(&self.budgets).copied().collect();
        for (i, budget) in budgets.iter().enumerate() {
            budget.check()?;
            anyhow::ensure!(
                !budgets[..i].contains(budget),
                "--budgets has {budget} twice"
            );
        }
        Ok(budgets)
    }

    /// One file per budget, named after it where `--budgets` asks for several.
    fn outs(&self, budgets: &[CacheBudget]) -> Vec<Option<PathBuf>> {
        let named = |budget: &CacheBudget| {
            self.out.as_deref().map(|out| match self.budget {
                Some(_) => out.to_owned(),
                None => with_budget(out, *budget),
            })
        };
        budgets.iter().map(named).collect()
    }
}

/// No strategy has this name.
fn unknown_strategy(name: &str) -> Error {
    if PROMPT_ALLOCATORS.iter().any(|entry| entry.name == name) {
        return Error::Unsupported {
            what: "allocating from a profile or a header by",
            found: name.to_owned(),
            supported: "it reads the prompt itself: use it in kvprof eval or generate".into(),
        };
    }
    let known = ALLOCATORS.iter().map(|entry| entry.name);
    Error::unknown("strategy", name, known.chain([BITS_AND_TOKENS.name]))
}

/// A plan's own floor is a whole number of tokens.
fn check_whole(bound: LowerBound) -> anyhow::Result<()> {
    match bound {
        LowerBound::Tokens(tokens) => anyhow::ensure!(
            tokens.fract() == 0.0,
            "--floor is {tokens}, but this strategy's floor is a whole number of tokens"
        ),
        LowerBound::OfBudget(_) => (),
    }
    Ok(())
}

/// The request's floor, raised to a bound in whole tokens.
fn plan_floor(request: &Request<'_>, bound: LowerBound) -> Floor {
    let tokens = match bound {
        LowerBound::Tokens(tokens) => tokens,
        LowerBound::OfBudget(share) => (share * request.per_head()).floor(),
    };
    Floor {
        tokens: tokens as usize,
        ..request.floor
    }
}

/// `plan.json` with a budget: `plan-128.json`, `plan-12pct.json`.
fn with_budget(out: &Path, budget: CacheBudget) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}", in_file_names(budget)));
    if let Some(ending) = out.extension() {
        name.push(".");
        name.push(ending);
    }
    out.with_file_name(name)
}

fn in_file_names(budget: CacheBudget) -> String {
    budget.to_string().replace('%', "pct")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_plans_are_named_after_their_budgets() {
        let name = |out: &str, budget: &str| {
            with_budget(Path::new(out), budget.parse().unwrap())
                .to_string_lossy()
                .into_owned()
        };
        assert_eq!(name("plans/zigzag.json", "128"), "plans/zigzag-128.json");
        assert_eq!(name("plan.json", "12.5%"), "plan-12.5pct.json");
        assert_eq!(name("plan", "64"), "plan-64");
        assert_eq!(name("plan.json", "12%bytes"), "plan-12pctbytes.json");
        assert_eq!(name("plan.json", "5MB"), "plan-5MB.json");
    }

    #[test]
    fn values_are_json_or_text() {
        assert_eq!(registry::typed("0.95"), json!(0.95));
        assert_eq!(registry::typed("true"), json!(true));
        assert_eq!(registry::typed("last"), json!("last"));
        assert_eq!(registry::typed("20%"), json!("20%"));
    }
}
