//! Evaluation: one prefill, every method and budget, paired statistics.

mod results;

pub use results::{RESULT_TABLES, RESULTS_SCHEMA, Results, ResultsMeta};
