//! Which tokens a budget keeps: scorers, one file each; the selection; the probe that scores.
//!
//! A scorer says how much a token matters to a KV head. What must stay whatever the scores say, sinks
//! and window, is an argument of the selection, never a number hidden in a score. A new scorer is one
//! file and one line of [`SCORERS`].

mod continuation_probe;
mod first_stage;
mod global_pool;
mod host_rows;
mod layer_scores;
mod mixed_heads;
mod observation;
mod query_statistics;
mod replay;
mod replay_needs;
mod row_statistics;
mod scoring_probe;
mod selection;
mod slots;
mod window_rows;

mod cake;
mod chunkkv;
mod criticalkv;
mod cur;
mod defensivekv;
mod dropkv;
mod expected_attention;
mod finch;
mod h2o;
mod imported;
mod keydiff;
mod knorm;
mod kvzip;
mod lagkv;
mod lava;
mod leverage;
mod oracle;
mod random;
mod snapkv;
mod streaming;
mod tova;
mod value_norm;

pub use cake::Cake;
pub use chunkkv::ChunkKv;
pub use continuation_probe::ContinuationProbe;
pub use criticalkv::CriticalKv;
pub use cur::Cur;
pub use defensivekv::DefensiveKv;
pub use dropkv::DropKv;
pub use expected_attention::ExpectedAttention;
pub use finch::Finch;
pub use first_stage::{FirstCount, FirstStage};
pub use h2o::H2o;
pub use imported::{Imported, Imports, ScoreFiles, kept_slots};
pub use keydiff::KeyDiff;
pub use knorm::KNorm;
pub use kvzip::KvZip;
pub use lagkv::LagKv;
pub use lava::Lava;
pub use layer_scores::{LayerScores, place_of_scores};
pub use leverage::Leverage;
pub use observation::{LayerObservation, Needs};
pub use oracle::Oracle;
pub use query_statistics::{QueryNeeds, QueryStatistics};
pub use random::Random;
pub use replay::ReplayProbe;
pub use replay_needs::ReplayNeeds;
pub use scoring_probe::ScoringProbe;
pub use selection::{HeadSplit, select, select_layers};
pub use slots::Slots;
pub use snapkv::SnapKv;
pub use streaming::Streaming;
pub use tova::Tova;
pub use value_norm::{Norm, ValueNorm, Weights};
pub use window_rows::WindowRows;

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

    /// The files that its scores are read from; `None` for a rule that scores by itself.
    fn imported(&self) -> Option<&ScoreFiles> {
        None
    }

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
    keydiff::ENTRY,
    expected_attention::ENTRY,
    value_norm::ENTRY,
    criticalkv::ENTRY,
    lava::ENTRY,
    cake::ENTRY,
    defensivekv::ENTRY,
    dropkv::ENTRY,
    chunkkv::ENTRY,
    lagkv::ENTRY,
    cur::ENTRY,
    leverage::ENTRY,
    finch::ENTRY,
    kvzip::ENTRY,
    random::ENTRY,
    oracle::ENTRY,
];
