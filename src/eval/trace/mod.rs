//! Traces of long generations: what every method holds, sees and takes, step by step, while it writes.
//!
//! A prompt is prefilled once. Every method cuts a cache of its own from it and writes its own text, greedily and past
//! every stop id, so that all of them take as many steps.

mod measure;
mod rows;
mod run;
mod settings;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod windows;

pub use measure::{Step, TracedPrompt, Written};
pub use rows::{steps_table, times_table};
pub use run::{TraceRun, Turn, turns};
pub use settings::{KIND, TraceRecord, TraceSettings};
pub use store::{MethodTrace, Trace};
pub use summary::{TraceSummary, summarise};
pub use windows::TimeWindow;
