//! How many tokens each layer and KV head may keep: pure numbers, from a profile to a plan.
//!
//! An [`Allocator`] answers a [`Request`] with [`Targets`]; [`fit()`] turns them into whole tokens. It says what it
//! needs as [`crate::profile::Needs`], and reads it as [`Measures`], whether a profile on disk or the prompt's own prefill
//! has it. A new allocator is one file and one line of [`ALLOCATORS`]. [`BitsAndTokens`] stands beside them: it answers types of
//! the cache too.

mod amount;
mod apportion;
mod bits_and_tokens;
mod byte_fit;
mod cache_budget;
mod certificate;
mod curve;
mod evaluate;
mod fit;
mod floor;
mod geometry;
mod held_as;
pub mod interchange;
mod json_problem;
mod longest;
mod measured;
mod measures;
mod optimum;
mod output_query;
mod plan;
mod plan_check;
mod profile_curves;
mod readable_json;
mod readable_number;
mod request;
mod room;
mod spend;
mod spend_bytes;
mod type_errors;

mod mass_optimal;
mod output_optimal;
mod proportional;
mod pyramid;
mod uniform;
mod zigzag;
mod zigzag_lmbo;

#[cfg(test)]
#[path = "tests/sample.rs"]
mod sample;

pub use amount::{Budget, MAX_HEADS, MAX_TOKENS};
pub use bits_and_tokens::{BITS_AND_TOKENS, BitsAndTokens};
pub use byte_fit::fit_bytes;
pub use cache_budget::CacheBudget;
pub use certificate::{CERTIFICATE_SCHEMA, Calibration, Certificate, HeldOutRecord};
pub use curve::Curve;
pub use evaluate::{Prediction, Predictor};
pub use fit::{TokenBudgets, fit};
pub use floor::Floor;
pub use geometry::{Geometry, Granularity};
pub use longest::longest_prompt;
pub use measures::Measures;
pub use plan::{BudgetPlan, PLAN_SCHEMA, Provenance, profile_digest};
pub use request::{Allocator, Request, Targets};
pub use room::Room;
pub use type_errors::{error_with_types, type_errors};

pub use mass_optimal::MassOptimal;
pub use output_optimal::OutputOptimal;
pub use proportional::Proportional;
pub use pyramid::Pyramid;
pub use uniform::Uniform;
pub use zigzag::{LowerBound, ZigZag};
pub use zigzag_lmbo::ZigZagLmbo;

use crate::registry::Entry;

/// Every allocator there is.
pub const ALLOCATORS: &[Entry<dyn Allocator>] = &[
    uniform::ENTRY,
    proportional::ENTRY,
    zigzag::ENTRY,
    zigzag_lmbo::ENTRY,
    pyramid::ENTRY,
    mass_optimal::ENTRY,
    output_optimal::ENTRY,
];
