//! StreamingLLM: the first tokens and the most recent ones.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Later tokens before earlier ones; the sinks are the selection's.
///
/// Paper: arXiv:2309.17453 (StreamingLLM), section 3.2. Differs: keys keep their true positions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streaming {}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "streaming",
    paper: "arXiv:2309.17453 (StreamingLLM), section 3.2",
    about: "the first tokens and the most recent ones",
    differs: "keys keep their true positions",
    build: |p| Ok(Box::new(parse::<Streaming>(p)?)),
};

impl Scorer for Streaming {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs::default()
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let recency = (0..observation.tokens).map(|i| i as f64).collect();
        let recency = Tensor::from_vec(recency, (1, observation.tokens), observation.device)?;
        LayerScores::alike(&recency, observation.kv_heads)
    }
}
