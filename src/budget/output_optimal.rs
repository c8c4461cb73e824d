//! The budgets that change the layers' outputs least.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::curve::Curve;
use super::geometry::Granularity;
use super::optimum::{evenly, measured_to_the_end, purse};
use super::output_query::output_query;
use super::profile_curves::{OutputMeasure, loss_curves};
use super::request::{Allocator, Request, Targets};
use super::spend::best_amounts;
use crate::error::Result;
use crate::profile::{MeasureOptions, Query};
use crate::registry::{Entry, described, parse};

/// Minimises the output error summed over layers, at a fixed total.
///
/// Outputs belong to layers: there is no variant by head. The curves need not be convex: the minimum is exact
/// as long as the table that finds it has a sensible size, and along convex hulls beyond it.
///
/// Paper: none: house definition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputOptimal {
    /// Whose output: `last` or `pooled`.
    pub query: Query,
    /// `cosine` for 1 − cos, `relative-l2` for ‖y − ŷ‖ / ‖y‖.
    pub measure: OutputMeasure,
    /// Outputs of probabilities that are not renormalised.
    pub raw: bool,
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "output-optimal",
    paper: "house definition",
    about: "changes the layers' outputs least that the total can, by the measured curves",
    build: |p| Ok(Box::new(parse::<OutputOptimal>(p)?)),
};

impl Allocator for OutputOptimal {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn check(&self, granularity: Granularity, _measured: &MeasureOptions) -> Result<()> {
        granularity.layers_only("outputs are measured per layer; by head, use mass-optimal")?;
        output_query(self.query).map(drop)
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        let profile = measured_to_the_end(request)?;
        self.check(request.granularity, &profile.meta.settings.measures)?;
        let query = output_query(self.query)?;
        let losses = loss_curves(profile, query, self.measure, self.raw, request.tokens)?;
        let gains: Vec<Curve> = losses.into_iter().map(Curve::negated).collect();
        let amounts = best_amounts(&gains, purse(request, request.geometry.kv_heads));
        let tokens = evenly(&request.geometry, &amounts);
        Ok(Targets {
            floor: request.floor.tokens,
            tokens: tokens.into_iter().map(|n| n as f64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Granularity;
    use crate::budget::sample::{Sample, allocated};
    use serde_json::json;

    #[test]
    fn layers_by_hand() {
        // 1 − cos falls evenly to 0 at 10, 20, 58 tokens; the L2 error at 58, 20, 10.
        let sample = Sample::default();
        let request = sample.request(20.0, 2);
        let tokens = allocated(&OutputOptimal::default(), &request);
        assert_eq!(tokens, [[10, 10], [20, 20], [30, 30]]);
        let rule: OutputOptimal = parse(json!({"measure": "relative-l2"})).unwrap();
        assert_eq!(allocated(&rule, &request), [[30, 30], [20, 20], [10, 10]]);
    }

    #[test]
    fn heads_and_rows_have_no_outputs() {
        let sample = Sample::default();
        let heads = sample.request(20.0, 2).by(Granularity::Head);
        assert!(OutputOptimal::default().targets(&heads).is_err());
        let rows: OutputOptimal = parse(json!({"query": "rows"})).unwrap();
        assert!(rows.targets(&sample.request(20.0, 2)).is_err());
    }
}
