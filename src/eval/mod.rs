//! Evaluation: one prefill, every method and budget, paired statistics.
//!
//! A [`Sweep`] tries [methods](crate::method::Method) and budgets on a [`Case`]; [`compare`] says what the tables show,
//! [`certify`] which budget keeps a loss within a bound.
//! A new metric is a column and one line of [`METRICS`].

pub mod answer;
mod bootstrap;
mod case;
pub mod certify;
mod clusters;
pub mod comparison;
mod contexts;
#[cfg(test)]
#[path = "tests/coverage.rs"]
mod coverage;
mod fidelity;
pub mod hit_rate;
mod metric;
mod outcome;
mod query_source;
mod recall;
mod reference;
mod residency_summary;
mod results;
mod rows;
pub mod search;
mod shuffle;
mod sign_test;
pub mod speed;
mod spread;
pub mod statistics;
mod student;
mod sweep;
pub mod trace;
mod trial;
mod utility;

pub use bootstrap::{Bootstrap, Interval, LEVEL};
pub use case::{Case, Reader, context_tokens};
pub use clusters::CLUSTER;
pub use comparison::{FULL, Row, compare};
pub use contexts::contexts;
pub use fidelity::{Fidelity, fidelity, most_likely, surprise, teacher_forced};
pub use metric::{Direction, METRICS, Metric};
pub use outcome::{Outcome, Scores, Trial};
pub use query_source::QuerySource;
pub use recall::RecallSummary;
pub use residency_summary::ResidencySummary;
pub use results::{EvalRecord, EvalSettings, RESULT_TABLES, RESULTS, Results, results_digest};
pub use rows::{PromptPlace, outcome_tables};
pub use sign_test::{probability_words, sign_test};
pub use spread::RepeatSpread;
pub use statistics::{Mean, Paired, Verdict};
pub use sweep::Sweep;
pub use utility::Utilities;
