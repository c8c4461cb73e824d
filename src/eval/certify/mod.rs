//! Certified budgets: the smallest budget of a method whose loss on a new prompt is bounded.
//!
//! [`UnitLosses`] are read from a finished evaluation, a [`Goal`] says which bound is wanted and decides, [`HeldOut`] tells what
//! became of it on other prompts, and [`certificate`](fn@certificate) writes it down. A new loss is a line of [`LOSSES`].

mod binomial;
mod certificate;
mod conformal;
#[cfg(test)]
#[path = "../tests/certified_coverage.rs"]
mod coverage;
mod goal;
mod held_out;
mod loss;
mod order;
mod tested;
mod units;

pub use certificate::{Calibrated, certificate};
pub use goal::{Decision, Goal, Step};
pub use held_out::{HeldOut, HeldOutVerdict};
pub use loss::{CLIP, LOSSES, Loss};
pub use units::{Unit, UnitLosses};

/// A number that was typed as a decimal: a hair more than the nearest binary fraction may be, so that 0.29 · 100 is 29.
fn typed(value: f64) -> f64 {
    value * (1.0 + 1e-12)
}

/// Whether a value is at most a bound that was typed.
fn within(value: f64, bound: f64) -> bool {
    value <= typed(bound)
}
