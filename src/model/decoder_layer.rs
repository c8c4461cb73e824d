//! The weights of a decoder's layer.

use candle_core::Tensor;

use super::config::{ModelConfig, RopePairs};
use super::feed_forward::FeedForward;
use super::weights::Weights;
use crate::compute::head_rows::HeadLayout;
use crate::compute::linear::{Linear, tensor_bytes};
use crate::error::Result;

/// The weights of one layer.
pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// How dimensions that are rotated together lie in what the projections of queries and keys give.
    pub(super) rotated: HeadLayout,
    /// Norms of every head's queries and keys.
    pub(super) head_norms: Option<[Tensor; 2]>,
    pub(super) output: Linear,
    pub(super) feed_forward_norm: Tensor,
    pub(super) feed_forward: FeedForward,
    /// Norms of what attention and feed-forward give.
    pub(super) branch_norms: Option<[Tensor; 2]>,
}

impl Layer {
    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        let linear = [&self.query, &self.key, &self.value, &self.output];
        let norms = [&self.attention_norm, &self.feed_forward_norm];
        let more = [&self.head_norms, &self.branch_norms];
        let more = more.into_iter().flatten().flatten();
        linear.map(Linear::bytes).iter().sum::<usize>()
            + norms
                .into_iter()
                .chain(more)
                .map(tensor_bytes)
                .sum::<usize>()
            + self.feed_forward.bytes()
    }

    /// Takes them out of the files.
    ///
    /// Errors: as [`Weights::tensor`].
    pub(super) fn load(weights: &mut Weights<'_>, c: &ModelConfig, l: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{l}.{part}");
        let hidden = c.hidden_size;
        let mut norms = |parts: [&str; 2], width: usize| -> Result<[Tensor; 2]> {
            let [first, second] = parts.map(|part| weights.tensor(&name(part), &[width]));
            Ok([first?, second?])
        };
        let head_norms = if c.family.head_norms {
            Some(norms(
                ["attn_q_norm.weight", "attn_k_norm.weight"],
                c.head_dim,
            )?)
        } else {
            None
        };
        let branch_norms = if c.family.branch_norms {
            Some(norms(
                ["post_attention_norm.weight", "post_ffw_norm.weight"],
                hidden,
            )?)
        } else {
            None
        };
        let [query, key, value] = projections(weights, c, l)?;
        let rotated = match weights.rope_pairs(&c.family) {
            RopePairs::Halves => HeadLayout::Plain,
            RopePairs::Interleaved => HeadLayout::PairsTogether,
        };
        let q_width = c.num_attention_heads * c.head_dim;
        Ok(Self {
            attention_norm: weights.tensor(&name("attn_norm.weight"), &[hidden])?,
            query,
            key,
            value,
            rotated,
            head_norms,
            output: weights.linear(&name("attn_output"), hidden, q_width)?,
            feed_forward_norm: weights.tensor(&name("ffn_norm.weight"), &[hidden])?,
            feed_forward: FeedForward::load(weights, c, l)?,
            branch_norms,
        })
    }
}

/// The projections of queries, keys and values.
fn projections(weights: &mut Weights<'_>, c: &ModelConfig, l: usize) -> Result<[Linear; 3]> {
    let name = |part: &str| format!("blk.{l}.{part}");
    let (hidden, d) = (c.hidden_size, c.head_dim);
    let (q_width, kv_width) = (c.num_attention_heads * d, c.num_key_value_heads * d);
    if c.family.fused {
        let all = weights.linear(&name("attn_qkv"), q_width + 2 * kv_width, hidden)?;
        return all.split([q_width, kv_width, kv_width]);
    }
    let projection = if c.family.attention_bias {
        Weights::biased
    } else {
        Weights::linear
    };
    let query = projection(weights, &name("attn_q"), q_width, hidden)?;
    let key = projection(weights, &name("attn_k"), kv_width, hidden)?;
    Ok([
        query,
        key,
        projection(weights, &name("attn_v"), kv_width, hidden)?,
    ])
}
