//! PyramidKV: budgets that fall with depth.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::Needs;
use crate::registry::{Entry, described, parse};

/// A straight line over the layers: what lies above the floor falls from (2 − 1/β) to 1/β of its mean.
///
/// Heads of a layer are equal: there is no variant by head.
/// A first layer that would exceed the prompt is cut to it, and the last one raised so that the mean stays.
///
/// Paper: arXiv:2406.02069 (PyramidKV).
/// Differs: the total is exact. KVCache-Factory rounds the step between layers down, which spends up to
/// 12 % more than asked at 32 layers and a budget of 64, and kvpress turns into SnapKV, the same budget
/// everywhere, whenever its last layer would fall below the window, which for its defaults is every mean
/// budget below β·window = 1280. Both take the window alone off the line; here sinks and window.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pyramid {
    /// Steepness: the last layer gets 1/β of the mean above the floor.
    pub beta: f64,
}

impl Default for Pyramid {
    fn default() -> Self {
        Self { beta: 20.0 }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "pyramid",
    paper: "arXiv:2406.02069 (PyramidKV)",
    about: "falls in a straight line with depth",
    differs: "the total is exact, and sinks are taken off the line as well as the window",
    build: |p| Ok(Box::new(parse::<Pyramid>(p)?.checked()?)),
};

impl Pyramid {
    fn checked(self) -> serde_json::Result<Self> {
        if self.beta.is_finite() && self.beta >= 1.0 {
            return Ok(self);
        }
        let beta = readable_number(self.beta);
        let problem = format!("beta is {beta}, but 1 (flat) or more is expected");
        Err(serde::de::Error::custom(problem))
    }
}

impl Allocator for Pyramid {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity
            .layers_only("the line falls over layers; by head, use zigzag or mass-optimal")?;
        Ok(Needs::default())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        let floor = request.lowest() as f64;
        let mean = request.per_head().min(request.tokens as f64) - floor;
        let most = (2.0 * mean - mean / self.beta).min(request.tokens as f64 - floor);
        let least = 2.0 * mean - most;
        let layers = request.geometry.layers;
        let steps = layers.saturating_sub(1).max(1) as f64;
        let line = |l: usize| match layers {
            1 => floor + mean,
            _ => floor + most + (least - most) * l as f64 / steps,
        };
        let line: Vec<f64> = (0..layers).map(line).collect();
        Ok(request.targets(request.geometry.repeated(&line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};
    use serde_json::json;

    #[test]
    fn layers_by_hand() {
        // B − floor = 20: from 39 to 1, plus 10.
        let sample = Sample::default();
        let tokens = allocated(&Pyramid::default(), &sample.request(30.0, 10));
        assert_eq!(tokens, [[49, 49], [30, 30], [11, 11]]);
    }

    #[test]
    fn a_first_layer_above_the_prompt_is_cut_and_the_mean_stays() {
        // T = 100, B = 80, floor 0: 156 > 100, so 100, 80, 60.
        let sample = Sample::default();
        let tokens = allocated(&Pyramid::default(), &sample.request(80.0, 0));
        assert_eq!(tokens, [[100, 100], [80, 80], [60, 60]]);
    }

    #[test]
    fn one_layer_and_flat_lines() {
        let sample = Sample {
            prompts: vec![(100, vec![10.0])],
            ..Sample::default()
        };
        let tokens = allocated(&Pyramid::default(), &sample.request(30.0, 10));
        assert_eq!(tokens, [[30, 30]]);
        let flat = (ENTRY.build)(json!({"beta": 1})).unwrap();
        let tokens = allocated(&*flat, &Sample::default().request(30.0, 10));
        assert_eq!(tokens, [[30, 30]; 3]);
        let heads = Sample::default().request(30.0, 10).by(Granularity::Head);
        assert!(flat.targets(&heads).is_err());
        for beta in [0.5, 0.0, -3.0] {
            assert!((ENTRY.build)(json!({ "beta": beta })).is_err());
        }
    }
}
