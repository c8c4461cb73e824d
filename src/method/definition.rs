//! A method: five axes that say what a cache holds and how it changes.

use candle_core::Device;
use serde_json::{Value, json};

use super::residency::{Keep, ResidencyRule};
use crate::budget::{
    Allocator, Budget, BudgetPlan, CacheBudget, Floor, Geometry, Granularity, Measures, Provenance,
    Request, TokenBudgets,
};
use crate::error::{Error, Result};
use crate::files::sha256_hex;
use crate::model::cache::{Representation, Representations};
use crate::model::precision::Precision;
use crate::profile::{MeasureOptions, Needs, Profile};
use crate::select::{HeadSplit, Imports, ScoreFiles, Scorer};

/// Where the measurements come from that an allocation is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// The very prompt, in its own prefill.
    Online,
    /// A profile of other prompts; `None` until it is read.
    Profile(Option<Box<Measures>>),
}

/// A strategy with its parameters.
#[derive(Debug)]
pub struct RuledAllocation {
    /// Name in [`crate::budget::ALLOCATORS`].
    pub strategy: String,
    /// The rule.
    pub allocator: Box<dyn Allocator>,
    /// By layer or by KV head.
    pub granularity: Granularity,
    /// Of what.
    pub measured: Measured,
}

/// How much every KV head may keep.
#[derive(Debug)]
pub enum Allocation {
    /// Worked out for a budget.
    Rule(RuledAllocation),
    /// A plan from disk, which has its own budget.
    Plan(Box<BudgetPlan>),
}

/// Which tokens are kept.
#[derive(Debug)]
pub struct Ranking {
    /// Name in [`crate::select::SCORERS`].
    pub name: String,
    /// The rule.
    pub scorer: Box<dyn Scorer>,
    /// How a layer's budget is spent on its KV heads.
    pub split: HeadSplit,
}

/// What a prompt's cut keeps.
#[derive(Debug)]
pub struct Cut {
    /// How much.
    pub allocation: Allocation,
    /// Which tokens.
    pub ranking: Ranking,
}

/// A way to hold a cache.
///
/// Paper: none: house definition. Differs: five axes, never multiplied in code.
#[derive(Debug)]
pub struct Method {
    /// As it was asked for.
    pub name: String,
    /// What the prompt's cut keeps; `None` is everything.
    pub cut: Option<Cut>,
    /// Name of the residency in [`super::RESIDENCIES`].
    pub residency_name: String,
    /// How the cache changes while it lives.
    pub residency: Box<dyn ResidencyRule>,
    /// In what elements keys and values lie after the cut; `None` is as they were prefilled.
    pub representation: Option<Representation>,
}

impl Method {
    /// A cache that is cut once, or not at all, and keeps what is left.
    pub fn of_cut(name: &str, cut: Option<Cut>) -> Self {
        Self {
            name: name.to_owned(),
            cut,
            residency_name: "keep".to_owned(),
            residency: Box::new(Keep {}),
            representation: None,
        }
    }

    /// In what elements it holds keys and values after the cut; `None` is as they were prefilled.
    pub fn held_as(&self) -> Option<Representations> {
        let own = self.residency.holds_as().map(Representations::from);
        own.or_else(|| self.cut_held_as())
    }

    /// In what elements its cut is held, by its own words or by those of its plan.
    pub(super) fn cut_held_as(&self) -> Option<Representations> {
        let own = self.representation.map(Representations::from);
        own.or_else(|| self.cut_plan()?.representations())
    }

    /// The plan that its cut takes its tokens from.
    fn cut_plan(&self) -> Option<&BudgetPlan> {
        match self.cut.as_ref().map(|cut| &cut.allocation) {
            Some(Allocation::Plan(plan)) => Some(plan),
            _ => None,
        }
    }

    /// Whether it is the full cache as it was prefilled, with which others are compared.
    pub fn is_reference(&self) -> bool {
        self.cut.is_none() && self.residency_name == "keep" && self.representation.is_none()
    }

    /// Whether its scorer looks at what the full cache says next, which only an evaluation has.
    pub fn looks_ahead(&self, window: usize) -> bool {
        let cut = self.cut.as_ref();
        cut.is_some_and(|cut| cut.ranking.scorer.needs(window).continuation)
    }

    /// Whether its scorer reads the prompt again behind a full cache, which is then taken back.
    pub fn reads_again(&self, window: usize) -> bool {
        let cut = self.cut.as_ref();
        cut.is_some_and(|cut| cut.ranking.scorer.needs(window).replay.is_some())
    }

    /// Whether it is another method at every budget of a run: by what its cut keeps, or by what its residency shows.
    pub fn spends_budget(&self) -> bool {
        self.cut.is_some() || self.residency.spends_budget()
    }

    /// The files that its scores or its kept tokens are read from.
    pub fn files(&self) -> Option<&ScoreFiles> {
        self.cut.as_ref()?.ranking.scorer.imported()
    }

    /// Whether it is tried at a budget of a run: at its own alone, where files say what is kept of a prompt.
    pub fn is_tried_at(&self, budget: CacheBudget) -> bool {
        match self
            .files()
            .filter(|files| files.imports() == Imports::Kept)
        {
            Some(files) => files.budget() == Some(budget),
            None => true,
        }
    }

    /// The rule that allocates, where there is one.
    fn rule(&self) -> Option<&RuledAllocation> {
        match self.cut.as_ref().map(|cut| &cut.allocation) {
            Some(Allocation::Rule(rule)) => Some(rule),
            _ => None,
        }
    }

    /// Refuses an allocation that no prompt's measurements could serve, before there is any, and a cache that its
    /// residency cannot work on.
    ///
    /// Errors: as [`Allocator::check`] and [`Method::check_cache`].
    pub fn check(&self) -> Result<()> {
        self.check_types()?;
        match self.rule() {
            Some(rule) if rule.measured == Measured::Online => {
                let options = MeasureOptions::default();
                rule.allocator.check(rule.granularity, &options)
            }
            _ => Ok(()),
        }
    }

    /// Refuses types that are said twice, that nothing would read, or that its residency cannot work on.
    fn check_types(&self) -> Result<()> {
        let refuse = |held_as: Representations, bound: String| {
            Err(Error::invalid("type of the cache", held_as, bound))
        };
        let of_plan = self.cut_plan().and_then(BudgetPlan::representations);
        if let (Some(held_as), Some(_)) = (self.representation, &of_plan) {
            let bound = "the plan says by itself what it holds: leave cache() out, or take a plan without held_as";
            return refuse(held_as.into(), bound.to_owned());
        }
        if let Some(held_as) = self.cut_held_as() {
            held_as.each().try_for_each(|one| self.check_cache(one))?;
            if self.residency.holds_as().is_some() {
                let name = &self.residency_name;
                let whose = if of_plan.is_some() {
                    "take a plan without held_as"
                } else {
                    "leave cache() out"
                };
                let bound = format!("{name} says by itself what it holds: {whose}");
                return refuse(held_as, bound);
            }
        }
        match self.residency.plan().and_then(BudgetPlan::representations) {
            None => Ok(()),
            Some(held_as) => {
                let bound = "a budget while decoding reads the tokens of a plan alone: take a plan without held_as";
                refuse(held_as, bound.to_owned())
            }
        }
    }

    /// Refuses elements that its residency cannot work on: tokens leave, or are recalled, one by one.
    ///
    /// Errors: [`Error::Invalid`] for tokens that are coded together.
    pub fn check_cache(&self, held_as: Representation) -> Result<()> {
        let takes_alone = self.residency_name != "keep" && self.residency.holds_as().is_none();
        if held_as.holds_tokens_alone() || !takes_alone {
            return Ok(());
        }
        let bound = format!(
            "{} takes tokens one by one, and this type codes them together: hold them in q8_0, q4_0, bf16 or f16",
            self.residency_name
        );
        Err(Error::invalid("type of the cache", held_as, bound))
    }

    /// [`Method::check_cache`] of what it holds in a run whose prompts are prefilled into `prefilled`.
    ///
    /// Errors: as there.
    pub fn check_held(&self, prefilled: Representation) -> Result<()> {
        let held_as = self.held_as().unwrap_or_else(|| prefilled.into());
        held_as.each().try_for_each(|one| self.check_cache(one))
    }

    /// Takes what it needs from a profile, if it is allocated from one.
    ///
    /// Errors: as [`Allocator::check`] and [`Measures::of_profile`].
    pub fn allocate_from(&mut self, profile: &Profile) -> Result<()> {
        let Some(Cut {
            allocation: Allocation::Rule(rule),
            ..
        }) = &mut self.cut
        else {
            return Ok(());
        };
        if let Measured::Profile(measures) = &mut rule.measured {
            let options = profile.meta.settings.measures.clone();
            rule.allocator.check(rule.granularity, &options)?;
            let needs = rule.allocator.needs(rule.granularity)?;
            *measures = Some(Box::new(Measures::of_profile(profile, &needs)?));
        }
        Ok(())
    }

    /// What it reads of the prompt's own prefill; nothing for an allocation that is refused.
    pub fn own_needs(&self) -> Needs {
        let online = self.rule().filter(|rule| rule.measured == Measured::Online);
        let needs = online.and_then(|rule| rule.allocator.needs(rule.granularity).ok());
        needs.unwrap_or_default()
    }

    /// Whether it is allocated from a profile that must be given.
    pub fn needs_given_profile(&self) -> bool {
        self.rule()
            .is_some_and(|rule| matches!(rule.measured, Measured::Profile(_)))
    }

    /// Refuses plans for a model of another geometry.
    ///
    /// Errors: as [`BudgetPlan::check_geometry`].
    pub fn check_geometry(&self, model: &Geometry) -> Result<()> {
        if let Some(held_as) = self.held_as() {
            let mut each = held_as.each();
            each.try_for_each(|one| one.check_width(model.head_dim))?;
            if held_as.each().any(Representation::has_levels) {
                model.refuse_windows("two levels of precision for")?;
            }
        }
        self.residency.check_geometry(model)?;
        self.plans().try_for_each(|plan| plan.check_geometry(model))
    }

    /// The plans that it takes its tokens from, those that bound a living cache among them.
    pub fn plans(&self) -> impl Iterator<Item = &BudgetPlan> {
        self.cut_plan().into_iter().chain(self.residency.plan())
    }

    /// Refuses what a device does not do: eviction and recall anywhere but on the CPU, and caches that its attention cannot read.
    ///
    /// Errors: [`Error::Unsupported`].
    pub fn check_device(&self, device: &Device, precision: Precision) -> Result<()> {
        match self.cut_held_as() {
            None => self.check_cache(precision.cache)?,
            Some(held_as) => held_as.each().try_for_each(|cache| {
                self.check_cache(cache)?;
                Precision { cache, ..precision }.check(device)
            })?,
        }
        if self.residency_name == "keep" || device.is_cpu() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "a cache that changes while it lives (eviction, recall) on",
            found: format!("{:?}", device.location()),
            supported: "--device cpu".into(),
        })
    }

    /// Refuses a prompt of `tokens` that could not be served, whatever is measured of it.
    ///
    /// Errors: [`Error::Invalid`] with the value and the bound.
    pub fn check_prompt(
        &self,
        tokens: usize,
        geometry: &Geometry,
        budget: Option<CacheBudget>,
        floor: &Floor,
    ) -> Result<()> {
        self.residency.check(tokens, floor, budget)?;
        // Bytes become tokens once it is known what they hold.
        let in_tokens = budget.and_then(CacheBudget::tokens);
        match (self.cut.as_ref().map(|cut| &cut.allocation), in_tokens) {
            (Some(Allocation::Plan(plan)), _) => plan.tokens_at(tokens).map(drop),
            (Some(Allocation::Rule(rule)), Some(budget)) => {
                let request = Request::of_model(geometry.clone(), budget, *floor, tokens);
                request
                    .by(rule.granularity)
                    .check_budget_by(&*rule.allocator)
            }
            _ => Ok(()),
        }
    }

    /// Everything about it, for files; axes that are as they always were are left out.
    pub fn described(&self) -> Value {
        let mut described = match &self.cut {
            None => json!({"name": self.name}),
            Some(Cut {
                allocation,
                ranking,
            }) => json!({
                "name": self.name,
                "strategy": allocation.strategy(),
                "parameters": allocation.parameters(),
                "granularity": allocation.granularity(),
                "measured": allocation.source(),
                "scorer": ranking.name,
                "scorer_parameters": ranking.scorer.parameters(),
                "split": ranking.split.to_string(),
            }),
        };
        if self.residency_name != "keep" {
            described["residency"] = self.residency_name.as_str().into();
            described["residency_parameters"] = self.residency.parameters();
            if let Some(plan) = self.residency.plan() {
                let text = serde_json::to_string(plan).unwrap_or_default();
                described["residency_plan_sha256"] = sha256_hex(text.as_bytes()).into();
            }
        }
        if let Some(held_as) = self.cut_held_as() {
            described["cache"] = held_as.to_string().into();
        }
        described
    }
}

impl Allocation {
    /// Name of the strategy.
    pub fn strategy(&self) -> &str {
        match self {
            Self::Rule(rule) => &rule.strategy,
            Self::Plan(plan) => &plan.strategy,
        }
    }

    /// Its parameters in full.
    pub fn parameters(&self) -> Value {
        match self {
            Self::Rule(rule) => rule.allocator.parameters(),
            Self::Plan(plan) => plan.parameters.clone(),
        }
    }

    /// By layer or by KV head.
    pub fn granularity(&self) -> Granularity {
        match self {
            Self::Rule(rule) => rule.granularity,
            Self::Plan(plan) => plan.granularity,
        }
    }

    fn source(&self) -> &'static str {
        match self {
            Self::Rule(rule) if rule.measured == Measured::Online => "online",
            Self::Rule(_) => "profile",
            Self::Plan(_) => "plan",
        }
    }

    /// Tokens of every KV head for a prompt whose own measures are `online`.
    ///
    /// Shapes: `[layer][kv_head]`. Errors: those of the allocator and of [`crate::budget::fit()`]; [`Error::Invalid`]
    /// for a rule without a budget, or whose profile was not read.
    pub fn budgets(
        &self,
        online: &Measures,
        budget: Option<Budget>,
        floor: Floor,
        tokens: usize,
    ) -> Result<TokenBudgets> {
        let rule = match self {
            Self::Plan(plan) => return plan.tokens_at(tokens),
            Self::Rule(rule) => rule,
        };
        let budget = budget.ok_or_else(|| {
            let bound = "a strategy spends one: give it with --budget";
            Error::invalid("budget", "absent", bound)
        })?;
        let measures = match &rule.measured {
            Measured::Online => online,
            Measured::Profile(Some(measures)) => measures,
            Measured::Profile(None) => {
                let bound = "it needs a profile: give one with --profile, or leave @profile out";
                return Err(Error::invalid("strategy", &rule.strategy, bound));
            }
        };
        let request = Request::of_measures(measures, budget, floor, tokens).by(rule.granularity);
        request.check()?;
        let targets = request.ask(&*rule.allocator)?;
        let parameters = rule.allocator.parameters();
        let provenance = Provenance::default();
        let plan =
            BudgetPlan::of_targets(&rule.strategy, parameters, &request, &targets, provenance)?;
        Ok(plan.tokens)
    }
}
