//! ZigZagKV's rule on what the layers' outputs need.

use serde::{Deserialize, Serialize};

use super::geometry::Granularity;
use super::output_query::output_query;
use super::request::Allocator;
use super::zigzag::{Bounded, LowerBound};
use crate::error::Result;
use crate::profile::{BudgetMeasure, Crossing, Query};
use crate::registry::{Entry, parse};

/// B_min + (B − B_min)·L·u_l with u_l = LMBO_l / Σ LMBO.
///
/// Paper: arXiv:2412.09036 measures LMBO; it allocates by LMBA alone. Differs: house definition.
/// LMBO belongs to a layer, so there is no variant by head.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZigZagLmbo {
    /// Whose output: `last` or `pooled`.
    pub query: Query,
    /// Cosine τ_o of LMBO; one that was measured.
    pub threshold: f64,
    /// Which crossing of the threshold.
    pub crossing: Crossing,
    /// Outputs of probabilities that are not renormalised.
    pub raw: bool,
    /// B_min in tokens (`40`) or as a share of B (`"20%"`); `null` for the default.
    pub floor: Option<LowerBound>,
}

impl Default for ZigZagLmbo {
    fn default() -> Self {
        Self {
            query: Query::Pooled,
            threshold: 0.99,
            crossing: Crossing::First,
            raw: false,
            floor: None,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "zigzag-lmbo",
    paper: "house definition: arXiv:2412.09036 Eq. 4-6 with LMBO for LMBA",
    about: "a lower bound for every layer, the rest in proportion to LMBO",
    differs: "the paper measures LMBO, but allocates by LMBA alone",
    build: |p| Ok(Box::new(parse::<ZigZagLmbo>(p)?)),
};

impl Bounded for ZigZagLmbo {
    fn measure(&self, granularity: Granularity) -> Result<BudgetMeasure> {
        granularity.layers_only("LMBO is measured per layer; by head, use zigzag")?;
        Ok(BudgetMeasure::Outputs {
            vector: output_query(self.query)?,
            threshold: self.threshold,
            crossing: self.crossing,
            raw: self.raw,
        })
    }

    fn bound(&self) -> Option<LowerBound> {
        self.floor
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
        // LMBO 5, 10, 5: u = 0.25, 0.5, 0.25. B = 20, B_min = 4: 4 + 16·3·u = 16, 28, 16.
        let sample = Sample::default();
        let tokens = allocated(&ZigZagLmbo::default(), &sample.request(20.0, 2));
        assert_eq!(tokens, [[16, 16], [28, 28], [16, 16]]);
        // Raw, stable: 1, 1, 2.
        let rule: ZigZagLmbo = parse(json!({"raw": true, "crossing": "stable"})).unwrap();
        let tokens = allocated(&rule, &sample.request(20.0, 2));
        assert_eq!(tokens, [[16, 16], [16, 16], [28, 28]]);
    }

    #[test]
    fn what_was_not_measured_is_refused() {
        let sample = Sample::default();
        let request = sample.request(20.0, 2);
        let heads = request.clone().by(Granularity::Head);
        let text = ZigZagLmbo::default()
            .targets(&heads)
            .unwrap_err()
            .to_string();
        assert!(text.contains("'head' is not supported"), "{text}");
        let rows: ZigZagLmbo = parse(json!({"query": "rows"})).unwrap();
        assert!(
            rows.targets(&request)
                .unwrap_err()
                .to_string()
                .contains("last, pooled")
        );
        let other: ZigZagLmbo = parse(json!({"threshold": 0.5})).unwrap();
        assert!(other.targets(&request).is_err());
    }
}
