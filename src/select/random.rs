//! Random tokens: what a rule must beat.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Uniform random scores, drawn anew for every layer and KV head.
///
/// Paper: none: house definition. The same seed gives the same tokens on every machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Random {
    /// Seed of the draw.
    pub seed: u64,
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "random",
    paper: "house definition",
    about: "random tokens, seeded: what a rule must beat",
    differs: "nothing was published to differ from",
    build: |p| Ok(Box::new(parse::<Random>(p)?)),
};

impl Scorer for Random {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs::default()
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        generator.set_stream(observation.layer as u64);
        let mut draw = || (generator.next_u64() >> 11) as f64;
        let count = observation.kv_heads * observation.tokens;
        let scores = (0..count).map(|_| draw()).collect();
        LayerScores::of_heads(scores, observation.kv_heads, observation.device)
    }
}
