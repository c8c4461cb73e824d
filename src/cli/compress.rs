//! How `kvprof generate` compresses: a plan from disk, or a strategy for the prompt itself.

use std::path::PathBuf;

use anyhow::Context;
use kvprof::budget::{
    ALLOCATORS, Allocator, Budget, BudgetPlan, Floor, Geometry, Granularity, Measures, Provenance,
    Request, TokenBudgets,
};
use kvprof::generate::{self, Prefilled, Selector};
use kvprof::model::Model;
use kvprof::model::attention::NoProbe;
use kvprof::profile::{MeasureOptions, Profiler};
use kvprof::registry;
use kvprof::select::{HeadSplit, SCORERS, Scorer};
use serde_json::Value;

use super::parameters::object;

/// Arguments that cut the cache.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(
    next_help_heading = "Compression",
    group(clap::ArgGroup::new("cut").args(["plan", "strategy"]))
)]
pub struct CompressArguments {
    /// Budget plan made by `kvprof allocate`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["strategy", "budget"])]
    plan: Option<PathBuf>,
    /// Allocate for this very prompt, from what its own prefill shows
    #[arg(long, value_name = "NAME", requires = "budget")]
    strategy: Option<String>,
    /// Mean tokens per KV head and layer, or a share of the prompt such as 12%
    #[arg(long, requires = "strategy", allow_hyphen_values = true)]
    budget: Option<Budget>,
    /// A parameter of the strategy; repeat it for several
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        requires = "strategy",
        conflicts_with = "plan"
    )]
    parameters: Vec<String>,
    /// Whether KV heads of a layer may get different budgets: layer or head
    #[arg(
        long,
        default_value = "layer",
        requires = "strategy",
        conflicts_with = "plan"
    )]
    granularity: Granularity,
    /// Rule that ranks tokens; `kvprof list scorers` names them all
    #[arg(long, default_value = "snapkv", requires = "cut")]
    scorer: String,
    /// A parameter of the scorer; repeat it for several
    #[arg(long = "scorer-set", value_name = "KEY=VALUE", requires = "cut")]
    scorer_parameters: Vec<String>,
    /// First tokens that always stay (4, or the plan's)
    #[arg(long, requires = "cut")]
    sinks: Option<usize>,
    /// Last tokens that always stay, and the rows that scorers look from (32, or the plan's)
    #[arg(long, requires = "cut")]
    window: Option<usize>,
    /// How a layer's budget is spent: per-head, pooled, or pooled:SAFEGUARD
    #[arg(long, default_value = "per-head", requires = "cut")]
    split: HeadSplit,
}

/// A scorer that needs nothing but the prompt.
pub fn deployable(name: &str, parameters: Value) -> anyhow::Result<Box<dyn Scorer>> {
    let scorer = registry::build("scorer", SCORERS, name, parameters)?;
    anyhow::ensure!(
        !scorer.needs(1).continuation,
        "scorer {name} looks at what the full cache says next, which only `kvprof eval` has: choose another"
    );
    Ok(scorer)
}

/// A compression that was asked for and can be done on some model.
pub struct Compression {
    source: Source,
    scorer: String,
    /// Which tokens stay.
    pub selector: Selector,
}

enum Source {
    Plan(Box<BudgetPlan>),
    Online {
        allocator: Box<dyn Allocator>,
        name: String,
        budget: Budget,
        granularity: Granularity,
    },
}

impl CompressArguments {
    /// What was asked for, checked as far as it goes without a model; `None` is the full cache.
    pub fn compression(&self) -> anyhow::Result<Option<Compression>> {
        let (source, sinks, window) = match (&self.plan, &self.strategy, self.budget) {
            (Some(path), _, _) => {
                let plan = BudgetPlan::read(path).context("reading the plan")?;
                let (sinks, window) = (plan.sinks, plan.window);
                (Source::Plan(Box::new(plan)), sinks, window)
            }
            (None, Some(name), Some(budget)) => {
                budget.check()?;
                let parameters = Value::Object(object("--set", &self.parameters)?);
                let allocator = registry::build("strategy", ALLOCATORS, name, parameters)?;
                allocator.check(self.granularity, &MeasureOptions::default())?;
                let source = Source::Online {
                    allocator,
                    name: name.clone(),
                    budget,
                    granularity: self.granularity,
                };
                (source, Floor::SINKS, Floor::WINDOW)
            }
            _ => return Ok(None),
        };
        let scorer_parameters = object("--scorer-set", &self.scorer_parameters)?;
        let scorer_parameters = Value::Object(scorer_parameters);
        let window = self.window.unwrap_or(window);
        let scorer = deployable(&self.scorer, scorer_parameters)?;
        let selector = Selector {
            scorer,
            sinks: self.sinks.unwrap_or(sinks),
            window,
            split: self.split,
        };
        let compression = Compression {
            source,
            scorer: self.scorer.clone(),
            selector,
        };
        compression.check_floor()?;
        Ok(Some(compression))
    }
}

impl Compression {
    fn check_floor(&self) -> anyhow::Result<()> {
        let stays = self.selector.sinks.saturating_add(self.selector.window);
        match &self.source {
            Source::Plan(plan) => anyhow::ensure!(
                stays <= plan.floor,
                "sinks {} and window {} take {stays} tokens, but the plan's floor is {}: \
                 lower them, or allocate with a higher --floor",
                self.selector.sinks,
                self.selector.window,
                plan.floor
            ),
            Source::Online {
                budget: Budget::TokensPerHead(budget),
                ..
            } => anyhow::ensure!(
                *budget >= stays as f64,
                "--budget {budget} is below the {stays} tokens that sinks ({}) and window ({}) take: \
                 allow more, or lower them",
                self.selector.sinks,
                self.selector.window
            ),
            Source::Online { .. } => {}
        }
        Ok(())
    }

    /// Refuses a plan for another model, before its weights are loaded.
    pub fn check_model(&self, geometry: &Geometry) -> anyhow::Result<()> {
        if let Source::Plan(plan) = &self.source {
            plan.check_geometry(geometry)?;
            if plan.for_other_weights(geometry) {
                eprintln!(
                    "warning: the plan was made for other weights of the same shape ({})",
                    plan.geometry.model
                );
            }
        }
        Ok(())
    }

    /// Refuses a prompt of `tokens` that cannot be cut as was asked for, before the model's weights are loaded.
    pub fn check_prompt(&self, tokens: usize, geometry: &Geometry) -> anyhow::Result<()> {
        let window = self.selector.window;
        anyhow::ensure!(
            window < tokens,
            "the prompt has {tokens} tokens, the window of {window} must be shorter: lower --window"
        );
        match &self.source {
            Source::Plan(plan) => plan.tokens_at(tokens).map(drop)?,
            Source::Online {
                allocator,
                budget,
                granularity,
                ..
            } => {
                let floor = Floor::of(self.selector.sinks, window);
                let request = Request::of_model(geometry.clone(), *budget, floor, tokens);
                allocator.check_budget(&request.by(*granularity))?;
            }
        }
        Ok(())
    }

    /// The whole request, for scripts.
    pub fn described(&self) -> Value {
        let (budget, parameters, granularity) = match &self.source {
            Source::Plan(plan) => (plan.budget, plan.parameters.clone(), plan.granularity),
            Source::Online {
                allocator,
                budget,
                granularity,
                ..
            } => (*budget, allocator.parameters(), *granularity),
        };
        serde_json::json!({
            "strategy": self.strategy(), "parameters": parameters, "budget": budget,
            "granularity": granularity, "online": matches!(self.source, Source::Online { .. }),
            "scorer": self.scorer, "scorer_parameters": self.selector.scorer.parameters(),
            "sinks": self.selector.sinks, "window": self.selector.window, "split": self.selector.split.to_string(),
        })
    }

    /// Name for tables: the strategy of the plan or of the command line.
    pub fn strategy(&self) -> &str {
        match &self.source {
            Source::Plan(plan) => &plan.strategy,
            Source::Online { name, .. } => name,
        }
    }

    /// Prefills the prompt and works out what every KV head keeps.
    pub fn prefill(&self, model: &Model, ids: &[u32]) -> anyhow::Result<(Prefilled, TokenBudgets)> {
        // The full cache is cut before anything is decoded.
        let room = 0;
        let tokens = ids.len();
        let window = self.selector.window;
        let selector = Some(&self.selector);
        match &self.source {
            Source::Plan(plan) => {
                let budgets = plan.tokens_at(tokens)?;
                let full = generate::prefill(&model.decoder, ids, room, selector, &mut NoProbe)?;
                Ok((full, budgets))
            }
            Source::Online {
                allocator,
                name,
                granularity,
                ..
            } => {
                let options = MeasureOptions {
                    window: Some(window.max(1)),
                    needs: Some(allocator.needs(*granularity)?),
                    ..MeasureOptions::default()
                };
                let mut ignore = |_| ();
                let mut profiler = Profiler::new(&options, &mut ignore);
                let full = generate::prefill(&model.decoder, ids, room, selector, &mut profiler)?;
                let geometry = Geometry::of_model(model);
                let layers = profiler.finish();
                let measures = Measures::of_prompt(geometry, tokens, &layers, &options);
                let plan = self.online_plan(&measures, tokens).with_context(|| {
                    format!("allocating with {name} for a prompt of {tokens} tokens")
                })?;
                Ok((full, plan.tokens))
            }
        }
    }

    fn online_plan(&self, measures: &Measures, tokens: usize) -> anyhow::Result<BudgetPlan> {
        let Source::Online {
            allocator,
            name,
            budget,
            granularity,
        } = &self.source
        else {
            anyhow::bail!("a plan from disk is not allocated again");
        };
        let floor = Floor::of(self.selector.sinks, self.selector.window);
        let request = Request::of_measures(measures, *budget, floor, tokens).by(*granularity);
        let provenance = Provenance::default();
        Ok(BudgetPlan::allocate(
            name,
            allocator.parameters(),
            &request,
            provenance,
        )?)
    }
}
