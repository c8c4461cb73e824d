//! `kvprof allocate`: from a profile to budget plans.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::budget::{
    ALLOCATORS, Allocator, Budget, BudgetPlan, Floor, Granularity, LowerBound, Provenance, Request,
};
use kvprof::registry;
use serde_json::{Value, json};

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
    #[arg(long)]
    strategy: String,
    /// What stays: tokens per KV head (128), or a share of the prompt (12%)
    #[arg(
        long,
        allow_hyphen_values = true,
        required_unless_present = "budgets",
        conflicts_with = "budgets"
    )]
    budget: Option<Budget>,
    /// Several budgets, a plan each: PLAN.json becomes PLAN-128.json, and PLAN-12pct.json for 12%
    #[arg(long, allow_hyphen_values = true, value_delimiter = ',')]
    budgets: Vec<Budget>,
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
    allocator: Box<dyn Allocator>,
    /// A floor that is no parameter of the strategy.
    floor: Option<LowerBound>,
}

impl AllocateArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        let budgets = self.budgets()?;
        let outs = self.outs(&budgets);
        self.reference.floor(None)?;
        for out in outs.iter().flatten() {
            check_writable(out)?;
        }
        let reference = self.reference.read(self.quiet || self.json)?;
        let command = super::command_line(&["--force", "--quiet", "--json"]);
        let provenance = reference.provenance(command)?;
        let plans = budgets
            .iter()
            .map(|&budget| {
                let plan = self.allocate(&reference, &settings, budget, &provenance);
                plan.with_context(|| format!("allocating {budget} by {}", self.strategy))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
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
            let same = || BudgetPlan::read(out).is_ok_and(|old| old.allocates_like(plan));
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

    /// What to type where nothing was written.
    fn suggestion(&self, budgets: &[Budget]) -> String {
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
        budget: Budget,
        provenance: &Provenance,
    ) -> anyhow::Result<BudgetPlan> {
        let request = reference.request(budget).by(self.granularity);
        let floor = settings
            .floor
            .map(|bound| plan_floor(&request, bound))
            .transpose()?;
        let needs = settings.allocator.needs(self.granularity)?;
        let measures = reference.measures(&needs)?;
        let request = Request {
            measures: measures.as_ref(),
            floor: floor.unwrap_or(request.floor),
            ..request
        };
        let parameters = settings.parameters.clone();
        let made = BudgetPlan::allocate(&self.strategy, parameters, &request, provenance.clone());
        Ok(made?)
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let mut fields = object("--set", &self.set)?;
        let entry = registry::find("strategy", ALLOCATORS, &self.strategy)?;
        let has_floor = (entry.build)(json!({}))?.has_floor();
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
                floor = Some(bound);
            }
        }
        let parameters = Value::Object(fields);
        let allocator =
            registry::build("strategy", ALLOCATORS, &self.strategy, parameters.clone())?;
        Ok(Settings {
            parameters,
            allocator,
            floor,
        })
    }

    fn budgets(&self) -> anyhow::Result<Vec<Budget>> {
        let budgets: Vec<Budget> = self.budget.iter().chain(&self.budgets).copied().collect();
        for (i, budget) in budgets.iter().enumerate() {
            anyhow::ensure!(
                !budgets[..i].contains(budget),
                "--budgets has {budget} twice"
            );
        }
        Ok(budgets)
    }

    /// One file per budget, named after it where `--budgets` asks for several.
    fn outs(&self, budgets: &[Budget]) -> Vec<Option<PathBuf>> {
        let named = |budget: &Budget| {
            self.out.as_deref().map(|out| match self.budget {
                Some(_) => out.to_owned(),
                None => with_budget(out, *budget),
            })
        };
        budgets.iter().map(named).collect()
    }
}

/// The request's floor, raised to a bound in whole tokens.
fn plan_floor(request: &Request<'_>, bound: LowerBound) -> anyhow::Result<Floor> {
    let tokens = match bound {
        LowerBound::Tokens(tokens) => {
            anyhow::ensure!(
                tokens.fract() == 0.0,
                "--floor is {tokens}, but this strategy's floor is a whole number of tokens"
            );
            tokens
        }
        LowerBound::OfBudget(share) => (share * request.per_head()).floor(),
    };
    Ok(Floor {
        tokens: tokens as usize,
        ..request.floor
    })
}

/// `plan.json` with a budget: `plan-128.json`, `plan-12pct.json`.
fn with_budget(out: &Path, budget: Budget) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}", in_file_names(budget)));
    if let Some(ending) = out.extension() {
        name.push(".");
        name.push(ending);
    }
    out.with_file_name(name)
}

fn in_file_names(budget: Budget) -> String {
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
    }

    #[test]
    fn values_are_json_or_text() {
        assert_eq!(registry::typed("0.95"), json!(0.95));
        assert_eq!(registry::typed("true"), json!(true));
        assert_eq!(registry::typed("last"), json!("last"));
        assert_eq!(registry::typed("20%"), json!("20%"));
    }
}
