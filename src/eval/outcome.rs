//! What the configurations of an evaluation did on one prompt.

use crate::method::HeldRows;
use crate::model::residency::RecallStep;

/// One prompt under every configuration.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One per configuration: methods in order, budgets in order within each.
    pub rows: Vec<Trial>,
    /// Seconds of the one prefill, probes included.
    pub prefill_s: f64,
    /// Bytes of the full cache after prefill.
    pub full_bytes: usize,
}

/// One configuration on one prompt.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Index among the methods.
    pub method: usize,
    /// Index among the budgets; `None` where the method spends none, as the full cache does.
    pub budget: Option<usize>,
    /// What it did, or why it could not.
    pub scores: Result<Scores, String>,
    /// Rows that it held while it was fed the full cache's continuation.
    pub held: HeldRows,
    /// What the steps of that brought back; none where nothing is left out.
    pub recall: Vec<RecallStep>,
    /// Elements of keys and values.
    pub cache: String,
    /// Seconds of passes that its scorer read the context again in.
    pub replay_s: f64,
    /// Seconds to allocate, select and cut; NaN where nothing was cut.
    pub cut_s: f64,
    /// Decoding steps that the text needed beyond what it shares with the full cache's.
    pub decode_steps: usize,
    /// Seconds of those steps; NaN where the configuration failed.
    pub decode_s: f64,
}

/// What one configuration did; NaN where a metric does not apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Mean tokens per KV head that the cut kept.
    pub budget_tokens: f64,
    /// Bytes of the cache when decoding begins that a step may read.
    pub kv_bytes: usize,
    /// Bytes of the cache when decoding begins that are kept elsewhere.
    pub offloaded_bytes: usize,
    /// Token F1 of the answer.
    pub f1: f64,
    /// Whether the answer is exactly right.
    pub em: f64,
    /// Share of expected strings that the answer contains.
    pub contains: f64,
    /// Negative log-likelihood of the best accepted answer, nats per token.
    pub nll: f64,
    /// Mean KL(full ‖ cut) over the full cache's continuation, nats.
    pub kl: f64,
    /// Share of its steps with the same most likely token.
    pub top1: f64,
    /// Share of evidence tokens held when decoding begins, per layer; empty where no evidence is marked.
    pub evidence: Vec<f64>,
    /// The generated text.
    pub answer: String,
}
