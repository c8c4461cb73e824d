//! What a search is run on: contexts that are prefilled once and kept, and contexts that it never sees.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::coordinate::{Found, SearchOptions, search};
use super::shape::LayerGroups;
use crate::budget::{BudgetPlan, CacheBudget, Provenance, Request, Targets, TokenBudgets};
use crate::error::{Error, Result};
use crate::eval::bootstrap::{Bootstrap, Interval};
use crate::eval::case::Case;
use crate::eval::reference::Reference;
use crate::eval::shuffle::shuffle;
use crate::eval::sweep::Sweep;
use crate::eval::trial::Stand;

/// A search for the plan that changes least what the model says next.
pub struct PlanSearch<'a> {
    /// The model, the one budget, and methods whose allocations are started from; all rank and split alike.
    pub sweep: Sweep<'a>,
    /// The prompts.
    pub cases: &'a [Case],
    /// Contexts to search on, each the indices of the prompts that ask about it.
    pub calibration: Vec<Vec<usize>>,
    /// Contexts to see how much of what was found holds elsewhere.
    pub held_out: Vec<Vec<usize>>,
    /// Groups of neighbouring layers that share a factor.
    pub groups: usize,
    /// How the search goes.
    pub options: SearchOptions,
    /// How the interval of the held-out difference is drawn.
    pub bootstrap: Bootstrap,
}

/// A prefilled context with the questions that are asked about it.
struct Context<'a> {
    stand: Stand<'a>,
    cases: Vec<&'a Case>,
}

/// A plan that a search may start from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The method whose allocations it is the mean of.
    pub method: String,
    /// The plan.
    pub plan: BudgetPlan,
    /// Mean divergence on the calibration prompts, in nats.
    pub kl: f64,
}

/// A plan against the one that the search started from, on prompts that the search never saw.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOutGain {
    /// Contexts, of which several questions count once.
    pub contexts: usize,
    /// Mean divergence of the found plan, in nats.
    pub kl: f64,
    /// Mean divergence of the plan that the search started from.
    pub start_kl: f64,
    /// Interval of the mean of the paired differences.
    pub interval: Option<Interval>,
    /// Contexts on which the found plan diverges less.
    pub better: usize,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Searched {
    /// The starts that were tried, in the order of their methods.
    pub starts: Vec<Start>,
    /// The one that it set out from: the first of those with the least divergence.
    pub best_start: usize,
    /// Where it came to.
    pub found: Found,
    /// The plan there.
    pub plan: BudgetPlan,
    /// Contexts that it was searched on.
    pub contexts: usize,
    /// Seconds of all prefills on the calibration prompts.
    pub prefill_s: f64,
    /// On held-out contexts, where there are any.
    pub held_out: Option<HeldOutGain>,
    /// Prompts after which the model says nothing, on either side.
    pub left_out: Vec<String>,
}

/// Parts contexts by chance into those to search on and `share` of them, rounded, to hold out.
///
/// Shapes: contexts as [`contexts()`](fn@crate::eval::contexts) gives them, in their order on both sides.
pub fn hold_out(contexts: Vec<Vec<usize>>, share: f64, seed: u64) -> [Vec<Vec<usize>>; 2] {
    let mut order: Vec<usize> = (0..contexts.len()).collect();
    shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(seed));
    let count = (share * contexts.len() as f64).round() as usize;
    let chosen: BTreeSet<usize> = order.into_iter().take(count).collect();
    let (held_out, rest): (Vec<_>, Vec<_>) =
        (contexts.into_iter().enumerate()).partition(|(place, _)| chosen.contains(place));
    let contexts = |part: Vec<(usize, Vec<usize>)>| part.into_iter().map(|(_, c)| c).collect();
    [contexts(rest), contexts(held_out)]
}

impl PlanSearch<'_> {
    /// Searches; `tried` hears of every plan with its divergence and the best so far, and may end the search with that.
    ///
    /// Memory holds the full caches of all calibration prompts.
    /// Errors: those of prefill, allocation and cuts; [`Error::Invalid`] for no calibration prompt, and as
    /// [`LayerGroups::of`]; [`Error::NotFinite`] for a plan whose divergence is not finite.
    pub fn run(&self, tried: &mut dyn FnMut(f64, f64) -> ControlFlow<()>) -> Result<Searched> {
        let mut left_out = Vec::new();
        let mut stands = Vec::new();
        for context in &self.calibration {
            stands.extend(self.stand(context, &mut left_out)?);
        }
        if stands.is_empty() {
            let bound =
                "at least one prompt after which the model says something is needed to search on";
            return Err(Error::invalid("calibration prompts", 0, bound));
        }
        let (mut starts, mut is_over) = (Vec::new(), false);
        for (place, method) in self.sweep.methods.iter().enumerate() {
            let plan = self.start(&stands, place)?;
            let kl = finite_mean(&self.divergences(&stands, &plan)?)?;
            let method = method.name.clone();
            starts.push(Start { method, plan, kl });
            is_over = tried(kl, kl).is_break();
            if is_over {
                break;
            }
        }
        let best = (0..starts.len()).min_by(|a, b| starts[*a].kl.total_cmp(&starts[*b].kl));
        let best_start = best.unwrap_or_default();
        let start = &starts[best_start];
        let groups = LayerGroups::of(&start.plan, self.groups)?;
        let mut known: HashSet<TokenBudgets> = HashSet::from([start.plan.tokens.clone()]);
        let mut lowest = start.kl;
        let found = search(groups.count(), start.kl, self.options, &mut |logs| {
            if is_over {
                return Ok(ControlFlow::Break(()));
            }
            let plan = groups.scaled(&start.plan, logs)?;
            if !known.insert(plan.tokens.clone()) {
                return Ok(ControlFlow::Continue(None));
            }
            let kl = finite_mean(&self.divergences(&stands, &plan)?)?;
            lowest = lowest.min(kl);
            is_over = tried(kl, lowest).is_break();
            Ok(ControlFlow::Continue(Some(kl)))
        })?;
        let plan = groups.scaled(&start.plan, &found.logs)?;
        let contexts = stands.len();
        let prefill_s: f64 = stands.iter().map(|c| c.stand.observed.seconds).sum();
        drop(stands);
        let held_out = self.gain(&plan, &start.plan, &mut left_out)?;
        Ok(Searched {
            best_start,
            found,
            plan,
            contexts,
            prefill_s,
            held_out,
            starts,
            left_out,
        })
    }

    /// Prefills a context, with its questions.
    ///
    /// None where the model says nothing after it, which is put down in `left_out`: no plan can change that.
    fn stand(&self, context: &[usize], left_out: &mut Vec<String>) -> Result<Option<Context<'_>>> {
        let cases: Vec<&Case> = context.iter().map(|place| &self.cases[*place]).collect();
        let stand = self.sweep.prepare(&cases)?;
        let answers = stand.references.iter().zip(&cases);
        let silent = |(reference, case): (&Reference, &&Case)| {
            (reference.said.ids.is_empty() && case.question().is_empty()).then(|| case.id.clone())
        };
        let silent: Vec<String> = answers.filter_map(silent).collect();
        if silent.is_empty() {
            return Ok(Some(Context { stand, cases }));
        }
        left_out.extend(silent);
        Ok(None)
    }

    /// The mean of a method's allocations, as a plan for prompts as long as the longest.
    fn start(&self, stands: &[Context<'_>], method: usize) -> Result<BudgetPlan> {
        let (own, budget) = (&self.sweep.methods[method], self.budget()?);
        let cut = own.cut.as_ref().ok_or_else(|| {
            let bound = "a plan says what a cut keeps: take methods that cut";
            Error::invalid("method to start from", &own.name, bound)
        })?;
        let floor = self.sweep.floor();
        let mut shares: Vec<f64> = Vec::new();
        for Context { stand, .. } in stands {
            let budgets = stand.observed.allocate(own, cut, Some(budget))?;
            let above = budgets.iter().flatten();
            let above: Vec<f64> = above
                .map(|b| b.saturating_sub(floor.tokens) as f64)
                .collect();
            let sum: f64 = above.iter().sum();
            shares.resize(above.len(), 0.0);
            // Where the budget is the floor there is nothing to share, and nothing to learn of shares.
            for (share, above) in shares.iter_mut().zip(above).filter(|_| sum > 0.0) {
                *share += above / sum;
            }
        }
        let longest = stands.iter().map(|c| c.stand.observed.tokens()).max();
        let geometry = stands[0].stand.observed.geometry().clone();
        let tokens = budget.tokens().ok_or_else(|| {
            let bound = "a search spends tokens: --budget 128 or 12%";
            Error::invalid("budget", budget, bound)
        })?;
        let request = Request::of_model(geometry, tokens, floor, longest.unwrap_or(1));
        let targets = Targets {
            floor: floor.tokens,
            tokens: shares
                .iter()
                .map(|share| floor.tokens as f64 + share)
                .collect(),
        };
        let parameters = serde_json::json!({});
        let provenance = Provenance::default();
        BudgetPlan::of_targets("search", parameters, &request, &targets, provenance)
    }

    fn budget(&self) -> Result<CacheBudget> {
        match self.sweep.budgets {
            [budget] => Ok(*budget),
            budgets => {
                let bound = "a search is for one budget";
                Err(Error::invalid("number of budgets", budgets.len(), bound))
            }
        }
    }

    /// Divergence of a plan on every context, in the mean over its questions.
    fn divergences(&self, stands: &[Context<'_>], plan: &BudgetPlan) -> Result<Vec<f64>> {
        let contexts = stands.iter();
        contexts
            .map(|Context { stand, cases }| {
                stand.divergence(cases, &plan.tokens_at(stand.observed.tokens())?)
            })
            .collect()
    }

    /// The found plan against its start where neither was chosen, one context in memory at a time.
    fn gain(
        &self,
        found: &BudgetPlan,
        start: &BudgetPlan,
        left_out: &mut Vec<String>,
    ) -> Result<Option<HeldOutGain>> {
        let (mut of_found, mut of_start) = (Vec::new(), Vec::new());
        for context in &self.held_out {
            let Some(stand) = self.stand(context, left_out)? else {
                continue;
            };
            let stand = [stand];
            of_found.extend(self.divergences(&stand, found)?);
            of_start.extend(self.divergences(&stand, start)?);
        }
        if of_found.is_empty() {
            return Ok(None);
        }
        let pairs = of_found.iter().zip(&of_start);
        let differences: Vec<f64> = pairs.map(|(found, start)| found - start).collect();
        Ok(Some(HeldOutGain {
            contexts: of_found.len(),
            kl: finite_mean(&of_found)?,
            start_kl: finite_mean(&of_start)?,
            interval: self.bootstrap.interval(&differences),
            better: differences.iter().filter(|d| **d < 0.0).count(),
        }))
    }
}

fn finite_mean(divergences: &[f64]) -> Result<f64> {
    let mean = divergences.iter().sum::<f64>() / divergences.len().max(1) as f64;
    if mean.is_finite() {
        return Ok(mean);
    }
    Err(Error::NotFinite {
        place: "the divergence of a plan".into(),
        advice: "the full cache said nothing after some prompt: leave such prompts out, or allow more new tokens".into(),
    })
}
