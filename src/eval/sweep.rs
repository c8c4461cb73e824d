//! The sweep: one prefill of a prompt serves every method and budget.

use std::time::Instant;

use super::answer::{contained_share, contains_any, exact_match, f1};
use super::case::Case;
use super::method::{Allocation, Measured, Method, Ranking};
use super::reference::{Continued, Reference};
use crate::budget::{
    Budget, BudgetPlan, Floor, Geometry, Measures, Provenance, Request, TokenBudgets,
};
use crate::error::{Error, Result};
use crate::generate::DECODE_ROOM;
use crate::model::Model;
use crate::model::attention::{NoProbe, Tee};
use crate::model::cache::KvCache;
use crate::model::decoder::PREFILL_RUN;
use crate::profile::{MeasureOptions, Profile, Profiler};
use crate::select::{ContinuationProbe, LayerScores, Scorer, ScoringProbe, Slots, select_layers};

/// What is tried on every prompt.
pub struct Sweep<'a> {
    /// The model that answers.
    pub model: &'a Model,
    /// Methods, the full cache among them if it is to be a row.
    pub methods: &'a [Method],
    /// Budgets of every method but the full cache.
    pub budgets: &'a [Budget],
    /// First tokens that always stay.
    pub sinks: usize,
    /// Last tokens that always stay, and the rows that are observed.
    pub window: usize,
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// Measurements for methods that allocate from a profile.
    pub profile: Option<&'a Profile>,
}

/// One prompt under every configuration.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One per configuration: methods in order, budgets in order within each.
    pub rows: Vec<Trial>,
    /// Seconds of the one prefill, probes included.
    pub prefill_s: f64,
    /// Bytes of the full cache after prefill.
    pub full_bytes: usize,
}

/// One configuration on one prompt.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Index among the methods.
    pub method: usize,
    /// Index among the budgets; `None` is the full cache.
    pub budget: Option<usize>,
    /// What it did, or why it could not.
    pub scores: Result<Scores, String>,
    /// Seconds to allocate, select and cut; NaN where nothing was cut.
    pub cut_s: f64,
    /// Decoding steps that the text needed beyond what it shares with the full cache's.
    pub decode_steps: usize,
    /// Seconds of those steps; NaN where the configuration failed.
    pub decode_s: f64,
}

/// What one configuration did; NaN where a metric does not apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Mean tokens per KV head that were kept.
    pub budget_tokens: f64,
    /// Bytes of the cache after the cut.
    pub kv_bytes: usize,
    /// Token F1 of the answer.
    pub f1: f64,
    /// Whether the answer is exactly right.
    pub em: f64,
    /// Share of expected strings that the answer contains.
    pub contains: f64,
    /// Negative log-likelihood of the best accepted answer, nats per token.
    pub nll: f64,
    /// Mean KL(full ‖ cut) over the full cache's continuation, nats.
    pub kl: f64,
    /// Share of its steps with the same most likely token.
    pub top1: f64,
    /// Share of evidence tokens kept, per layer; empty where no evidence is marked.
    pub evidence: Vec<f64>,
    /// The generated text.
    pub answer: String,
}

/// A prefilled prompt with everything that configurations need of it.
struct Observed {
    cache: KvCache,
    reference: Reference,
    /// `[distinct ranking][layer]`.
    scores: Vec<Vec<LayerScores>>,
    measures: Measures,
    prefill_s: f64,
}

impl Sweep<'_> {
    /// Configurations in the order of [`Outcome::rows`].
    pub fn configurations(&self) -> Vec<(usize, Option<usize>)> {
        let methods = self.methods.iter().enumerate();
        methods
            .flat_map(|(m, method)| match method.cut {
                None => vec![(m, None)],
                Some(_) => (0..self.budgets.len()).map(|b| (m, Some(b))).collect(),
            })
            .collect()
    }

    /// Prefills one prompt once and tries every configuration; `done` hears of each.
    ///
    /// A configuration that fails is a row with its error; memory peaks at the full cache and one cut copy.
    /// Errors: those of prefill and of the full cache's own continuation; [`Error::Invalid`] for a prompt
    /// that is not longer than the window.
    pub fn run(&self, case: &Case, done: &mut dyn FnMut()) -> Result<Outcome> {
        let observed = self.observe(case)?;
        let full_bytes = observed.cache.bytes();
        let mut drafts: Vec<Vec<u32>> = Vec::new();
        let rows = self.configurations().into_iter().map(|(method, budget)| {
            let row = self.row(case, &observed, method, budget, &mut drafts);
            done();
            row
        });
        Ok(Outcome {
            rows: rows.collect(),
            prefill_s: observed.prefill_s,
            full_bytes,
        })
    }

    /// Scorers that differ; each scores a prompt once, however many rankings use it.
    fn distinct_scorers(&self) -> Vec<&Ranking> {
        let mut distinct: Vec<&Ranking> = Vec::new();
        for (_, ranking) in self.methods.iter().filter_map(|m| m.cut.as_ref()) {
            if !distinct.iter().any(|known| same_scorer(known, ranking)) {
                distinct.push(ranking);
            }
        }
        distinct
    }

    fn observe(&self, case: &Case) -> Result<Observed> {
        let (decoder, tokens) = (&self.model.decoder, case.ids.len());
        if self.window >= tokens && self.methods.iter().any(|m| m.cut.is_some()) {
            let bound = format!(
                "prompt {} has {tokens} tokens, more than the window is needed",
                case.id
            );
            return Err(Error::invalid("observation window", self.window, bound));
        }
        let longest = case.longest(
            decoder.config().max_position_embeddings,
            self.max_new_tokens,
        );
        if tokens > longest {
            let bound = format!(
                "an answer to prompt {} needs room: at most {longest} tokens fit this model's context",
                case.id
            );
            return Err(Error::invalid("prompt length in tokens", tokens, bound));
        }
        let most = self.max_new_tokens;
        let scorers = self.distinct_scorers();
        let looks_ahead = |s: &dyn Scorer| s.needs(self.window).continuation;
        let during_prefill: Vec<(&dyn Scorer, usize)> = (scorers.iter())
            .filter(|r| !looks_ahead(&*r.scorer))
            .map(|r| (&*r.scorer, self.window))
            .collect();
        let mut scoring = ScoringProbe::new(during_prefill);
        let options = MeasureOptions {
            window: Some(self.window.max(1)),
            needs: Some(self.methods.iter().map(Method::own_needs).collect()),
            ..MeasureOptions::default()
        };
        let mut ignore = |_| ();
        let mut profiler = Profiler::new(&options, &mut ignore);
        let start = Instant::now();
        let mut cache = decoder.new_cache(tokens + most.max(DECODE_ROOM))?;
        let mut both = Tee(&mut profiler, &mut scoring);
        let first = decoder.prefill(&case.ids, &mut cache, PREFILL_RUN, &mut both)?;
        let prefill_s = start.elapsed().as_secs_f64();
        let geometry = Geometry::of_model(self.model);
        let measures = Measures::of_prompt(geometry, tokens, &profiler.finish(), &options);
        let first = first.to_vec1()?;
        let mut ahead = ContinuationProbe::new(tokens);
        let any_ahead = scorers.iter().any(|r| looks_ahead(&*r.scorer));
        let reference = match any_ahead {
            true => Reference::of(self.model, &mut cache, first, case, most, &mut ahead)?,
            false => Reference::of(self.model, &mut cache, first, case, most, &mut NoProbe)?,
        };
        let mut prefilled = scoring.finish().into_iter();
        let mut scores = Vec::new();
        for ranking in &scorers {
            scores.push(match looks_ahead(&*ranking.scorer) {
                true => ahead.score(&*ranking.scorer, self.window)?,
                false => prefilled.next().unwrap_or_default(),
            });
        }
        Ok(Observed {
            cache,
            reference,
            scores,
            measures,
            prefill_s,
        })
    }

    fn row(
        &self,
        case: &Case,
        observed: &Observed,
        method: usize,
        budget: Option<usize>,
        drafts: &mut Vec<Vec<u32>>,
    ) -> Trial {
        let start = Instant::now();
        let mut row = Trial {
            method,
            budget,
            scores: Err(String::new()),
            cut_s: f64::NAN,
            decode_steps: 0,
            decode_s: f64::NAN,
        };
        let result = match (&self.methods[method].cut, budget) {
            (Some((allocation, ranking)), Some(b)) => {
                let budget = self.budgets[b];
                let kept = self.kept(case, observed, allocation, ranking, budget);
                kept.and_then(|kept| {
                    let mut cache = observed.cache.cut(&kept, DECODE_ROOM)?;
                    row.cut_s = start.elapsed().as_secs_f64();
                    let bytes = cache.bytes();
                    let continued = observed
                        .reference
                        .against(self.model, &mut cache, case, drafts)?;
                    if !drafts.contains(&continued.said.ids) {
                        drafts.push(continued.said.ids.clone());
                    }
                    let evidence = evidence_kept(&kept, &case.evidence);
                    Ok((bytes, kept_per_head(&kept), evidence, continued))
                })
            }
            _ => {
                let tokens = case.ids.len() as f64;
                let layers = observed.cache.num_layers();
                let evidence = match case.evidence.is_empty() {
                    true => Vec::new(),
                    false => vec![1.0; layers],
                };
                Ok((
                    observed.cache.bytes(),
                    tokens,
                    evidence,
                    observed.reference.of_itself(),
                ))
            }
        };
        row.scores = result
            .and_then(|(bytes, tokens, evidence, continued)| {
                row.decode_steps = continued.said.steps;
                row.decode_s = continued.said.seconds;
                self.scores(case, bytes, tokens, evidence, continued)
            })
            .map_err(|e| e.to_string());
        row
    }

    fn scores(
        &self,
        case: &Case,
        kv_bytes: usize,
        budget_tokens: f64,
        evidence: Vec<f64>,
        continued: Continued,
    ) -> Result<Scores> {
        let answer = self.model.tokenizer.decode_plain(&continued.said.ids)?;
        let of = |score: fn(&str, &[String]) -> f64| match case.answers.is_empty() {
            true => f64::NAN,
            false => score(&answer, &case.answers),
        };
        Ok(Scores {
            budget_tokens,
            kv_bytes,
            f1: of(f1),
            em: of(exact_match),
            contains: of(match case.wants_all {
                true => contained_share,
                false => contains_any,
            }),
            nll: continued.nll,
            kl: continued.fidelity.kl,
            top1: continued.fidelity.top1,
            evidence,
            answer,
        })
    }

    fn kept(
        &self,
        case: &Case,
        observed: &Observed,
        allocation: &Allocation,
        ranking: &Ranking,
        budget: Budget,
    ) -> Result<Vec<Slots>> {
        let budgets = self.budgets_of(case, observed, allocation, budget)?;
        let mut scorers = self.distinct_scorers().into_iter();
        let index = scorers.position(|known| same_scorer(known, ranking));
        let scores = index.and_then(|i| observed.scores.get(i)).ok_or_else(|| {
            Error::invalid("scorer", &ranking.name, "it did not score this prompt")
        })?;
        if scores.is_empty() {
            let bound = "the full cache said nothing that could be looked at";
            return Err(Error::invalid("scorer", &ranking.name, bound));
        }
        select_layers(scores, &budgets, self.sinks, self.window, ranking.split)
    }

    fn budgets_of(
        &self,
        case: &Case,
        observed: &Observed,
        allocation: &Allocation,
        budget: Budget,
    ) -> Result<TokenBudgets> {
        let floor = Floor::of(self.sinks, self.window);
        let tokens = case.ids.len();
        let of_profile;
        let measures = match (allocation.measured, self.profile) {
            (Measured::Online, _) => &observed.measures,
            (Measured::Profile, Some(profile)) => {
                let needs = allocation.allocator.needs(allocation.granularity)?;
                of_profile = Measures::of_profile(profile, &needs)?;
                &of_profile
            }
            (Measured::Profile, None) => {
                let bound = "it needs a profile: give one with --profile, or leave @profile out";
                return Err(Error::invalid("strategy", &allocation.strategy, bound));
            }
        };
        let request = Request::of_measures(measures, budget, floor, tokens);
        let request = request.by(allocation.granularity);
        request.check()?;
        let targets = allocation.allocator.targets(&request)?;
        let (name, parameters) = (&allocation.strategy, allocation.allocator.parameters());
        let provenance = Provenance::default();
        let plan = BudgetPlan::of_targets(name, parameters, &request, &targets, provenance)?;
        Ok(plan.tokens)
    }
}

/// Whether two rankings score alike; how a layer's budget is split is no part of the score.
fn same_scorer(a: &Ranking, b: &Ranking) -> bool {
    a.name == b.name && a.scorer.parameters() == b.scorer.parameters()
}

/// Mean tokens kept per KV head.
fn kept_per_head(kept: &[Slots]) -> f64 {
    let heads = kept.iter().flatten();
    let (count, total) = heads.fold((0usize, 0usize), |(n, sum), slots| {
        (n + 1, sum + slots.len())
    });
    total as f64 / count.max(1) as f64
}

/// Share of evidence tokens that each layer keeps, mean over its KV heads; slots of a full cache are positions.
fn evidence_kept(kept: &[Slots], evidence: &[u32]) -> Vec<f64> {
    if evidence.is_empty() {
        return Vec::new();
    }
    let share = |slots: &Vec<u32>| {
        let found = evidence.iter().filter(|e| slots.binary_search(e).is_ok());
        found.count() as f64 / evidence.len() as f64
    };
    kept.iter()
        .map(|layer| layer.iter().map(share).sum::<f64>() / layer.len().max(1) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_a_mean_over_heads_of_shares_kept() {
        let kept = vec![vec![vec![0, 2, 3], vec![1, 2]], vec![vec![0], vec![4]]];
        assert_eq!(evidence_kept(&kept, &[2, 3]), [0.75, 0.0]);
        assert!(evidence_kept(&kept, &[]).is_empty());
        assert_eq!(kept_per_head(&kept), 7.0 / 4.0);
    }
}
