//! How `kvprof generate` holds its cache: a plan from disk or a strategy for the prompt itself, and what leaves later.

use std::path::PathBuf;

use anyhow::Context;
use kvprof::budget::{
    BITS_AND_TOKENS, Budget, BudgetPlan, CacheBudget, Floor, Geometry, Granularity, allocator,
};
use kvprof::error::Error;
use kvprof::method::residency::DecodeBudget;
use kvprof::method::{Allocation, Cut, Measured, Method, RESIDENCIES, Ranking, RuledAllocation};
use kvprof::registry;
use kvprof::select::{HeadSplit, SCORERS, Scorer};
use serde_json::Value;

use super::parameters::object;

/// Arguments that cut the cache.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(
    next_help_heading = "Compression",
    group(clap::ArgGroup::new("cut").args(["plan", "strategy"])),
    group(clap::ArgGroup::new("spender").args(["strategy", "method"])),
    group(clap::ArgGroup::new("change").args(["plan", "strategy", "method", "decode_budget"]).multiple(true))
)]
pub struct CompressArguments {
    /// Budget plan made by `kvprof allocate`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["strategy", "budget"])]
    plan: Option<PathBuf>,
    /// Allocate for this very prompt, from what its own prefill shows
    #[arg(long, value_name = "NAME", requires = "budget")]
    strategy: Option<String>,
    /// A method as `kvprof eval` spells it: clusterkv, snapkv+evict-h2o(budget=128), full+cache(bf16)
    #[arg(long, value_name = "METHOD", conflicts_with_all = ["cut", "decode_budget"])]
    method: Option<String>,
    /// Mean tokens per KV head and layer (128), a share of the prompt (12%), bytes (5MB), or a share of the full cache's
    /// bytes (12%bytes)
    #[arg(long, requires = "spender", allow_hyphen_values = true)]
    budget: Option<CacheBudget>,
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
    #[arg(long, requires = "change")]
    sinks: Option<usize>,
    /// Last tokens that always stay, and the rows that scorers look from (32, or the plan's)
    #[arg(long, requires = "change")]
    window: Option<usize>,
    /// Layers with a sliding window keep all that they see, and take no part in the budget; a plan says so itself
    #[arg(long, requires = "change", conflicts_with = "plan")]
    whole_windows: bool,
    /// How a layer's budget is spent: per-head, pooled or mixed, or global for all layers together; pooled:SAFEGUARD,
    /// mixed:FLOOR and global:SAFEGUARD say how much is each head's own
    #[arg(long, default_value = "per-head", requires = "cut")]
    split: HeadSplit,
    /// The most rows of a KV head while decoding: 128, 12% of the prompt, `kept` (what the cut left), `kept+256` (so many
    /// more), a plan.json, or `none`
    #[arg(long, value_name = "ROWS", help_heading = "While decoding")]
    decode_budget: Option<String>,
    /// Which token leaves a KV head that is over it: h2o (least accumulated attention), tova (least of the last
    /// query), streaming (the oldest), r-kv (little attention, much repeated), vase (by lot, large values stay), random
    /// (by lot, the prompt stays)
    #[arg(
        long,
        default_value = "h2o",
        requires = "decode_budget",
        help_heading = "While decoding"
    )]
    decode_policy: String,
    /// Steps from one eviction to the next; as many tokens leave together (1; 128 of r-kv, 64 of vase and random)
    #[arg(
        long,
        value_name = "STEPS",
        requires = "decode_budget",
        help_heading = "While decoding"
    )]
    evict_every: Option<usize>,
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

/// Refuses a method that needs more than a prompt's own prefill, or that no cache can be held by.
pub fn check_alone(method: &Method) -> anyhow::Result<()> {
    anyhow::ensure!(
        !method.needs_given_profile(),
        "it is allocated from a profile, which only `kvprof eval` reads: leave @profile out"
    );
    if let Some(cut) = &method.cut {
        deployable(&cut.ranking.name, cut.ranking.scorer.parameters())?;
    }
    Ok(method.check()?)
}

/// A way to hold the cache that was asked for and can be done on some model.
pub struct Compression {
    /// What stays of a prompt, and how.
    pub method: Method,
    /// How much, where no plan says so.
    pub budget: Option<CacheBudget>,
    /// Sinks and window.
    pub floor: Floor,
}

impl CompressArguments {
    /// What was asked for, checked as far as it goes without a model.
    pub fn compression(&self) -> anyhow::Result<Compression> {
        if let Some(method) = &self.method {
            return self.spelled(method);
        }
        let (allocation, otherwise) = match (&self.plan, &self.strategy, self.budget) {
            (Some(path), _, _) => {
                let plan = BudgetPlan::read(path).context("reading the plan")?;
                let floor = plan.floor();
                (Some(Allocation::Plan(Box::new(plan))), floor)
            }
            (None, Some(name), Some(budget)) => {
                budget.check()?;
                let rule = Allocation::Rule(self.rule(name)?);
                (Some(rule), Floor::of(Floor::SINKS, Floor::WINDOW))
            }
            _ => (None, Floor::of(Floor::SINKS, Floor::WINDOW)),
        };
        let sinks = self.sinks.unwrap_or(otherwise.sinks);
        let window = self.window.unwrap_or(otherwise.window);
        let cut = allocation.map(|allocation| {
            let ranking = self.ranking()?;
            anyhow::Ok(Cut {
                allocation,
                ranking,
            })
        });
        let mut method = Method::of_cut("generate", cut.transpose()?);
        if let Some(rows) = &self.decode_budget {
            method.residency_name = self.policy()?;
            let mut parameters = serde_json::json!({"budget": rows});
            if let Some(every) = self.evict_every {
                parameters["every"] = every.into();
            }
            // Said by itself what is wrong with the rows, without the parameters around it.
            rows.parse::<DecodeBudget>().context("--decode-budget")?;
            let name = &method.residency_name;
            method.residency = registry::build("decode policy", RESIDENCIES, name, parameters)?;
            anyhow::ensure!(
                method.cut.is_some()
                    || !method.residency.has_own_floor()
                    || self.sinks.or(self.window).is_none(),
                "--decode-policy {} reads no --sinks or --window: write --method full+{name}(sinks=..,window=..)",
                self.decode_policy
            );
        }
        method.check()?;
        let compression = Compression {
            method,
            budget: self.budget,
            floor: Floor {
                whole_windows: self.whole_windows || otherwise.whole_windows,
                ..Floor::of(sinks, window)
            },
        };
        compression.check_floor()?;
        Ok(compression)
    }

    /// A method that is spelled out, checked as far as it goes without a model.
    fn spelled(&self, text: &str) -> anyhow::Result<Compression> {
        let method = Method::parse(text)?;
        check_alone(&method).with_context(|| format!("--method {text}"))?;
        match self.budget {
            Some(budget) => budget.check()?,
            None => anyhow::ensure!(
                !method.spends_budget(),
                "--method {text} spends a budget: give it with --budget"
            ),
        }
        anyhow::ensure!(
            self.budget.is_none() || method.spends_budget(),
            "--method {text} spends no budget beside its own: leave --budget out"
        );
        let residency = &method.residency;
        let has_own = residency.has_own_floor();
        anyhow::ensure!(
            method.cut.is_some() || !has_own || self.sinks.or(self.window).is_none(),
            "--method {text} reads no --sinks or --window: it has parameters of its own, such as {}",
            residency.parameters()
        );
        let sinks = self.sinks.unwrap_or(Floor::SINKS);
        let compression = Compression {
            method,
            budget: self.budget,
            floor: Floor {
                whole_windows: self.whole_windows,
                ..Floor::of(sinks, self.window.unwrap_or(Floor::WINDOW))
            },
        };
        compression.check_floor()?;
        Ok(compression)
    }

    /// The residency that `--decode-policy` names.
    fn policy(&self) -> anyhow::Result<String> {
        let known = RESIDENCIES
            .iter()
            .filter_map(|r| r.name.strip_prefix("evict-"));
        let asked = self.decode_policy.trim_start_matches("evict-");
        if known.clone().any(|name| name == asked) {
            return Ok(format!("evict-{asked}"));
        }
        Err(Error::unknown("decode policy", &self.decode_policy, known).into())
    }

    fn rule(&self, name: &str) -> anyhow::Result<RuledAllocation> {
        let parameters = Value::Object(object("--set", &self.parameters)?);
        anyhow::ensure!(
            name != BITS_AND_TOKENS.name,
            "{name} makes plans from a profile: `kvprof allocate --strategy {name}`, then --plan"
        );
        Ok(RuledAllocation {
            strategy: name.to_owned(),
            allocator: allocator(name, parameters)?,
            granularity: self.granularity,
            measured: Measured::Online,
        })
    }

    fn ranking(&self) -> anyhow::Result<Ranking> {
        let parameters = Value::Object(object("--scorer-set", &self.scorer_parameters)?);
        Ok(Ranking {
            name: self.scorer.clone(),
            scorer: deployable(&self.scorer, parameters)?,
            split: self.split,
        })
    }
}

impl Compression {
    /// Whether anything of the prompt is cut.
    pub fn cuts(&self) -> bool {
        self.method.cut.is_some()
    }

    fn allocation(&self) -> Option<&Allocation> {
        self.method.cut.as_ref().map(|cut| &cut.allocation)
    }

    fn check_floor(&self) -> anyhow::Result<()> {
        let Floor { sinks, window, .. } = self.floor;
        let stays = sinks.saturating_add(window);
        match (self.allocation(), self.budget) {
            (Some(Allocation::Plan(plan)), _) => anyhow::ensure!(
                stays <= plan.floor,
                "sinks {sinks} and window {window} take {stays} tokens, but the plan's floor is {}: \
                 lower them, or allocate with a higher --floor",
                plan.floor
            ),
            (Some(_), Some(CacheBudget::Tokens(Budget::TokensPerHead(budget)))) => anyhow::ensure!(
                budget >= stays as f64,
                "--budget {budget} is below the {stays} tokens that sinks ({sinks}) and window ({window}) take: \
                 allow more, or lower them"
            ),
            _ => {}
        }
        Ok(())
    }

    /// Refuses a plan for another model, before its weights are loaded.
    pub fn check_model(&self, geometry: &Geometry) -> anyhow::Result<()> {
        self.method.check_geometry(geometry)?;
        for plan in self.method.plans() {
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
        let window = self.floor.window;
        anyhow::ensure!(
            !self.cuts() || window < tokens,
            "the prompt has {tokens} tokens, the window of {window} must be shorter: lower --window"
        );
        (self.method).check_prompt(tokens, geometry, self.budget, &self.floor)?;
        Ok(())
    }

    /// The whole request, for scripts; `None` is the full cache.
    pub fn described(&self) -> Option<Value> {
        if self.method.is_reference() {
            return None;
        }
        let mut described = self.method.described();
        if let Some(fields) = described.as_object_mut() {
            fields.shift_remove("name");
            let source = fields.shift_remove("measured");
            let budget = match self.allocation() {
                Some(Allocation::Plan(plan)) => Some(plan.budget.into()),
                _ => self.budget,
            };
            if let Some(budget) = budget {
                fields.insert("budget".into(), budget.described());
            }
            if self.cuts() {
                if self.floor.whole_windows {
                    fields.insert("whole_windows".into(), true.into());
                }
                let online = source.is_some_and(|s| s == "online");
                fields.insert("online".into(), online.into());
            }
            let residency = &self.method.residency;
            let has_own = residency.has_own_floor();
            if self.cuts() || !has_own {
                fields.insert("sinks".into(), self.floor.sinks.into());
                fields.insert("window".into(), self.floor.window.into());
            }
        }
        Some(described)
    }

    /// Name for tables: the strategy of the plan or of the command line.
    pub fn strategy(&self) -> &str {
        self.allocation().map_or("full", Allocation::strategy)
    }
}
