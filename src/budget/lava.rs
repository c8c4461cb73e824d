//! LAVa: layers by how evenly their scores are spread.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::{Needs, entropy};
use crate::registry::{Entry, described, parse};

/// Sinks, window, and the rest in proportion to the entropy of a layer's scores over all its KV heads.
///
/// Paper: arXiv:2509.09754 (LAVa), section 3, its layer budgets. Differs: once, after the last layer, where its code cuts layer
/// by layer during prefill; shares are the same up to rounding. The scores are those of the method's own scorer;
/// what always stays has no share in the entropy. Its code leaves a floor of heads unscaled, which is not repeated.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lava {}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "lava",
    paper: "arXiv:2509.09754 (LAVa), section 3",
    about: "in proportion to the entropy of the layer's scores, from the prompt itself",
    differs: "once, after the last layer; the total is exact",
    build: |p| Ok(Box::new(parse::<Lava>(p)?)),
};

impl Allocator for Lava {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: super::Granularity) -> Result<Needs> {
        granularity.layers_only("entropies are of layers; heads compete with +pooled")?;
        Ok(Needs::of_scores())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        let floor = request.floor;
        let scores = request.measured()?.scores()?;
        let competing = scores.competing(floor.sinks, floor.window);
        let entropies: Vec<f64> = competing.iter().map(|heads| relative(heads)).collect();
        // Scores of a single token each, or of none, say nothing of any layer: all are 0 then.
        Ok(request.by_weight(&entropies))
    }
}

/// Entropy of all heads' scores together over that of equal ones, 0 to 1.
fn relative(heads: &[&[f64]]) -> f64 {
    let all = heads.concat();
    let most = (all.len() as f64).ln();
    // Scores that may be negative are no shares of anything: what lies below zero counts as nothing.
    let positive: Vec<f64> = all.iter().map(|score| score.max(0.0)).collect();
    if most > 0.0 && positive.iter().any(|score| *score > 0.0) {
        entropy(&positive) / most
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::TokenScores;
    use crate::budget::sample::{Sample, allocated};

    #[test]
    fn evenly_spread_layers_get_more() {
        // Four competing numbers per layer: equal ones have the whole entropy, one alone has none, two equal ones half.
        let head = |scores: [f64; 2]| vec![100.0, scores[0], scores[1], 100.0];
        let layer = |a, b| vec![head(a), head(b)];
        let layers = vec![
            layer([1.0, 1.0], [1.0, 1.0]),
            layer([0.0, 3.0], [0.0, 0.0]),
            layer([0.5, 0.0], [0.0, 0.5]),
        ];
        let sample = Sample::default();
        let mut request = sample.request(3.0, 2);
        request.floor.sinks = 1;
        request.floor.window = 1;
        let measures = request.measures.cloned().unwrap();
        let measures = measures.with_scores(TokenScores::new(layers, vec![0; 3]).unwrap());
        request.measures = Some(&measures);
        // B = 3 with 2 that stay: 3 tokens above, by 1, 0, 1/2 of 3/2: 2, 0, 1.
        assert_eq!(allocated(&Lava {}, &request), [[4, 4], [2, 2], [3, 3]]);
    }

    #[test]
    fn scores_that_say_nothing_leave_layers_equal() {
        let sample = Sample::default();
        let mut request = sample.request(5.0, 0);
        let measures = request.measures.cloned().unwrap();
        let flat = vec![vec![vec![0.0; 9]; 2]; 3];
        let measures = measures.with_scores(TokenScores::new(flat, vec![0; 3]).unwrap());
        request.measures = Some(&measures);
        assert_eq!(allocated(&Lava {}, &request), [[5, 5]; 3]);
    }
}
