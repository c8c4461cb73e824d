//! What every KV head keeps at least, whatever a rule says.

use super::amount::MAX_TOKENS;
use super::geometry::Geometry;
use crate::error::{Error, Result};

/// What every KV head keeps at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Tokens every KV head keeps at least.
    pub tokens: usize,
    /// First tokens of the prompt that always stay.
    pub sinks: usize,
    /// Last tokens of the prompt that always stay.
    pub window: usize,
    /// Whether layers with a window keep all that they see, apart from the budget.
    pub whole_windows: bool,
}

impl Floor {
    /// Sinks where nobody says otherwise, as StreamingLLM (arXiv:2309.17453) keeps them.
    pub const SINKS: usize = 4;

    /// Window where nobody says otherwise, as SnapKV's code (arXiv:2404.14469) has it.
    pub const WINDOW: usize = 32;

    /// Sinks and window, and nothing more.
    pub fn of(sinks: usize, window: usize) -> Self {
        Self {
            tokens: sinks.saturating_add(window),
            sinks,
            window,
            whole_windows: false,
        }
    }

    /// Refuses what the layers of a model cannot have: a floor above what a layer sees of a prompt of `tokens` and T
    /// itself does not excuse, and whole windows where no other layer is left for a budget.
    ///
    /// Errors: [`Error::Invalid`] with the way out.
    pub fn check_layers(&self, geometry: &Geometry, tokens: usize) -> Result<()> {
        if geometry.windows.is_empty() {
            return Ok(());
        }
        if self.whole_windows {
            if !geometry.global_layers().is_empty() {
                return Ok(());
            }
            let bound = "every layer of this model has a window, so that none is left for the budget: leave \
                         --whole-windows out";
            return Err(Error::invalid("number of layers that take part", 0, bound));
        }
        let narrow = geometry.windows.iter().position(|window| {
            window.is_some_and(|window| window < self.tokens && window < tokens)
        });
        match narrow {
            None => Ok(()),
            Some(layer) => {
                let bound = format!(
                    "layer {layer} sees {} keys and cannot keep more: lower floor, sinks or window, or leave such \
                     layers whole with --whole-windows",
                    geometry.span(layer, tokens)
                );
                let floor = format!("{} tokens per KV head", self.tokens);
                Err(Error::invalid("floor", floor, bound))
            }
        }
    }

    /// Refuses a floor that sinks and window do not fit under.
    ///
    /// Errors: [`Error::Invalid`] with all three numbers.
    pub fn check(&self) -> Result<()> {
        let reserved = self.sinks.saturating_add(self.window);
        if self.tokens >= reserved && self.tokens <= MAX_TOKENS {
            return Ok(());
        }
        let bound = format!(
            "it must be between {reserved} (sinks {} + window {}) and {MAX_TOKENS}: raise the floor, or lower \
             sinks or window",
            self.sinks, self.window
        );
        Err(Error::invalid(
            "floor",
            format!("{} tokens", self.tokens),
            bound,
        ))
    }
}
