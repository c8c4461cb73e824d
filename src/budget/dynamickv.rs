//! DynamicKV: layers by how many of the best tokens of all layers are theirs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::Needs;
use crate::registry::{Entry, described, parse};

/// Sinks, window, and the rest in proportion to a layer's share of the best tokens over all layers and KV heads.
///
/// As many best tokens are counted as the rest of the budget holds; a layer can have at most `most` times its equal share
/// among them.
/// Paper: arXiv:2412.14838 (DynamicKV), section 3. Differs: once, after the last layer, where its code settles every fourth layer
/// and what it has cut by then is final; of the code's two values for `most`, 10 and 5, the first. The scores are those of the
/// method's own scorer; rounding goes where it is due, not to the last layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicKv {
    /// The largest share of a layer, in equal shares.
    pub most: f64,
}

impl Default for DynamicKv {
    fn default() -> Self {
        Self { most: 10.0 }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "dynamickv",
    paper: "arXiv:2412.14838 (DynamicKV), section 3",
    about: "in proportion to a layer's share of the best tokens of all layers, from the prompt itself",
    differs: "once, after the last layer; the total is exact",
    build: |p| Ok(Box::new(parse::<DynamicKv>(p)?.checked()?)),
};

impl DynamicKv {
    fn checked(self) -> serde_json::Result<Self> {
        if self.most.is_finite() && self.most >= 1.0 {
            return Ok(self);
        }
        let most = readable_number(self.most);
        let problem = format!("most is {most}, but 1 (equal layers) or more is expected");
        Err(serde::de::Error::custom(problem))
    }
}

impl Allocator for DynamicKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity.layers_only("best tokens are counted by layer; heads compete with +pooled")?;
        Ok(Needs::of_scores())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        let floor = request.floor;
        let scores = request.measured()?.scores()?;
        let competing = scores.competing(floor.sinks, floor.window);
        let least = request.lowest() as f64;
        let rest = (request.per_head() - least).max(0.0);
        let most = (self.most * rest) as usize;
        let counts = counts_of_best(&competing, most, rest);
        let counts: Vec<f64> = counts.into_iter().map(|count| count as f64).collect();
        Ok(request.by_weight(&counts))
    }
}

/// How many of the best tokens of all heads lie in each layer, where a head has at most `most` in the running and `rest` are
/// counted per head. Ties go to the lower layer.
fn counts_of_best(competing: &[Vec<&[f64]>], most: usize, rest: f64) -> Vec<usize> {
    let heads = competing.iter().map(Vec::len).sum::<usize>();
    let wanted = (rest * heads as f64) as usize;
    let mut running: Vec<(f64, usize)> = Vec::new();
    for (layer, heads) in competing.iter().enumerate() {
        for scores in heads {
            let mut own = scores.to_vec();
            own.sort_unstable_by(|a, b| b.total_cmp(a));
            running.extend(own.into_iter().take(most).map(|score| (score, layer)));
        }
    }
    running.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut counts = vec![0; competing.len()];
    for (_, layer) in running.iter().take(wanted) {
        counts[*layer] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};
    use crate::budget::{Measures, TokenScores};

    /// Three layers of two heads and ten tokens, of which the first and the last two always stay.
    fn measures(best: [[usize; 2]; 3]) -> Measures {
        let head = |best: usize| -> Vec<f64> {
            let score = |token: usize| {
                if token > 0 && token <= best {
                    9.0 - token as f64
                } else {
                    0.0
                }
            };
            (0..10).map(score).collect()
        };
        let layers = best.map(|heads| heads.map(head).to_vec()).to_vec();
        let sample = Sample::default();
        let request = sample.request(5.0, 3);
        let measures = request.measures.cloned().unwrap();
        measures.with_scores(TokenScores::new(layers, vec![0; 3]).unwrap())
    }

    fn tokens(measures: &Measures, rule: &dyn Allocator, budget: f64) -> Vec<Vec<usize>> {
        let sample = Sample::default();
        let mut request = sample.request(budget, 3);
        request.floor.sinks = 1;
        request.floor.window = 2;
        request.measures = Some(measures);
        request.tokens = 10;
        allocated(rule, &request)
    }

    #[test]
    fn layers_get_what_share_of_the_best_is_theirs() {
        // B = 5, 3 of them stay: 12 best of all. Layer 0 has 4 + 4, layer 1 has 2 + 1, layer 2 one that counts.
        let measures = measures([[4, 4], [2, 1], [1, 0]]);
        // 8, 3, 1 of 12: 2·3 times that is 4, 1.5, 0.5 above 3; the two halves of a layer go to the lower one.
        assert_eq!(
            tokens(&measures, &DynamicKv::default(), 5.0),
            [[7, 7], [5, 5], [3, 3]]
        );
        // No more than its equal share of the running: all alike but for rounding.
        let alike = tokens(&measures, &DynamicKv { most: 1.0 }, 5.0);
        assert_eq!(alike.concat().iter().sum::<usize>(), 30);
    }

    #[test]
    fn a_prompt_without_scores_is_refused_with_the_way_out() {
        let sample = Sample::default();
        let problem = DynamicKv::default().targets(&sample.request(20.0, 2));
        assert!(problem.unwrap_err().to_string().contains("@profile"));
        assert!(
            parse::<DynamicKv>(serde_json::json!({"most": 0.5}))
                .is_ok_and(|r| r.checked().is_err())
        );
    }
}
