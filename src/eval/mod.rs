//! Evaluation: one prefill, every method and budget, paired statistics.

pub mod answer;
mod bootstrap;
pub mod comparison;
mod comparison_text;
#[cfg(test)]
mod coverage;
mod metric;
mod sign_test;
pub mod statistics;
mod student;

pub use bootstrap::{Bootstrap, Interval, LEVEL};
pub use comparison::{Row, compare};
pub use comparison_text::write_comparison;
pub use metric::{Direction, METRICS, Metric, find as find_metric};
pub use sign_test::sign_test;
pub use statistics::{Mean, Paired, Verdict};
