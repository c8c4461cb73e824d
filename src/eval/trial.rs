//! One configuration on the questions of one context: cut once, then every question is put to what is left.

use std::time::Instant;

use super::answer::{contained_share, contains_any, exact_match, f1};
use super::case::Case;
use super::outcome::{Scores, Trial};
use super::reference::{Continued, Reference, Standing};
use crate::budget::{CacheBudget, Floor, TokenBudgets};
use crate::error::{Error, Result};
use crate::method::{DECODE_ROOM, Method, Observed};
use crate::model::Model;
use crate::model::cache::KvCache;
use crate::select::Slots;

/// What the configurations of one context share.
pub(super) struct Stand<'a> {
    pub model: &'a Model,
    pub methods: &'a [Method],
    pub budgets: &'a [CacheBudget],
    pub floor: Floor,
    pub observed: Observed<'a>,
    /// One for every question.
    pub references: Vec<Reference>,
}

/// What a configuration kept of a context.
struct KeptOf {
    kv_bytes: usize,
    offloaded: usize,
    budget_tokens: f64,
    /// Share of evidence that every layer holds, by question.
    evidence: Vec<Vec<f64>>,
}

impl Stand<'_> {
    /// Cuts for one configuration and puts every question to the cut; one row for each.
    pub(super) fn trials(
        &self,
        cases: &[&Case],
        method: usize,
        budget: Option<usize>,
        drafts: &mut [Vec<Vec<u32>>],
    ) -> Vec<Trial> {
        let own = &self.methods[method];
        let mut empty = Trial {
            method,
            budget,
            scores: Err(String::new()),
            held: Default::default(),
            recall: Vec::new(),
            cache: own.held_as().map_or_else(
                || self.observed.cache.representations().to_string(),
                |held_as| held_as.to_string(),
            ),
            replay_s: self.observed.replay_seconds(own),
            cut_s: f64::NAN,
            decode_steps: 0,
            decode_s: f64::NAN,
        };
        let tried = if own.is_reference() {
            let kept = KeptOf::whole(&self.observed.cache, cases);
            let itself = |(reference, case): (&Reference, &&Case)| Ok(reference.of_itself(case));
            let continued = self.references.iter().zip(cases).map(itself).collect();
            Ok((kept, continued))
        } else {
            self.tried(cases, own, budget, drafts, &mut empty.cut_s)
        };
        match tried {
            Ok((kept, continued)) => {
                let cases = cases.iter().enumerate().zip(continued);
                let rows = cases.map(|((question, case), continued)| {
                    self.row(case, empty.clone(), &kept, question, continued)
                });
                rows.collect()
            }
            Err(problem) => {
                empty.scores = Err(problem.to_string());
                vec![empty; cases.len()]
            }
        }
    }

    /// How far what is said next is from the full cache's where every KV head keeps so many tokens, ranked as the first
    /// method ranks: mean over questions, in nats.
    pub(super) fn divergence(&self, cases: &[&Case], budgets: &TokenBudgets) -> Result<f64> {
        let ranked = self.methods.iter().find_map(|m| Some((m, m.cut.as_ref()?)));
        let Some((method, cut)) = ranked else {
            let bound = "one that cuts is needed";
            return Err(Error::invalid("methods", self.methods.len(), bound));
        };
        let slots = self.observed.select(&cut.ranking, budgets)?;
        let fresh = || self.observed.cut(method, &slots, None, DECODE_ROOM);
        let mut standing = Standing::of(fresh()?, &fresh);
        let pairs = self.references.iter().zip(cases);
        let each =
            pairs.map(|(reference, case)| reference.divergence(self.model, &mut standing, case));
        let each: Vec<f64> = each.collect::<Result<_>>()?;
        Ok(each.iter().sum::<f64>() / each.len().max(1) as f64)
    }

    /// The row of one question.
    fn row(
        &self,
        case: &Case,
        mut row: Trial,
        kept: &KeptOf,
        question: usize,
        continued: Result<Continued>,
    ) -> Trial {
        let scores = continued.and_then(|mut continued| {
            row.recall = std::mem::take(&mut continued.recall);
            row.decode_steps = continued.said.steps;
            row.decode_s = continued.said.seconds;
            row.held = continued.held;
            self.scores(case, kept, question, &continued)
        });
        row.scores = scores.map_err(|problem| problem.to_string());
        row
    }

    /// Allocates, selects and cuts for a method, and lets its cache answer every question.
    fn tried(
        &self,
        cases: &[&Case],
        method: &Method,
        budget: Option<usize>,
        drafts: &mut [Vec<Vec<u32>>],
        cut_s: &mut f64,
    ) -> Result<(KeptOf, Vec<Result<Continued>>)> {
        let start = Instant::now();
        let observed = &self.observed;
        let budget = budget.map(|b| self.budgets[b]);
        (method.residency).check(observed.tokens(), &self.floor, budget)?;
        let slots = observed.kept(method, budget)?;
        let fresh = || observed.cut(method, &slots, budget, DECODE_ROOM);
        let live = fresh()?;
        *cut_s = start.elapsed().as_secs_f64();
        let bytes = live.bytes();
        let by_level = method.residency.holds_as().is_some();
        let kept = KeptOf {
            kv_bytes: bytes.resident,
            offloaded: bytes.offloaded,
            budget_tokens: if by_level {
                mean_kept(&live.cache().slots_in_sight())
            } else {
                mean_kept(&slots)
            },
            evidence: evidence_of(cases, live.cache()),
        };
        let mut standing = Standing::of(live, &fresh);
        let mut continued = Vec::with_capacity(cases.len());
        for ((case, reference), drafts) in cases.iter().zip(&self.references).zip(drafts) {
            let said = reference.against(self.model, &mut standing, case, drafts);
            if let Ok(said) = &said
                && !drafts.contains(&said.said.ids)
            {
                drafts.push(said.said.ids.clone());
            }
            continued.push(said);
        }
        Ok((kept, continued))
    }

    fn scores(
        &self,
        case: &Case,
        kept: &KeptOf,
        question: usize,
        continued: &Continued,
    ) -> Result<Scores> {
        let answer = self.model.tokenizer.decode_plain(&continued.said.ids)?;
        let of = |score: fn(&str, &[String]) -> f64| {
            if case.answers.is_empty() {
                f64::NAN
            } else {
                score(&answer, &case.answers)
            }
        };
        Ok(Scores {
            budget_tokens: kept.budget_tokens,
            kv_bytes: kept.kv_bytes,
            offloaded_bytes: kept.offloaded,
            f1: of(f1),
            em: of(exact_match),
            contains: of(if case.wants_all {
                contained_share
            } else {
                contains_any
            }),
            nll: continued.nll,
            kl: continued.fidelity.kl,
            top1: continued.fidelity.top1,
            evidence: kept.evidence.get(question).cloned().unwrap_or_default(),
            answer,
        })
    }
}

impl KeptOf {
    /// The full cache.
    fn whole(cache: &KvCache, cases: &[&Case]) -> Self {
        Self {
            kv_bytes: cache.bytes(),
            offloaded: 0,
            budget_tokens: mean_kept(&cache.slots_in_sight()),
            evidence: evidence_of(cases, cache),
        }
    }
}

/// [`evidence_held`] of every case.
fn evidence_of(cases: &[&Case], cache: &KvCache) -> Vec<Vec<f64>> {
    let cases = cases.iter();
    cases.map(|c| evidence_held(cache, &c.evidence)).collect()
}

/// Mean tokens kept per KV head.
fn mean_kept(kept: &[Slots]) -> f64 {
    let heads = || kept.iter().flatten();
    heads().map(Vec::len).sum::<usize>() as f64 / heads().count().max(1) as f64
}

/// Share of evidence tokens that each layer holds in sight of later ones, mean over its KV heads.
fn evidence_held(cache: &KvCache, evidence: &[u32]) -> Vec<f64> {
    if evidence.is_empty() {
        return Vec::new();
    }
    let layers = (0..cache.num_layers()).map(|layer| {
        let layer = cache.layer(layer);
        let heads = layer.heads.iter().enumerate();
        let shares = heads.map(|(h, head)| {
            let in_sight = layer.in_sight(h, cache.next_position());
            share_held(&head.positions()[in_sight], evidence)
        });
        shares.sum::<f64>() / layer.heads.len().max(1) as f64
    });
    layers.collect()
}

/// Share of evidence tokens among the positions of a KV head.
fn share_held(positions: &[u32], evidence: &[u32]) -> f64 {
    let mut positions = positions.to_vec();
    positions.sort_unstable();
    let found = evidence
        .iter()
        .filter(|e| positions.binary_search(e).is_ok());
    found.count() as f64 / evidence.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_a_share_of_what_a_head_holds() {
        assert_eq!(share_held(&[0, 2, 3], &[2, 3]), 1.0);
        assert_eq!(share_held(&[3, 0, 1], &[2, 3]), 0.5);
        assert_eq!(share_held(&[], &[2, 3]), 0.0);
        let kept = [vec![vec![0, 2, 3], vec![1, 2]], vec![vec![0], vec![4]]];
        assert_eq!(mean_kept(&kept), 7.0 / 4.0);
    }
}
