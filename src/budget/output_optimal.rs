//! The budgets that change the layers' outputs least.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::curve::Curve;
use super::geometry::Granularity;
use super::optimum::{best_targets, measured_to_the_end};
use super::output_query::output_query;
use super::profile_curves::loss_curves;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::{CurveMeasure, Needs, OutputMeasure, Query, Vector};
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
    differs: "nothing was published to differ from",
    build: |p| Ok(Box::new(parse::<OutputOptimal>(p)?)),
};

impl OutputOptimal {
    fn vector(&self, granularity: Granularity) -> Result<Vector> {
        granularity.layers_only("outputs are measured per layer; by head, use mass-optimal")?;
        output_query(self.query)
    }
}

impl Allocator for OutputOptimal {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        let output = CurveMeasure::Output {
            vector: self.vector(granularity)?,
            measure: self.measure,
            raw: self.raw,
        };
        Ok(output.into())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        let measures = measured_to_the_end(request)?;
        let vector = self.vector(request.granularity)?;
        let losses = loss_curves(measures, vector, self.measure, self.raw, request.tokens)?;
        let gains: Vec<Curve> = losses
            .into_iter()
            .map(|loss| loss.changed(|v| -v))
            .collect();
        Ok(best_targets(request, &gains, request.geometry.kv_heads))
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
