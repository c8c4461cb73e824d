//! PyramidInfer: budgets that fall along a cosine, layer on layer.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::Needs;
use crate::registry::{Entry, described, parse};

/// In proportion to what is left of a context of which layer l keeps r_l = (1 − d)·(cos(π l / L) + 1)/2 + d.
///
/// Paper: arXiv:2405.12532 (PyramidInfer), its schedule. Differs: there d decides how much stays, and tokens that a layer drops
/// are not computed in later ones; here the budget decides how much, the schedule how it falls, and all are computed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PyramidInfer {
    /// d: the share that the last layer keeps of what reaches it.
    pub decay: f64,
}

impl Default for PyramidInfer {
    fn default() -> Self {
        Self { decay: 0.9 }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "pyramid-infer",
    paper: "arXiv:2405.12532 (PyramidInfer), its schedule",
    about: "falls with depth, layer on layer, by a share that falls along a cosine",
    differs: "the budget decides how much stays, the schedule how it falls; every token is computed in every layer",
    build: |p| Ok(Box::new(parse::<PyramidInfer>(p)?.checked()?)),
};

impl PyramidInfer {
    fn checked(self) -> serde_json::Result<Self> {
        if self.decay > 0.0 && self.decay <= 1.0 {
            return Ok(self);
        }
        let decay = readable_number(self.decay);
        let problem =
            format!("decay is {decay}, but a share above 0 and up to 1 (flat) is expected");
        Err(serde::de::Error::custom(problem))
    }

    /// What is left in each of `layers`.
    fn left(&self, layers: usize) -> Vec<f64> {
        let share = |l: usize| {
            let cosine = (PI * l as f64 / layers as f64).cos();
            (1.0 - self.decay) * (cosine + 1.0) / 2.0 + self.decay
        };
        (0..layers)
            .scan(1.0, |left, l| {
                *left *= share(l);
                Some(*left)
            })
            .collect()
    }
}

impl Allocator for PyramidInfer {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity
            .layers_only("the schedule falls over layers; by head, use zigzag or mass-optimal")?;
        Ok(Needs::default())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        Ok(request.by_weight(&self.left(request.geometry.layers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};

    #[test]
    fn layers_by_hand() {
        // cos 0, π/3 and 2π/3 are 1, 1/2 and -1/2: shares 1, 0.6·0.75 + 0.4 = 0.85 and 0.6·0.25 + 0.4 = 0.55.
        let rule = PyramidInfer { decay: 0.4 };
        for (left, want) in rule.left(3).into_iter().zip([1.0, 0.85, 0.4675]) {
            assert!((left - want).abs() < 1e-12);
        }
        // 54 tokens above 2 by those of 2.3175: 23.30, 19.81, 10.89.
        let sample = Sample::default();
        let tokens = allocated(&rule, &sample.request(20.0, 2)).concat();
        assert_eq!(tokens.iter().sum::<usize>(), 120);
        assert!(
            tokens[..2].iter().all(|t| [25, 26].contains(t)),
            "{tokens:?}"
        );
        assert!(
            tokens[4..].iter().all(|t| [12, 13].contains(t)),
            "{tokens:?}"
        );
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        for decay in [0.0, 1.5, f64::NAN] {
            assert!(PyramidInfer { decay }.checked().is_err());
        }
        assert_eq!(PyramidInfer { decay: 1.0 }.left(3), [1.0; 3]);
    }
}
