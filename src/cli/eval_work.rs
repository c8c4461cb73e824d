//! The work of `kvprof eval`: contexts one after another or several at once, and what a grid cost.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use kvprof::eval::{Case, EvalSettings, PromptPlace, Sweep, contexts, outcome_tables};
use kvprof::model::attention::NoProbe;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::run::RunFolder;
use serde_json::json;

use super::counted;
use super::jobs::JobArguments;
use super::long_run::progress_bar;

/// A run with what it has to do.
pub struct EvalWork<'a> {
    /// Where tables go.
    pub run: &'a RunFolder<EvalSettings>,
    /// What is tried.
    pub sweep: &'a Sweep<'a>,
    /// On which prompts.
    pub cases: &'a [Case],
    /// How many contexts at once.
    pub jobs: JobArguments,
    /// No progress.
    pub quiet: bool,
}

impl EvalWork<'_> {
    /// Runs what is not there yet; says what the last context's grid cost against prefilling each time.
    pub fn measure(&self) -> anyhow::Result<Option<Cost>> {
        let groups = contexts(self.cases, self.sweep.serves_questions_together());
        let missing = |group: &Vec<usize>| group.iter().any(|&index| !self.run.has(index));
        let todo: Vec<usize> = (0..groups.len()).filter(|&g| missing(&groups[g])).collect();
        let prompts: usize = todo.iter().map(|&g| groups[g].len()).sum();
        let configurations = self.sweep.configurations().len();
        let bar = progress_bar(prompts * configurations, "configurations", self.quiet);
        let last: Mutex<Option<(usize, f64)>> = Mutex::new(None);
        self.jobs.run(&todo, &|group| {
            let start = Instant::now();
            self.context(&groups[group], &bar)?;
            let grid_s = start.elapsed().as_secs_f64();
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some((group, grid_s));
            Ok(())
        })?;
        bar.finish_and_clear();
        let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Prompts that share the cores say nothing about the cost of one.
        match last.filter(|_| !self.quiet && self.jobs.one_by_one()) {
            None => Ok(None),
            Some((group, grid_s)) => self.cost(&groups[group], grid_s).map(Some),
        }
    }

    /// Tries everything on the questions of one context.
    fn context(&self, group: &[usize], bar: &indicatif::ProgressBar) -> anyhow::Result<()> {
        let cases: Vec<&Case> = group.iter().map(|&index| &self.cases[index]).collect();
        let (Some(&first), Some(case)) = (group.first(), cases.first()) else {
            return Ok(());
        };
        bar.set_message(format!("prompt {}/{}", first + 1, self.cases.len()));
        let outcomes = (self.sweep)
            .run_together(&cases, &mut || bar.inc(1))
            .with_context(|| format!("evaluating prompt {} ({})", first + 1, case.id))?;
        for ((&index, case), outcome) in group.iter().zip(&cases).zip(&outcomes) {
            let place = PromptPlace {
                index,
                first_of_context: first,
            };
            let (methods, budgets) = (self.sweep.methods, self.sweep.budgets);
            let tables = outcome_tables(place, case, outcome, methods, budgets);
            self.run.write(index, &tables)?;
        }
        Ok(())
    }

    /// What a grid took, against a bare prefill of the same context.
    fn cost(&self, group: &[usize], grid_s: f64) -> anyhow::Result<Cost> {
        let (ids, decoder) = (self.cases[group[0]].context(), &self.sweep.model.decoder);
        let mut cache = decoder.new_cache(ids.len())?;
        let start = Instant::now();
        decoder.prefill(ids, &mut cache, PREFILL_RUN, &mut NoProbe)?;
        Ok(Cost {
            tokens: ids.len(),
            questions: group.len(),
            configurations: self.sweep.configurations().len(),
            grid_s,
            bare_s: start.elapsed().as_secs_f64(),
        })
    }
}

/// What the grid of one context took, and what one bare prefill of the same takes.
pub struct Cost {
    tokens: usize,
    questions: usize,
    configurations: usize,
    grid_s: f64,
    bare_s: f64,
}

impl Cost {
    /// Seconds of a prefill for every configuration.
    fn prefills_s(&self) -> f64 {
        self.tried() as f64 * self.bare_s
    }

    /// Configurations, each with every question.
    fn tried(&self) -> usize {
        self.configurations * self.questions
    }

    /// In a sentence.
    pub fn in_words(&self) -> String {
        let (tokens, grid, times, bare) = (self.tokens, self.grid_s, self.tried(), self.bare_s);
        let (all, share) = (self.prefills_s(), 100.0 * grid / self.prefills_s());
        format!(
            "{} of the last prompt ({tokens} tokens) took {grid:.1} s with one prefill; prefilling for \
             each would take {times} x {bare:.2} s = {all:.1} s before any decoding: {share:.0} % of that.",
            counted(times, "configuration"),
        )
    }

    /// For scripts.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "tokens": self.tokens, "configurations": self.tried(),
            "grid_s": self.grid_s, "bare_prefill_s": self.bare_s,
            "share": self.grid_s / self.prefills_s(),
        })
    }
}
