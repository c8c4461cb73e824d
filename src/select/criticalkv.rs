//! CriticalKV: half of a budget by attention, the rest by attention times what values bring to the output.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    FirstCount, FirstStage, GroupReduce, LayerObservation, LayerScores, Needs, Order, Pooling,
    Scorer, SnapKv,
};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// SnapKV's scores for the first `share` of a budget; for the rest (score + `epsilon`)·‖W_o v‖₁.
///
/// Paper: arXiv:2502.03805 (CriticalKV), algorithm 1. Differs: the norm is the mean over the group's query heads, and
/// sinks and window, which count in the first stage, are the selection's. Over another scorer than SnapKV's it is not
/// offered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriticalKv {
    /// How neighbours are pooled in SnapKV's scores.
    pub pooling: Pooling,
    /// Width of the pooling, odd.
    pub kernel: usize,
    /// How a group of query heads is reduced.
    pub group: GroupReduce,
    /// Pooling or reduction first.
    pub order: Order,
    /// Share of a budget that SnapKV's scores alone choose.
    pub share: f64,
    /// What is added to a score before it meets the norm.
    pub epsilon: f64,
}

impl Default for CriticalKv {
    fn default() -> Self {
        let base = SnapKv::default();
        Self {
            pooling: base.pooling,
            kernel: base.kernel,
            group: base.group,
            order: base.order,
            share: 0.5,
            epsilon: 1e-4,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "criticalkv",
    paper: "arXiv:2502.03805 (CriticalKV), algorithm 1",
    about: "SnapKV's scores for half of a budget, times the L1 norm of W_o v for the rest",
    differs: "the norm is the mean over the query heads that share a KV head; SnapKV's scores are the only base",
    build: |p| {
        let scorer = parse::<CriticalKv>(p)?;
        if scorer.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        if !(0.0..=1.0).contains(&scorer.share) {
            return Err(serde::de::Error::custom("share must be from 0 to 1"));
        }
        if !(scorer.epsilon.is_finite() && scorer.epsilon >= 0.0) {
            return Err(serde::de::Error::custom(
                "epsilon must be finite and not below 0",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl CriticalKv {
    fn base(&self) -> SnapKv {
        SnapKv {
            pooling: self.pooling,
            kernel: self.kernel,
            group: self.group,
            order: self.order,
        }
    }
}

impl Scorer for CriticalKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            projected_norms: true,
            ..self.base().needs(window)
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let base = self.base().score(observation)?;
        let base = base.tensor();
        let norms = observation.group_norms()?.concat();
        let norms = Tensor::from_vec(norms, base.dims2()?, base.device())?;
        let first = FirstStage {
            scores: base.clone(),
            count: FirstCount::Share(self.share),
        };
        LayerScores::in_two_stages(first, ((base + self.epsilon)? * norms)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::{HeadSplit, select};
    use candle_core::Device;

    #[test]
    fn half_by_attention_and_half_by_what_it_brings() {
        let mean = Tensor::new(&[[0.4, 0.3, 0.2, 0.1, 0.0]], &Device::Cpu).unwrap();
        let norms = [vec![1.0, 0.1, 1.0, 4.0, 9.0]];
        let observation = LayerObservation {
            window_mean: Some(&mean),
            projected_norms: Some(&norms),
            ..LayerObservation::of(5, 1, 1, &Device::Cpu)
        };
        let scorer = |share| CriticalKv {
            pooling: Pooling::None,
            share,
            epsilon: 0.0,
            ..CriticalKv::default()
        };
        let kept = |share| {
            let scores = scorer(share).score(&observation).unwrap();
            select(&scores, &[2], 0, 0, HeadSplit::PerHead).unwrap()
        };
        // Products: 0.4, 0.03, 0.2, 0.4, 0.
        assert_eq!(kept(1.0), [[0, 1]]);
        assert_eq!(kept(0.5), [[0, 3]]);
        let scores = scorer(0.5).score(&observation).unwrap();
        let want = [0.4, 0.03, 0.2, 0.4, 0.0];
        for (got, want) in scores.to_rows().unwrap()[0].iter().zip(want) {
            assert!((got - want).abs() < 1e-12);
        }
    }
}
