//! What a trace says of every method, in a line each.

use serde::Serialize;

use super::super::comparison::FULL;
use super::super::spread::RepeatSpread;
use super::measure::Step;
use super::store::{MethodTrace, Trace};

/// Most steps at either end of a text that are compared with each other.
pub(super) const END_STEPS: usize = 100;

/// A method over a whole text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSummary {
    /// Its name.
    pub method: String,
    /// The budget that it spent; `full` where it spends none.
    pub budget: String,
    /// Bytes that were resident at the first step.
    pub first_bytes: usize,
    /// Bytes that were resident at the last step.
    pub last_bytes: usize,
    /// The most bytes that were resident at any step.
    pub most_bytes: usize,
    /// The most bytes that were kept elsewhere at any step.
    pub most_offloaded_bytes: usize,
    /// Rows that a KV head saw, mean over steps, layers and KV heads.
    pub mean_rows: f64,
    /// The most rows that any KV head saw at any step.
    pub peak_rows: usize,
    /// Median over steps of each step's median over repeats, in milliseconds.
    pub ms_per_token: f64,
    /// The same of the last steps over that of the first ones, [`END_STEPS`] or half of all.
    pub slowdown: f64,
    /// Tokens from the start on which its text is the full cache's; `None` without the full cache.
    pub shared_tokens: Option<usize>,
}

/// A summary of every method, in their order.
pub fn summarise(trace: &Trace) -> Vec<TraceSummary> {
    let full = trace.methods.iter().find(|method| method.name == FULL);
    let summary = |own: &MethodTrace| own.summary(full.map(|full| &full.steps[..]));
    trace.methods.iter().map(summary).collect()
}

impl MethodTrace {
    /// Each step's median over repeats.
    fn medians(&self) -> Vec<f64> {
        let times = |step: usize| self.ms.iter().filter_map(move |ms| ms.get(step).copied());
        (0..self.steps.len())
            .map(|step| median(times(step)))
            .collect()
    }

    fn summary(&self, full: Option<&[Step]>) -> TraceSummary {
        let resident = || self.steps.iter().map(|step| step.bytes.resident);
        let medians = self.medians();
        let ends = END_STEPS.min(medians.len() / 2).max(1);
        let last = medians.len().saturating_sub(ends);
        let of = |ms: &[f64]| median(ms.iter().copied());
        let shared = |full: &[Step]| {
            let pairs = self.steps.iter().zip(full);
            pairs
                .take_while(|(own, full)| own.token == full.token)
                .count()
        };
        let rows: f64 = self.steps.iter().map(|step| step.mean_rows).sum();
        TraceSummary {
            method: self.name.clone(),
            budget: self.budget.clone(),
            first_bytes: resident().next().unwrap_or(0),
            last_bytes: resident().next_back().unwrap_or(0),
            most_bytes: resident().max().unwrap_or(0),
            most_offloaded_bytes: (self.steps.iter())
                .map(|step| step.bytes.offloaded)
                .max()
                .unwrap_or(0),
            mean_rows: rows / self.steps.len() as f64,
            peak_rows: self
                .steps
                .iter()
                .map(|step| step.peak_rows)
                .max()
                .unwrap_or(0),
            ms_per_token: of(&medians),
            slowdown: of(&medians[last..]) / of(&medians[..ends.min(medians.len())]),
            shared_tokens: full.map(shared),
        }
    }
}

/// The middle one; NaN of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    RepeatSpread::of(values).map_or(f64::NAN, |spread| spread.median)
}
