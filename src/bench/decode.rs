//! Steps after a prompt, from the full cache and from cut ones.

use super::arithmetic::{Arithmetic, Shape};
use super::clock::{Seconds, timed};
use super::stage::Stage;
use super::work::Work;
use crate::error::{Error, Result};
use crate::eval::speed::Mode;

/// Decoding with what a mode keeps; making the cache and one step to warm up are not counted.
pub(super) struct Decode(pub Mode);

impl Decode {
    fn budget(&self) -> Option<usize> {
        match self.0 {
            Mode::Budget(tokens) => Some(tokens),
            Mode::Full | Mode::NoCache => None,
        }
    }

    fn held(&self, tokens: usize) -> usize {
        self.budget().unwrap_or(tokens).min(tokens)
    }
}

impl Work for Decode {
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds> {
        let Some(decoding) = &stage.decoding else {
            let bound = "the prompt was not prefilled for decoding";
            return Err(Error::invalid("workload", self.0, bound));
        };
        let kept = decoding.kept(self.0, &stage.ranking)?;
        let mut cache = decoding.cache(kept.as_deref())?;
        decoding.warm_up(&mut cache)?;
        let ((), took) = timed(|| decoding.steps(&mut cache))?;
        Ok(took)
    }

    /// A budget that the prompt does not exceed cuts nothing.
    fn least_tokens(&self) -> usize {
        self.budget().map_or(1, |budget| budget + 1)
    }

    fn room(&self, steps: usize) -> usize {
        steps + 1
    }

    fn decodes(&self) -> bool {
        true
    }

    fn arithmetic(&self, shape: &Shape<'_>) -> Option<Arithmetic> {
        Some(Arithmetic::of_decoding(shape, self.held(shape.tokens)))
    }

    fn cache_tokens(&self, shape: &Shape<'_>) -> usize {
        self.held(shape.tokens) + shape.steps + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_needs_a_prompt_that_exceeds_it() {
        let budget = Decode(Mode::Budget(64));
        assert_eq!((budget.least_tokens(), budget.room(16)), (65, 17));
        assert_eq!((budget.held(100), Decode(Mode::Full).held(100)), (64, 100));
    }
}
