//! The budgets that keep the most attention.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::curve::Curve;
use super::geometry::Granularity;
use super::optimum::{best_targets, measured_to_the_end};
use super::output_query::output_query;
use super::profile_curves::mass_curves;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::{CurveMeasure, Needs, Query};
use crate::registry::{Entry, described, parse};

/// Maximises the retained mass summed over layers and KV heads, at a fixed total.
///
/// Exact for the profile's mean curves, which are concave. By layer, a layer's curve is the mean of its
/// heads'.
///
/// Paper: none: house definition; LU-KV (arXiv:2602.08585) does the same with utilities of later tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MassOptimal {
    /// Whose attention: `last` or `pooled`.
    pub query: Query,
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "mass-optimal",
    paper: "house definition; cf. arXiv:2602.08585 (LU-KV)",
    about: "keeps the most attention mass that the total can, by the measured curves",
    differs: "LU-KV counts what later tokens attend to, this rule what the prompt itself does",
    build: |p| Ok(Box::new(parse::<MassOptimal>(p)?)),
};

impl Allocator for MassOptimal {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _granularity: Granularity) -> Result<Needs> {
        Ok(CurveMeasure::Mass(output_query(self.query)?).into())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        let vector = output_query(self.query)?;
        let curves = mass_curves(measured_to_the_end(request)?, vector, request.tokens)?;
        if request.granularity == Granularity::Head {
            return Ok(best_targets(request, &curves, 1));
        }
        let heads = request.geometry.kv_heads;
        let mean = |layer: &[Curve]| Curve::mean(layer, request.tokens);
        let layers: Vec<Curve> = curves.chunks(heads).map(mean).collect();
        Ok(best_targets(request, &layers, heads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};

    #[test]
    fn layers_by_hand() {
        // Mass rises evenly to 1 at 10, 20, 58 tokens: gains 1/10, 1/20, 1/58 per token. Of 120 tokens,
        // 2 x 10, 2 x 20, and the other 60 to the last layer.
        let sample = Sample::default();
        let tokens = allocated(&MassOptimal::default(), &sample.request(20.0, 2));
        assert_eq!(tokens, [[10, 10], [20, 20], [30, 30]]);
        // 6 x 10 - 1 = 59: 2 x 10, 2 x 2 (floor), 35 left for the second layer.
        let request = sample.request(59.0 / 6.0, 2);
        let tokens = allocated(&MassOptimal::default(), &request);
        assert_eq!(tokens, [[10, 10], [18, 17], [2, 2]]);
    }

    #[test]
    fn prompts_longer_than_any_that_was_measured_have_no_optimum() {
        let longer = |tokens| Request {
            tokens,
            ..Sample::default().request(20.0, 2)
        };
        assert!(MassOptimal::default().targets(&longer(100)).is_ok());
        let text = MassOptimal::default().targets(&longer(101)).unwrap_err();
        let text = text.to_string();
        assert!(
            text.contains("101 tokens") && text.contains("has 100 tokens"),
            "{text}"
        );
    }

    #[test]
    fn heads_by_hand() {
        // By head, needs are 9, 11 | 16, 20 | 58, 58 (their means are the layers' curves).
        let sample = Sample {
            need: |layer, head| [[9, 11], [16, 20], [58, 58]][layer][head],
            ..Sample::default()
        };
        let request = sample.request(12.0, 2).by(Granularity::Head);
        let tokens = allocated(&MassOptimal::default(), &request);
        // 72: floor 2 for the last two, 68 left: 9 + 11 + 16 + 20 = 56, and 12 for the last layer.
        assert_eq!(tokens, [[9, 11], [16, 20], [8, 8]]);
    }
}
