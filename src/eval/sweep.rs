//! The sweep: one prefill of a prompt serves every method and budget.

use std::time::Instant;

use super::answer::{contained_share, contains_any, exact_match, f1};
use super::case::Case;
use super::reference::{Continued, Reference};
use crate::budget::{CacheBudget, Floor};
use crate::error::{Error, Result};
use crate::method::{DECODE_ROOM, HeldRows, LiveCache, Method, Observed, observe};
use crate::model::Model;
use crate::model::attention::NoProbe;
use crate::model::cache::KvCache;
use crate::model::residency::RecallStep;
use crate::select::{ContinuationProbe, Slots};

/// What is tried on every prompt.
pub struct Sweep<'a> {
    /// The model that answers.
    pub model: &'a Model,
    /// Methods, the full cache among them if it is to be a row; those that are allocated from a profile have read it.
    pub methods: &'a [Method],
    /// Budgets of every method that spends one.
    pub budgets: &'a [CacheBudget],
    /// First tokens that always stay.
    pub sinks: usize,
    /// Last tokens that always stay, and the rows that are observed.
    pub window: usize,
    /// Whether layers with a window keep all that they see, apart from the budget.
    pub whole_windows: bool,
    /// Most tokens to generate.
    pub max_new_tokens: usize,
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
    /// Index among the budgets; `None` where the method spends none, as the full cache does.
    pub budget: Option<usize>,
    /// What it did, or why it could not.
    pub scores: Result<Scores, String>,
    /// Rows that it held while it was fed the full cache's continuation.
    pub held: HeldRows,
    /// What the steps of that brought back; none where nothing is left out.
    pub recall: Vec<RecallStep>,
    /// Elements of keys and values.
    pub cache: String,
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
    /// Mean tokens per KV head that the cut kept.
    pub budget_tokens: f64,
    /// Bytes of the cache when decoding begins that a step may read.
    pub kv_bytes: usize,
    /// Bytes of the cache when decoding begins that are kept elsewhere.
    pub offloaded_bytes: usize,
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
    /// Share of evidence tokens held when decoding begins, per layer; empty where no evidence is marked.
    pub evidence: Vec<f64>,
    /// The generated text.
    pub answer: String,
}

/// What configurations of one prompt share.
struct Stand<'a> {
    observed: Observed<'a>,
    reference: Reference,
}

/// What a configuration did before its answer is scored.
struct Ran {
    kv_bytes: usize,
    budget_tokens: f64,
    evidence: Vec<f64>,
    offloaded: usize,
    continued: Continued,
}

impl<'s> Sweep<'s> {
    /// Configurations in the order of [`Outcome::rows`].
    pub fn configurations(&self) -> Vec<(usize, Option<usize>)> {
        let methods = self.methods.iter().enumerate();
        methods
            .flat_map(|(m, method)| {
                if method.spends_budget() {
                    (0..self.budgets.len()).map(|b| (m, Some(b))).collect()
                } else {
                    vec![(m, None)]
                }
            })
            .collect()
    }

    /// Prefills one prompt once and tries every configuration; `done` hears of each.
    ///
    /// A configuration that fails is a row with its error; memory peaks at the full cache and one cut copy, two
    /// where the cut one cannot be rewound.
    /// Errors: those of prefill and of the full cache's own continuation; [`Error::Invalid`] for a prompt
    /// that is not longer than the window.
    pub fn run(&self, case: &Case, done: &mut dyn FnMut()) -> Result<Outcome> {
        let stand = self.prepare(case)?;
        let mut drafts: Vec<Vec<u32>> = Vec::new();
        let rows = self.configurations().into_iter().map(|(method, budget)| {
            let row = self.row(case, &stand, method, budget, &mut drafts);
            done();
            row
        });
        Ok(Outcome {
            rows: rows.collect(),
            prefill_s: stand.observed.seconds,
            full_bytes: stand.observed.cache.bytes(),
        })
    }

    fn floor(&self) -> Floor {
        Floor {
            whole_windows: self.whole_windows,
            ..Floor::of(self.sinks, self.window)
        }
    }

    fn prepare(&self, case: &Case) -> Result<Stand<'s>> {
        self.check(case)?;
        let most = self.max_new_tokens;
        let (ids, room) = (&case.ids, most.max(DECODE_ROOM));
        let mut observed = observe(self.model, ids, room, self.methods, self.floor())?;
        let first = observed.logits.to_vec1()?;
        let mut full = LiveCache::keeping(std::mem::take(&mut observed.cache));
        if observed.looks_ahead() && !full.can_rewind() {
            let bound = "a scorer that looks ahead needs a full cache that can be rewound: --cache-dtype q8_0, bf16 or f32";
            let held_as = full.cache().representations();
            return Err(Error::invalid("type of the cache", held_as, bound));
        }
        let reference = if observed.looks_ahead() {
            let mut ahead = ContinuationProbe::new(ids.len());
            let reference = Reference::of(self.model, &mut full, first, case, most, &mut ahead)?;
            observed.look_ahead(&ahead)?;
            reference
        } else {
            Reference::of(self.model, &mut full, first, case, most, &mut NoProbe)?
        };
        observed.cache = full.into_cache();
        Ok(Stand {
            observed,
            reference,
        })
    }

    fn check(&self, case: &Case) -> Result<()> {
        let tokens = case.ids.len();
        if self.window >= tokens && self.methods.iter().any(|m| m.cut.is_some()) {
            let bound = format!(
                "prompt {} has {tokens} tokens, more than the window is needed",
                case.id
            );
            return Err(Error::invalid("observation window", self.window, bound));
        }
        let context = self.model.decoder.config().context_of(tokens);
        let longest = case.longest(context, self.max_new_tokens);
        if tokens > longest {
            let bound = format!(
                "an answer to prompt {} needs room: at most {longest} tokens fit this model's context",
                case.id
            );
            return Err(Error::invalid("prompt length in tokens", tokens, bound));
        }
        Ok(())
    }

    fn row(
        &self,
        case: &Case,
        stand: &Stand<'_>,
        method: usize,
        budget: Option<usize>,
        drafts: &mut Vec<Vec<u32>>,
    ) -> Trial {
        let own = &self.methods[method];
        let mut row = Trial {
            method,
            budget,
            scores: Err(String::new()),
            held: HeldRows::default(),
            recall: Vec::new(),
            cache: own.held_as().map_or_else(
                || stand.observed.cache.representations().to_string(),
                |held_as| held_as.to_string(),
            ),
            cut_s: f64::NAN,
            decode_steps: 0,
            decode_s: f64::NAN,
        };
        let ran = if own.is_reference() {
            Ok(self.reference_row(case, stand))
        } else {
            self.tried(case, stand, own, budget, drafts, &mut row.cut_s)
        };
        row.scores = ran
            .and_then(|mut ran| {
                row.recall = std::mem::take(&mut ran.continued.recall);
                row.decode_steps = ran.continued.said.steps;
                row.decode_s = ran.continued.said.seconds;
                row.held = ran.continued.held;
                self.scores(case, ran)
            })
            .map_err(|e| e.to_string());
        row
    }

    /// The full cache itself.
    fn reference_row(&self, case: &Case, stand: &Stand<'_>) -> Ran {
        let cache = &stand.observed.cache;
        Ran {
            kv_bytes: cache.bytes(),
            budget_tokens: mean_kept(&cache.slots_in_sight()),
            evidence: evidence_held(cache, &case.evidence),
            offloaded: 0,
            continued: stand.reference.of_itself(),
        }
    }

    /// Allocates, selects and cuts for a method, and lets its cache continue.
    fn tried(
        &self,
        case: &Case,
        stand: &Stand<'_>,
        method: &Method,
        budget: Option<usize>,
        drafts: &mut Vec<Vec<u32>>,
        cut_s: &mut f64,
    ) -> Result<Ran> {
        let start = Instant::now();
        let observed = &stand.observed;
        let budget = budget.map(|b| self.budgets[b]);
        (method.residency).check(case.ids.len(), &self.floor(), budget)?;
        let kept = observed.kept(method, budget)?;
        let live = observed.cut(method, &kept, budget, DECODE_ROOM)?;
        *cut_s = start.elapsed().as_secs_f64();
        let bytes = live.bytes();
        let budget_tokens = if method.residency.holds_as().is_some() {
            mean_kept(&live.cache().slots_in_sight())
        } else {
            mean_kept(&kept)
        };
        let evidence = evidence_held(live.cache(), &case.evidence);
        let fresh = || observed.cut(method, &kept, budget, DECODE_ROOM);
        let reference = &stand.reference;
        let continued = reference.against(self.model, live, case, drafts, &fresh)?;
        if !drafts.contains(&continued.said.ids) {
            drafts.push(continued.said.ids.clone());
        }
        Ok(Ran {
            kv_bytes: bytes.resident,
            budget_tokens,
            evidence,
            offloaded: bytes.offloaded,
            continued,
        })
    }

    fn scores(&self, case: &Case, ran: Ran) -> Result<Scores> {
        let continued = ran.continued;
        let answer = self.model.tokenizer.decode_plain(&continued.said.ids)?;
        let of = |score: fn(&str, &[String]) -> f64| {
            if case.answers.is_empty() {
                f64::NAN
            } else {
                score(&answer, &case.answers)
            }
        };
        Ok(Scores {
            budget_tokens: ran.budget_tokens,
            kv_bytes: ran.kv_bytes,
            offloaded_bytes: ran.offloaded,
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
            evidence: ran.evidence,
            answer,
        })
    }
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
