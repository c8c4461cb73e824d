//! Evaluation: one prefill, every method and budget, paired statistics.
//!
//! A [`Method`] is allocator x scorer x head split; a [`Sweep`] tries methods and budgets on a [`Case`].

mod case;
pub mod hit_rate;
mod method;
mod reference;
mod results;
mod rows;
mod sweep;

pub use case::Case;
pub use method::{Allocation, METHODS, Measured, Method, NamedMethod, Ranking};
pub use results::{RESULT_TABLES, RESULTS_SCHEMA, Results, ResultsMeta};
pub use rows::{FULL, outcome_tables};
pub use sweep::{Outcome, Row, Scores, Sweep};
