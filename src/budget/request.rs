//! What an allocator is asked, and what it answers.

use std::fmt;

use serde_json::Value;

use super::amount::{Budget, MAX_TOKENS};
use super::fit::fit;
use super::floor::Floor;
use super::geometry::{Geometry, Granularity};
use super::measures::Measures;
use super::room::Room;
use crate::error::{Error, Result};
use crate::profile::{MeasureOptions, Needs};

/// Everything a budget may depend on.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The model.
    pub geometry: Geometry,
    /// What was measured on it, for the strategies that read it.
    pub measures: Option<&'a Measures>,
    /// How much cache may stay.
    pub budget: Budget,
    /// Whether the KV heads of a layer may differ.
    pub granularity: Granularity,
    /// What every KV head keeps at least.
    pub floor: Floor,
    /// Reference T: the prompt length that the budget is worked out for.
    pub tokens: usize,
}

impl<'a> Request<'a> {
    /// A request for the model that was measured, with equal heads within a layer.
    pub fn of_measures(
        measures: &'a Measures,
        budget: Budget,
        floor: Floor,
        tokens: usize,
    ) -> Self {
        Self {
            measures: Some(measures),
            ..Self::of_model(measures.geometry().clone(), budget, floor, tokens)
        }
    }

    /// A request without measurements, for static strategies.
    pub fn of_model(geometry: Geometry, budget: Budget, floor: Floor, tokens: usize) -> Self {
        Self {
            geometry,
            measures: None,
            budget,
            granularity: Granularity::Layer,
            floor,
            tokens,
        }
    }

    /// The same with another granularity.
    #[must_use]
    pub fn by(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Refuses what no strategy can answer.
    ///
    /// Errors: [`Error::Invalid`] for an amount, floor, geometry or length that cannot be, and for a
    /// profile of another geometry; as [`Floor::check_layers`].
    pub fn check(&self) -> Result<()> {
        self.budget.check()?;
        self.floor.check()?;
        self.geometry.check()?;
        if self.tokens == 0 || self.tokens > MAX_TOKENS {
            let bound = format!("it must be between 1 and {MAX_TOKENS}");
            let what = "reference prompt length";
            return Err(Error::invalid(what, self.tokens, bound));
        }
        self.floor.check_layers(&self.geometry, self.tokens)?;
        let others = self.measures.map(Measures::geometry);
        match others.filter(|others| !others.same_numbers(&self.geometry)) {
            None => Ok(()),
            Some(others) => {
                let ours = self.geometry.numbers();
                let bound = format!("the model has {ours}: profile that model");
                let theirs = others.numbers();
                Err(Error::invalid("geometry of the profile", theirs, bound))
            }
        }
    }

    /// Refuses a budget below the floor, and what [`Self::check`] refuses.
    ///
    /// Errors: as there and in [`fit()`].
    pub fn check_floor(&self) -> Result<()> {
        self.check()?;
        let equal = self.geometry.repeated(&vec![1.0; self.geometry.layers]);
        let shares = self.geometry.by_layer(&equal);
        fit(&shares, self.budget, &self.floor, self.room()).map(drop)
    }

    /// What every layer can use of the reference prompt.
    pub fn room(&self) -> Room {
        Room::of(&self.geometry, self.floor.whole_windows, self.tokens)
    }

    /// Asks an allocator for the tokens of every KV head; layers that take no part are not there for it.
    ///
    /// Errors: as [`Allocator::targets`].
    pub fn ask(&self, allocator: &dyn Allocator) -> Result<Targets> {
        let Some(parts) = self.parts()? else {
            return allocator.targets(self);
        };
        let targets = self
            .of_parts(&parts)
            .asked(&parts.measures, |request| allocator.targets(request))?;
        // Those that are kept whole have no share in the budget.
        let heads = self.geometry.kv_heads;
        let mut tokens = vec![targets.floor as f64; self.geometry.cells()];
        for (of_layer, &layer) in targets.tokens.chunks(heads.max(1)).zip(&parts.layers) {
            tokens[layer * heads..][..heads].copy_from_slice(of_layer);
        }
        Ok(Targets { tokens, ..targets })
    }

    /// As [`Allocator::lowest`], for the layers that take part.
    ///
    /// Errors: as there.
    pub fn lowest_by(&self, allocator: &dyn Allocator) -> Result<f64> {
        match self.parts()? {
            None => allocator.lowest(self),
            Some(parts) => self
                .of_parts(&parts)
                .asked(&parts.measures, |request| allocator.lowest(request)),
        }
    }

    /// As [`Allocator::check_budget`], for the layers that take part.
    ///
    /// Errors: as there.
    pub fn check_budget_by(&self, allocator: &dyn Allocator) -> Result<()> {
        match self.parts()? {
            None => allocator.check_budget(self),
            Some(parts) => self
                .of_parts(&parts)
                .asked(&parts.measures, |request| allocator.check_budget(request)),
        }
    }

    /// The layers that take part, and what was measured of them; `None` where all do.
    fn parts(&self) -> Result<Option<Parts>> {
        if !self.floor.whole_windows || self.geometry.windows.is_empty() {
            return Ok(None);
        }
        self.floor.check_layers(&self.geometry, self.tokens)?;
        let layers = self.geometry.global_layers();
        Ok(Some(Parts {
            measures: self.measures.map(|measures| measures.of_layers(&layers)),
            layers,
        }))
    }

    fn of_parts(&self, parts: &Parts) -> Self {
        Self {
            geometry: self.geometry.of_layers(&parts.layers),
            measures: None,
            floor: Floor {
                whole_windows: false,
                ..self.floor
            },
            ..self.clone()
        }
    }

    /// The answer to this request with other measures.
    fn asked<T>(
        self,
        measures: &Option<Measures>,
        question: impl FnOnce(&Request<'_>) -> Result<T>,
    ) -> Result<T> {
        question(&Request {
            measures: measures.as_ref(),
            ..self
        })
    }

    /// The measurements.
    ///
    /// Errors: [`Error::Invalid`] where there are none.
    pub fn measured(&self) -> Result<&'a Measures> {
        self.measures.ok_or_else(|| {
            let bound =
                "this strategy reads one: make it with `kvprof profile`, name it with --profile";
            Error::invalid("profile", "absent", bound)
        })
    }

    /// B: tokens per KV head that takes part, at the reference length, not capped.
    pub fn per_head(&self) -> f64 {
        let (heads, most) = self.parts_of_room();
        match self.budget {
            Budget::RetainedFraction(share) if most != heads * self.tokens => {
                share * most as f64 / heads.max(1) as f64
            }
            budget => budget.per_head(self.tokens),
        }
    }

    /// ⌊B·L·H_kv⌋ at the reference length, over the layers that take part.
    pub fn total(&self) -> usize {
        let (heads, most) = self.parts_of_room();
        self.budget.total(heads, most)
    }

    fn parts_of_room(&self) -> (usize, usize) {
        self.room()
            .of_parts(self.geometry.layers, self.geometry.kv_heads)
    }

    /// Targets above the request's own floor, in layer order.
    pub(super) fn targets(&self, tokens: Vec<f64>) -> Targets {
        Targets {
            floor: self.floor.tokens,
            tokens,
        }
    }

    /// Targets of layers that share what lies above the floor by weights; equally where all are 0.
    pub(super) fn by_weight(&self, weights: &[f64]) -> Targets {
        let sum: f64 = weights.iter().sum();
        let equal = 1.0 / weights.len().max(1) as f64;
        let least = self.lowest() as f64;
        let rest = (self.per_head() - least).max(0.0) * weights.len() as f64;
        let share = |weight: &f64| if sum > 0.0 { weight / sum } else { equal };
        let layers: Vec<f64> = weights.iter().map(|w| least + rest * share(w)).collect();
        self.targets(self.geometry.repeated(&layers))
    }

    /// The floor that the reference prompt can have.
    pub fn lowest(&self) -> usize {
        self.floor.tokens.min(self.tokens)
    }
}

/// Layers that take part in a budget, and what was measured of them.
struct Parts {
    layers: Vec<usize>,
    measures: Option<Measures>,
}

/// Tokens a strategy would give, before they are whole.
///
/// Targets become shares of what lies above the floor, and [`super::fit()`] makes them tokens: a target
/// that is whole already comes back as it is at the reference length.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// Tokens every KV head keeps at least, at any prompt length.
    pub floor: usize,
    /// Tokens of every KV head in layer order, L·H_kv of them; those above T are capped later.
    pub tokens: Vec<f64>,
}

impl Targets {
    /// Shares of the rest above the floor, summing to 1; equal where nothing lies above it.
    pub(super) fn shares(&self) -> Vec<f64> {
        let floor = self.floor as f64;
        let above: Vec<f64> = self.tokens.iter().map(|t| (t - floor).max(0.0)).collect();
        let sum: f64 = above.iter().sum();
        let equal = 1.0 / above.len().max(1) as f64;
        let share = |a: &f64| if sum > 0.0 { a / sum } else { equal };
        above.iter().map(share).collect()
    }
}

/// A rule that spreads a budget over layers and KV heads.
pub trait Allocator: fmt::Debug + Send + Sync {
    /// What it reads of a profile, or of the prompt's own prefill; nothing for static strategies.
    ///
    /// Errors: [`Error::Unsupported`] for a granularity or query that the rule's data does not have.
    fn needs(&self, granularity: Granularity) -> Result<Needs>;

    /// The parameters in full, defaults included, as a plan keeps them.
    fn parameters(&self) -> Value;

    /// Whether the floor is a parameter of the rule, and a request's holds no more than sinks and window.
    fn has_floor(&self) -> bool {
        self.parameters().get("floor").is_some()
    }

    /// What every KV head of the reference prompt keeps at least by this rule, whatever is measured.
    ///
    /// Units: tokens, at most T; not always whole. Errors: [`Error::Invalid`] for a floor of the rule's own that
    /// is below the request's.
    fn lowest(&self, request: &Request<'_>) -> Result<f64> {
        Ok(request.lowest() as f64)
    }

    /// Refuses what no measurement of these kinds could serve, before anything is measured.
    ///
    /// Errors: [`Error::Unsupported`] for a granularity or query that the rule's data does not have,
    /// [`Error::UnknownName`] for a threshold that is not measured.
    fn check(&self, granularity: Granularity, measured: &MeasureOptions) -> Result<()> {
        self.needs(granularity)?.check(measured)
    }

    /// Refuses a budget that the rule cannot spend on such a prompt, whatever will be measured of it.
    ///
    /// Errors: [`Error::Invalid`] for a budget below what every KV head keeps, with both numbers.
    fn check_budget(&self, request: &Request<'_>) -> Result<()> {
        request.check_floor()
    }

    /// Tokens of every KV head for a checked request.
    ///
    /// Units: tokens, not rounded. Errors: for measures that lack what the rule reads, a floor above the
    /// budget, a granularity that the data does not have.
    fn targets(&self, request: &Request<'_>) -> Result<Targets>;
}
