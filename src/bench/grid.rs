//! The sweep of an evaluation on one prompt: one prefill, every configuration.

use super::arithmetic::{Arithmetic, Shape};
use super::clock::{Seconds, timed};
use super::stage::Stage;
use super::work::Work;
use crate::budget::{Budget, CacheBudget};
use crate::error::{Error, Result};
use crate::eval::{QuerySource, Sweep};
use crate::method::Method;

const METHODS: [&str; 6] = [
    "snapkv",
    "ada-kv",
    "pyramid",
    "zigzag",
    "mass-optimal",
    "streaming",
];

const BUDGETS: [usize; 4] = [64, 128, 256, 512];

/// Methods times budgets.
pub(super) const CONFIGURATIONS: usize = METHODS.len() * BUDGETS.len();

/// Most tokens that a configuration generates.
const NEW_TOKENS: usize = 32;

/// Six methods at four budgets, allocated from the prompt's own profile, as `kvprof eval` runs them.
pub(super) struct Grid;

impl Work for Grid {
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds> {
        let methods = METHODS.iter().map(|name| Method::parse(name));
        let methods = methods.collect::<Result<Vec<_>>>()?;
        let budgets = BUDGETS.map(|tokens| Budget::TokensPerHead(tokens as f64));
        let sweep = Sweep {
            model: stage.model,
            methods: &methods,
            budgets: &budgets.map(CacheBudget::Tokens),
            whole_windows: stage.floor.whole_windows,
            sinks: stage.floor.sinks,
            window: stage.floor.window,
            max_new_tokens: NEW_TOKENS,
            observed_from: QuerySource::Context,
        };
        let (outcome, took) = timed(|| sweep.run(&stage.case, &mut || ()))?;
        // A configuration that fails is fast.
        let failed = outcome
            .rows
            .iter()
            .find_map(|row| row.scores.as_ref().err());
        match failed {
            Some(problem) => Err(Error::invalid("workload", "grid", problem)),
            None => Ok(took),
        }
    }

    fn least_tokens(&self) -> usize {
        BUDGETS[BUDGETS.len() - 1] + 1
    }

    fn room(&self, _: usize) -> usize {
        NEW_TOKENS
    }

    /// What configurations generate differs from text to text.
    fn arithmetic(&self, _: &Shape<'_>) -> Option<Arithmetic> {
        None
    }
}
