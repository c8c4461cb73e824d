//! Entropy of the pooled attention: layers that look at many tokens get more.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::{LayerNumber, Needs};
use crate::registry::{Entry, described, parse};

/// Sinks, window, and the rest in proportion to the entropy of the pooled vector, in the mean over query heads and prompts.
///
/// Paper: none: house definition; what ZigZagKV's uncertainty is sometimes taken for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PooledEntropy {
    /// In proportion to e^H, the number of tokens that as even an attention would have, not to H.
    pub tokens: bool,
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "entropy",
    paper: "house definition",
    about: "in proportion to the entropy of the pooled attention; with tokens=true, to its exponential",
    differs: "nothing was published to differ from",
    build: |p| Ok(Box::new(parse::<PooledEntropy>(p)?)),
};

impl Allocator for PooledEntropy {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity
            .layers_only("entropies are means over heads; by head, use zigzag or mass-optimal")?;
        Ok(LayerNumber::PooledEntropy.into())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        let prompts = request.measured()?.numbers(LayerNumber::PooledEntropy)?;
        let mut weights = vec![0.0; request.geometry.layers];
        for layers in prompts {
            for (weight, entropy) in weights.iter_mut().zip(layers) {
                *weight += if self.tokens { entropy.exp() } else { *entropy };
            }
        }
        Ok(request.by_weight(&weights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};

    #[test]
    fn layers_by_hand() {
        // The sample's entropies: heads of layer l have l, l + 1, l and l + 1 nats, in the mean 0.5, 1.5 and 2.5.
        let sample = Sample::default();
        let request = sample.request(20.0, 2);
        // 18·3 = 54 above 2: 6, 18, 30.
        assert_eq!(
            allocated(&PooledEntropy::default(), &request),
            [[8, 8], [20, 20], [32, 32]]
        );
        // e^H: 1 : e : e² of 54 is 4.86, 13.22, 35.92.
        let tokens = allocated(&PooledEntropy { tokens: true }, &request).concat();
        assert_eq!(tokens.iter().sum::<usize>(), 120);
        assert_eq!((tokens[0] - 2 + tokens[1] - 2) as f64 / 2.0, 5.0);
        assert_eq!((tokens[4], tokens[5]), (38, 38));
    }

    #[test]
    fn heads_have_none() {
        let sample = Sample::default();
        let heads = sample.request(20.0, 2).by(Granularity::Head);
        assert!(PooledEntropy::default().targets(&heads).is_err());
    }
}
