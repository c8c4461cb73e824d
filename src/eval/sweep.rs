//! The sweep: one prefill of a context serves every method, budget and question.

use super::case::Case;
use super::outcome::{Outcome, Trial};
use super::query_source::QuerySource;
use super::reference::{Reference, Standing};
use super::trial::Stand;
use crate::budget::{CacheBudget, Floor};
use crate::error::{Error, Result};
use crate::method::{DECODE_ROOM, LiveCache, Method, observe};
use crate::model::Model;
use crate::model::attention::{AttentionProbe, NoProbe};
use crate::select::ContinuationProbe;

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
    /// Whose rows scorers look from.
    pub observed_from: QuerySource,
}

impl<'s> Sweep<'s> {
    /// Configurations in the order of [`Outcome::rows`].
    pub fn configurations(&self) -> Vec<(usize, Option<usize>)> {
        let methods = self.methods.iter().enumerate();
        methods
            .flat_map(|(m, method)| {
                if method.spends_budget() {
                    let tried =
                        (0..self.budgets.len()).filter(|&b| method.is_tried_at(self.budgets[b]));
                    tried.map(|b| (m, Some(b))).collect()
                } else {
                    vec![(m, None)]
                }
            })
            .collect()
    }

    /// Whether one cut may serve several questions: no method looks at a single one, or at what is said after it.
    pub fn serves_questions_together(&self) -> bool {
        let looks_ahead = self.methods.iter().any(|m| m.looks_ahead(self.window));
        !looks_ahead && self.observed_from != QuerySource::Question
    }

    /// Prefills one prompt once and tries every configuration; `done` hears of each.
    ///
    /// Errors: as [`Sweep::run_together`].
    pub fn run(&self, case: &Case, done: &mut dyn FnMut()) -> Result<Outcome> {
        let mut outcomes = self.run_together(&[case], done)?;
        outcomes.pop().ok_or_else(|| no_question("no prompt"))
    }

    /// Prefills one context once and cuts it once per configuration, for all questions that are asked about it; `done`
    /// hears of each configuration of each.
    ///
    /// A configuration that fails is a row with its error; memory peaks at the full cache and one cut copy, two
    /// where the cut one cannot be rewound.
    /// Shapes: one outcome per case, in order.
    /// Errors: those of prefill and of the full cache's own continuation; [`Error::Invalid`] for a context
    /// that is not longer than the window, and for cases of several contexts, or several where each needs a cut of its own.
    pub fn run_together(&self, cases: &[&Case], done: &mut dyn FnMut()) -> Result<Vec<Outcome>> {
        let stand = self.prepare(cases)?;
        let mut drafts: Vec<Vec<Vec<u32>>> = vec![Vec::new(); cases.len()];
        let mut rows: Vec<Vec<Trial>> = vec![Vec::new(); cases.len()];
        for (method, budget) in self.configurations() {
            let trials = stand.trials(cases, method, budget, &mut drafts);
            for (rows, trial) in rows.iter_mut().zip(trials) {
                rows.push(trial);
                done();
            }
        }
        let outcome = |rows| Outcome {
            rows,
            prefill_s: stand.observed.seconds,
            full_bytes: stand.observed.cache.bytes(),
        };
        Ok(rows.into_iter().map(outcome).collect())
    }

    /// What every KV head keeps.
    pub(super) fn floor(&self) -> Floor {
        Floor {
            whole_windows: self.whole_windows,
            ..Floor::of(self.sinks, self.window)
        }
    }

    /// Prefills a context and lets the full cache answer every question.
    pub(super) fn prepare(&self, cases: &[&Case]) -> Result<Stand<'s>> {
        let context = self.check_together(cases)?;
        let most = self.max_new_tokens;
        let longest = cases.iter().map(|case| case.question().len()).max();
        let dummy = match &self.observed_from {
            QuerySource::Dummy { ids, .. } => ids.len(),
            QuerySource::Context | QuerySource::Question => 0,
        };
        let room = (longest.unwrap_or(0) + most.max(DECODE_ROOM)).max(dummy);
        let mut observed = observe(self.model, context, room, self.methods, self.floor())?;
        let prefilled = observed.logits.to_vec1()?;
        let full = LiveCache::keeping(std::mem::take(&mut observed.cache));
        if observed.looks_ahead() && !full.can_rewind() {
            let bound = "a scorer that looks ahead needs a full cache that can be rewound: --cache-dtype q8_0, bf16 or f32";
            let held_as = full.cache().representations();
            return Err(Error::invalid("type of the cache", held_as, bound));
        }
        let mut ahead = ContinuationProbe::new(context.len());
        let probe: &mut dyn AttentionProbe = if observed.looks_ahead() {
            &mut ahead
        } else {
            &mut NoProbe
        };
        let (full, references) = self.references(full, &prefilled, cases, probe)?;
        if observed.looks_ahead() {
            observed.look_ahead(&ahead)?;
        }
        let mut full = full;
        match (&self.observed_from, cases) {
            (QuerySource::Context, _) => {}
            (QuerySource::Dummy { ids, .. }, _) => {
                observed.look_from(&self.model.decoder, &mut full, ids)?;
            }
            (QuerySource::Question, cases) => {
                let question = cases.first().map_or(&[][..], |case| case.question());
                observed.look_from(&self.model.decoder, &mut full, question)?;
            }
        }
        observed.cache = full.into_cache();
        Ok(Stand {
            model: self.model,
            methods: self.methods,
            budgets: self.budgets,
            floor: self.floor(),
            observed,
            references,
        })
    }

    /// What the full cache says to every question.
    fn references(
        &self,
        full: LiveCache,
        prefilled: &[f32],
        cases: &[&Case],
        probe: &mut dyn AttentionProbe,
    ) -> Result<(LiveCache, Vec<Reference>)> {
        let (model, most) = (self.model, self.max_new_tokens);
        let mut of = |standing: &mut Standing<'_>| {
            let cases = cases.iter();
            let references =
                cases.map(|case| Reference::of(model, standing, prefilled, case, most, probe));
            references.collect::<Result<Vec<_>>>()
        };
        if full.can_rewind() {
            let lost = || Err(no_question("the full cache was not given back"));
            let mut standing = Standing::of(full, &lost);
            let references = of(&mut standing)?;
            Ok((standing.take()?, references))
        } else {
            let copy = || Ok(LiveCache::keeping(full.cache().copy(most)?));
            let references = of(&mut Standing::to_be_made(&copy))?;
            Ok((full, references))
        }
    }

    /// The context that all cases share.
    fn check_together<'c>(&self, cases: &[&'c Case]) -> Result<&'c [u32]> {
        let first = cases.first().ok_or_else(|| no_question("no prompt"))?;
        let context = first.context();
        if cases.iter().any(|case| case.context() != context) {
            return Err(no_question("several contexts"));
        }
        if cases.len() > 1 && !self.serves_questions_together() {
            return Err(no_question(
                "several questions behind a method that looks ahead",
            ));
        }
        cases.iter().try_for_each(|case| self.check(case))?;
        Ok(context)
    }

    fn check(&self, case: &Case) -> Result<()> {
        let context = case.context().len();
        if self.window >= context && self.methods.iter().any(|m| m.cut.is_some()) {
            let bound = format!(
                "prompt {} has {context} tokens to cut, more than the window is needed",
                case.id
            );
            return Err(Error::invalid("observation window", self.window, bound));
        }
        let tokens = case.ids.len();
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
}

fn no_question(found: &str) -> Error {
    let bound = "questions of one context are needed to be put to one cut";
    Error::invalid("prompts of a sweep", found, bound)
}
