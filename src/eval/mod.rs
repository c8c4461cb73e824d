//! Evaluation: one prefill, every method and budget, paired statistics.

pub mod hit_rate;
mod results;

pub use results::{RESULT_TABLES, RESULTS_SCHEMA, Results, ResultsMeta};
