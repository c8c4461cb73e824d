//! Which tokens attention may see while a cache lives, and when that changes.

use std::fmt;

use super::attention::AttentionView;
use super::cache::KvCache;
use crate::error::Result;

/// What attention sees of a layer in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All that is held.
    Held,
    /// The listed slots of every KV head, `[kv_head][slot]`, ascending, the new tokens' own among them.
    Slots(Vec<Vec<u32>>),
}

/// Bytes of a cache while it lives.
///
/// Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidencyBytes {
    /// What a step may read from fast memory: keys, values and whatever chooses among them.
    pub resident: usize,
    /// What is kept elsewhere and brought back when it is needed.
    pub offloaded: usize,
}

/// What a step brought back of the tokens that attention may be shown or not: means over layers and KV heads that
/// choose.
///
/// Units: shares; tokens of a KV head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecallStep {
    /// Position of the step's token.
    pub position: usize,
    /// Share that was chosen of as many tokens, those with the largest attention of a step that sees everything.
    pub hit_rate: f64,
    /// Share of KV heads that see a token again which they could have seen a step before and did not.
    pub returned: Option<f64>,
    /// Tokens that were chosen.
    pub recalled: f64,
    /// Tokens that were chosen from.
    pub clustered: f64,
}

/// Changes a cache while it lives: chooses what attention sees, lets tokens go, brings them back.
///
/// A decoder calls both hooks in every forward pass; with more than one token at once they are seen together.
/// Paper: none: house definition.
pub trait Residency: fmt::Debug + Send {
    /// Once a layer's queries are known and its cache holds the new tokens, before attention.
    ///
    /// Errors: any error stops the pass.
    fn before_attention(&mut self, _: &AttentionView<'_>) -> Result<Sight> {
        Ok(Sight::Held)
    }

    /// After all layers; tokens may leave here.
    ///
    /// Errors: those of the cache.
    fn after_step(&mut self, _: &mut KvCache) -> Result<()> {
        Ok(())
    }

    /// The most tokens that may come in one pass: one where each step chooses by its own queries, or lets tokens go.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// Rows that the last of `steps` more tokens will see, itself among them, if nothing leaves until then; without
    /// one, those that are in sight.
    ///
    /// Shapes: `[layer][kv_head]`.
    fn rows_seen(&self, cache: &KvCache, steps: usize) -> Vec<Vec<usize>> {
        cache.lengths_after(steps)
    }

    /// Begins to measure what steps bring back, or ends it; what was measured before is forgotten.
    ///
    /// It costs a full attention per step; a residency that brings nothing back measures nothing.
    fn measure_recall(&mut self, _measured: bool) {}

    /// What the measured steps brought back, in their order; those that were rewound are not among them.
    fn recalled(&self) -> &[RecallStep] {
        &[]
    }

    /// Rows that it has let go so far to stay within a bound, of all KV heads together; `None` where it has none.
    ///
    /// What a sliding window passes is not among them. One that changes tokens in other ways too, as levels of precision do, has
    /// no such bound.
    fn rows_left(&self) -> Option<usize> {
        None
    }

    /// Whether the cache can go back to an earlier position, as if later tokens had never been.
    fn can_rewind(&self) -> bool {
        true
    }

    /// Forgets what is known of tokens from `position` on; the cache is rewound by whoever holds it.
    fn rewind(&mut self, _position: usize) {}

    /// What it holds where.
    fn bytes(&self, cache: &KvCache) -> ResidencyBytes {
        ResidencyBytes {
            resident: cache.bytes(),
            offloaded: 0,
        }
    }
}

/// All that is held stays and is seen: a full cache, or one that was cut once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unchanging;

impl Residency for Unchanging {}
