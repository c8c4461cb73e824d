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
mod token_scores;
mod type_errors;
mod utility;

mod cake;
mod dynamickv;
mod entropy;
mod lava;
mod mass_optimal;
mod output_optimal;
mod proportional;
mod pyramid;
mod pyramid_infer;
mod squeeze_attention;
mod uniform;
mod zigzag;
mod zigzag_lmbo;

#[cfg(test)]
#[path = "tests/prompt_totals.rs"]
mod prompt_totals;
#[cfg(test)]
#[path = "tests/sample.rs"]
mod sample;

pub use amount::{Budget, MAX_HEADS, MAX_TOKENS};
pub use bits_and_tokens::{BITS_AND_TOKENS, BitsAndTokens};
pub use byte_fit::{are_alike, fit_bytes};
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
pub use token_scores::TokenScores;
pub use type_errors::{error_with_types, type_errors};
pub use utility::utility_budgets;

pub use cake::Cake;
pub use dynamickv::DynamicKv;
pub use entropy::PooledEntropy;
pub use lava::Lava;
pub use mass_optimal::MassOptimal;
pub use output_optimal::OutputOptimal;
pub use proportional::Proportional;
pub use pyramid::Pyramid;
pub use pyramid_infer::PyramidInfer;
pub use squeeze_attention::SqueezeAttention;
pub use uniform::Uniform;
pub use zigzag::{LowerBound, ZigZag};
pub use zigzag_lmbo::ZigZagLmbo;

use serde_json::Value;

use crate::error::Result;
use crate::registry::{self, Entry};

/// Every allocator that a profile can serve.
pub const ALLOCATORS: &[Entry<dyn Allocator>] = &[
    uniform::ENTRY,
    proportional::ENTRY,
    zigzag::ENTRY,
    zigzag_lmbo::ENTRY,
    pyramid::ENTRY,
    pyramid_infer::ENTRY,
    entropy::ENTRY,
    mass_optimal::ENTRY,
    output_optimal::ENTRY,
];

/// Allocators that spend by what only the prompt's own prefill shows: scores of its tokens, rows, the residual stream.
pub const PROMPT_ALLOCATORS: &[Entry<dyn Allocator>] = &[
    lava::ENTRY,
    dynamickv::ENTRY,
    cake::ENTRY,
    squeeze_attention::ENTRY,
];

/// The allocator called `name`, with JSON parameters.
///
/// Errors: those of [`registry::build`].
pub fn allocator(name: &str, parameters: Value) -> Result<Box<dyn Allocator>> {
    let of_prompt = PROMPT_ALLOCATORS.iter().any(|entry| entry.name == name);
    let table = if of_prompt {
        PROMPT_ALLOCATORS
    } else {
        ALLOCATORS
    };
    registry::build("strategy", table, name, parameters)
}

/// Every allocator that a method can name.
pub fn allocators() -> impl Iterator<Item = &'static Entry<dyn Allocator>> {
    ALLOCATORS.iter().chain(PROMPT_ALLOCATORS)
}
