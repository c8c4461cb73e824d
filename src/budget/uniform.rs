//! The same budget everywhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::Needs;
use crate::registry::{Entry, described, parse};

/// B for every layer and KV head; there is no variant by head, which would be the same.
///
/// Paper: arXiv:2404.14469 (SnapKV), which gives every head the same. Differs: as published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uniform {}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "uniform",
    paper: "arXiv:2404.14469 (SnapKV)",
    about: "the same budget for every layer and head",
    differs: "as published",
    build: |p| Ok(Box::new(parse::<Uniform>(p)?)),
};

impl Allocator for Uniform {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity
            .layers_only("every KV head gets the same; by head, use zigzag or mass-optimal")?;
        Ok(Needs::default())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        Ok(request.targets(vec![request.per_head(); request.geometry.cells()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};

    #[test]
    fn what_a_total_leaves_over_goes_to_the_first_heads() {
        let sample = Sample::default();
        // 3 layers x 2 KV heads x 10.5 = 63.
        let tokens = allocated(&Uniform {}, &sample.request(10.5, 2));
        assert_eq!(tokens, [[11, 11], [11, 10], [10, 10]]);
    }

    #[test]
    fn heads_that_cannot_differ_are_not_asked_for() {
        let heads = Sample::default().request(10.5, 2).by(Granularity::Head);
        let text = Uniform {}.targets(&heads).unwrap_err().to_string();
        assert!(text.contains("'head' is not supported"), "{text}");
    }
}
