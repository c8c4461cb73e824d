//! KVzip: what a model looks at while it repeats the prompt.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, ReplayNeeds, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// The most attention that any query of the group gives to a token while the prompt is read again behind a request to repeat it.
///
/// Every chunk is read in a pass of its own over the full cache; shares are of the sinks, the chunk and the repetition so far.
/// Paper: arXiv:2505.23416 (KVzip), section 3. Differs: as kvpress has it, chunks of 2,048 where the authors' code has 2,000; the
/// chat template's first tokens are not read again and score 0, where the authors' code keeps them outside the ratio; sinks and
/// window of the method stay. Head-level scores that are learnt beforehand are left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvZip {
    /// Tokens that are read again in one pass.
    pub chunk: usize,
    /// First tokens that share in the attention of every pass.
    pub sinks: usize,
    /// KVzip+: a share times ‖W_o v‖₂ of the token over the L2 norm of what the query's layer reads.
    pub norms: bool,
}

impl Default for KvZip {
    fn default() -> Self {
        Self {
            chunk: 2048,
            sinks: 4,
            norms: false,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "kvzip",
    paper: "arXiv:2505.23416 (KVzip), section 3",
    about: "the most attention of any query while the prompt is read again, in passes of its own",
    differs: "as kvpress has it: chunks of 2,048; the chat template's first tokens score 0; sinks and window stay",
    build: |p| {
        let scorer = parse::<KvZip>(p)?;
        if scorer.chunk == 0 {
            let problem = "chunk is 0, but at least one token must be read again in a pass";
            return Err(serde::de::Error::custom(problem));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for KvZip {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            replay: Some(ReplayNeeds {
                chunk: self.chunk,
                sinks: self.sinks,
                norms: self.norms,
            }),
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        LayerScores::new(observation.replayed()?.clone())
    }
}
