//! SnapKV's two observations: whether a prompt knows, before anything is generated, which of its keys will
//! matter, and whether these stay the same while the model writes.
//!
//! The last windows of a prompt *vote*: each takes the mean of its rows and names the best keys of the
//! *prefix*, what lies before all of these windows. While the model writes from the full cache, a prefix key
//! is *important* to a step whose attention to it exceeds θ. The hit rate is the share of a step's important
//! keys that a window had named.

mod counts;
mod measure;
mod options;
mod probe;
mod rows;
mod run;
mod store;
mod vote;

pub use counts::{HeadHits, HitCounts, WindowHits};
pub use measure::{PromptHits, measure};
pub use options::HitRateOptions;
pub use run::HitRateRun;
pub use store::{
    HitRateRecord, HitRateSettings, HitRates, KIND, LayerRates, Observation, WindowRates,
};
