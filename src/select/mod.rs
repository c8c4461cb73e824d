//! Which tokens a budget keeps: scorers, one file each; the selection; the probe that scores.
//!
//! A scorer says how much a token matters to a KV head. What must stay whatever the scores say, sinks
//! and window, is an argument of the selection, never a number hidden in a score. A new scorer is one
//! file and one line of [`SCORERS`].

mod continuation_probe;
mod global_pool;
mod layer_scores;
mod observation;
mod scoring_probe;
mod selection;

mod h2o;
mod knorm;
mod oracle;
mod random;
mod snapkv;
mod streaming;
mod tova;

pub use continuation_probe::ContinuationProbe;
pub use h2o::H2o;
pub use knorm::KNorm;
pub use layer_scores::{LayerScores, place_of_scores};
pub use observation::{LayerObservation, Needs};
pub use oracle::Oracle;
pub use random::Random;
pub use scoring_probe::ScoringProbe;
pub use selection::{HeadSplit, Slots, select, select_layers};
pub use snapkv::SnapKv;
pub use streaming::Streaming;
pub use tova::Tova;

use std::fmt;

use serde_json::Value;

pub use crate::compute::device::{GroupReduce, Order, Pooling};

use crate::error::Result;
use crate::registry::Entry;

/// How much every prompt token matters to every KV head of a layer.
pub trait Scorer: fmt::Debug + Send + Sync {
    /// The parameters in full, defaults included.
    fn parameters(&self) -> Value;

    /// What must be observed during prefill; `window` is that of the selection.
    fn needs(&self, window: usize) -> Needs;

    /// Scores, larger is kept first.
    ///
    /// Differs: device-independent; what candle has no operation for, or would add in an order of its own, is one of
    /// [`crate::compute::device`].
    /// Shapes: `(H_kv, T)`, all finite.
    /// Errors: [`crate::error::Error::Invalid`] where the rule has no meaning for this prompt.
    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores>;
}

/// Every scorer there is.
pub const SCORERS: &[Entry<dyn Scorer>] = &[
    snapkv::ENTRY,
    streaming::ENTRY,
    h2o::ENTRY,
    tova::ENTRY,
    knorm::ENTRY,
    random::ENTRY,
    oracle::ENTRY,
];
