//! What a workload is.

use super::arithmetic::{Arithmetic, Shape};
use super::clock::Seconds;
use super::stage::Stage;
use crate::error::Result;

/// Something whose cost is measured.
pub trait Work: Send + Sync {
    /// Does it once and says how long the part took that counts.
    ///
    /// Errors: those of what is done.
    fn run(&self, stage: &Stage<'_>) -> Result<Seconds>;

    /// Tokens that a prompt must have at least for the work to make sense.
    fn least_tokens(&self) -> usize {
        1
    }

    /// Tokens that must fit the model's context after the prompt.
    fn room(&self, _steps: usize) -> usize {
        0
    }

    /// Whether it goes on from a prompt that was prefilled before.
    fn decodes(&self) -> bool {
        false
    }

    /// What the timed part cannot do without; `None` where that is not counted.
    fn arithmetic(&self, shape: &Shape<'_>) -> Option<Arithmetic>;

    /// Tokens of its cache, per KV head.
    fn cache_tokens(&self, shape: &Shape<'_>) -> usize {
        shape.tokens
    }
}
