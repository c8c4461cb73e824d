//! ChunkKV: neighbouring tokens stay or go together, the same for every head of a layer.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GroupReduce, LayerObservation, LayerScores, Needs, Order, Pooling, Scorer, SnapKv};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// The mean of SnapKV's scores over a chunk of tokens, summed over the layer's heads.
///
/// Paper: arXiv:2502.00299 (ChunkKV), algorithm 1. Differs: a budget is spent to the token, so that of the last chunk
/// some tokens may stay, the later ones; a chunk's mean leaves out the window, which stays anyway; layers do not
/// share what they keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChunkKv {
    /// Tokens of a chunk, counted from the first token on.
    pub chunk: usize,
    /// How neighbours are pooled in SnapKV's scores.
    pub pooling: Pooling,
    /// Width of the pooling, odd.
    pub kernel: usize,
}

impl Default for ChunkKv {
    fn default() -> Self {
        let base = SnapKv::default();
        Self {
            chunk: 20,
            pooling: base.pooling,
            kernel: base.kernel,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "chunkkv",
    paper: "arXiv:2502.00299 (ChunkKV), algorithm 1",
    about: "SnapKV's scores in the mean over chunks of 20 tokens, the same for every head of a layer",
    differs: "the budget is spent to the token: the later tokens of the last chunk; layers share nothing",
    build: |p| {
        let scorer = parse::<ChunkKv>(p)?;
        if scorer.chunk == 0 {
            return Err(serde::de::Error::custom("chunk must be at least 1 token"));
        }
        if scorer.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for ChunkKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        self.base().needs(window)
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let heads = self.base().score(observation)?.to_rows()?;
        let seen = observation.first_in_sight..observation.prefix().max(observation.first_in_sight);
        let sum = |token: usize| heads.iter().map(|scores| scores[token]).sum::<f64>();
        let mut scores = vec![0.0; observation.tokens];
        for (chunk, scores) in scores.chunks_mut(self.chunk).enumerate() {
            let start = chunk * self.chunk;
            let own = start.max(seen.start)..(start + scores.len()).min(seen.end);
            let count = own.len().max(1) as f64;
            scores.fill(own.map(sum).sum::<f64>() / count);
        }
        let scores = Tensor::from_vec(scores, (1, observation.tokens), observation.device)?;
        LayerScores::alike(&scores, observation.kv_heads)
    }
}

impl ChunkKv {
    fn base(&self) -> SnapKv {
        SnapKv {
            pooling: self.pooling,
            kernel: self.kernel,
            group: GroupReduce::Mean,
            order: Order::PoolFirst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tokens_of_a_chunk_share_the_mean_over_heads_and_neighbours() {
        let mean = [
            [0.5, 0.1, 0.0, 0.2, 0.1, 0.1, 0.0],
            [0.1, 0.1, 0.4, 0.2, 0.1, 0.0, 0.1],
        ];
        let mean = Tensor::new(&mean, &Device::Cpu).unwrap();
        let scorer = ChunkKv {
            chunk: 2,
            pooling: Pooling::None,
            ..ChunkKv::default()
        };
        let score = |first_in_sight| {
            let observation = LayerObservation {
                window: 2,
                first_in_sight,
                window_mean: Some(&mean),
                ..LayerObservation::of(7, 1, 2, &Device::Cpu)
            };
            scorer.score(&observation).unwrap().to_rows().unwrap()
        };
        // The third chunk has one token before the window, the last has none.
        let close = |got: &[f64], want: [f64; 7]| {
            assert!(
                got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
                "{got:?}"
            );
        };
        let scores = score(0);
        close(&scores[0], [0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.0]);
        assert_eq!(scores[0], scores[1]);
        close(&score(3)[0], [0.0, 0.0, 0.4, 0.4, 0.2, 0.2, 0.0]);
    }
}
