//! SqueezeAttention: layers that hardly change the residual stream give up most of their budget.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::{Allocator, Request, Targets};
use crate::error::Result;
use crate::profile::{LayerNumber, Needs};
use crate::registry::{Entry, described, parse};

/// The third of three groups of layers by similarity keeps `share` of the mean budget each; the others share the rest equally.
///
/// Layers are grouped by the cosine between the residual stream before attention and after it, in the mean over the prompt.
/// Paper: arXiv:2404.04793 (SqueezeAttention), section 4.2. Differs: groups are the best three there are (least squares within
/// groups), where its code runs k-means from a random start; `share` is of the budget, where its users give a length, and never
/// below sinks and window; where fewer than three layers differ, all are equal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqueezeAttention {
    /// What a layer of the most similar group keeps of the mean budget.
    pub share: f64,
}

impl Default for SqueezeAttention {
    fn default() -> Self {
        Self { share: 0.38 }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "squeeze-attention",
    paper: "arXiv:2404.04793 (SqueezeAttention), section 4.2",
    about: "layers whose attention changes the residual stream least give up most, from the prompt itself",
    differs: "the best three groups instead of k-means from a random start; share 0.38 of the mean is one of its examples, raised to sinks and window",
    build: |p| Ok(Box::new(parse::<SqueezeAttention>(p)?.checked()?)),
};

impl SqueezeAttention {
    fn checked(self) -> serde_json::Result<Self> {
        if self.share > 0.0 && self.share <= 1.0 {
            return Ok(self);
        }
        let share = readable_number(self.share);
        let problem =
            format!("share is {share}, but one above 0 and up to 1 (equal layers) is expected");
        Err(serde::de::Error::custom(problem))
    }
}

impl Allocator for SqueezeAttention {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity.layers_only("the residual stream has layers; heads compete with +pooled")?;
        Ok(LayerNumber::ResidualCosine.into())
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        let prompts = request.measured()?.numbers(LayerNumber::ResidualCosine)?;
        let mut cosines = vec![0.0; request.geometry.layers];
        for layers in prompts {
            for (sum, cosine) in cosines.iter_mut().zip(layers) {
                *sum += cosine;
            }
        }
        let squeezed = most_similar(&cosines);
        let mean = request.per_head();
        let layers = cosines.len() as f64;
        let few = squeezed.iter().filter(|s| **s).count() as f64;
        let low = (self.share * mean).max(request.lowest() as f64).min(mean);
        let high = (layers * mean - few * low) / (layers - few).max(1.0);
        let tokens = squeezed.iter().map(|&s| if s { low } else { high });
        let tokens: Vec<f64> = tokens.collect();
        Ok(request.targets(request.geometry.repeated(&tokens)))
    }
}

/// Which layers belong to the group of the largest numbers, of the three groups with the least squares within them; none where
/// fewer than three numbers differ.
fn most_similar(numbers: &[f64]) -> Vec<bool> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let squares = |group: &[f64]| {
        let mean = group.iter().sum::<f64>() / group.len() as f64;
        group.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
    };
    let mut distinct = sorted.clone();
    distinct.dedup();
    if distinct.len() < 3 {
        return vec![false; numbers.len()];
    }
    let count = sorted.len();
    // Equal numbers are never parted: a cut lies where the sorted ones rise.
    let rises = |at: &usize| sorted[at - 1] < sorted[*at];
    let pairs = (1..count).filter(rises).flat_map(|first| {
        let seconds = (first + 1..count).filter(rises);
        seconds.map(move |second| (first, second))
    });
    let cost = |(first, second): (usize, usize)| {
        squares(&sorted[..first]) + squares(&sorted[first..second]) + squares(&sorted[second..])
    };
    let best = pairs.min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
    let least = best.map_or(f64::INFINITY, |(_, second)| sorted[second]);
    numbers.iter().map(|x| *x >= least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::{Sample, allocated};
    use proptest::prelude::*;

    #[test]
    fn the_most_similar_layers_give_up() {
        let numbers = [0.2, 0.9, 0.91, 0.5, 0.55, 0.89];
        assert_eq!(
            most_similar(&numbers),
            [false, true, true, false, false, true]
        );
        assert_eq!(most_similar(&[0.5, 0.7, 0.5, 0.7]), [false; 4]);
        assert_eq!(most_similar(&[]), [false; 0]);
    }

    #[test]
    fn layers_by_hand() {
        let sample = Sample::default();
        let mut request = sample.request(20.0, 2);
        let measures = request.measures.cloned().unwrap();
        let measures =
            measures.with_numbers(LayerNumber::ResidualCosine, vec![vec![0.5, 0.9, 0.1]]);
        request.measures = Some(&measures);
        let rule = SqueezeAttention { share: 0.25 };
        // 5 of 20 for the second, (60 - 5) / 2 = 27.5 for the others.
        assert_eq!(allocated(&rule, &request), [[28, 28], [5, 5], [27, 27]]);
        assert!(SqueezeAttention { share: 0.0 }.checked().is_err());
    }

    proptest! {
        #[test]
        fn no_other_three_groups_have_smaller_squares(numbers in prop::collection::vec(0u8..20, 3..9)) {
            let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
            let found = most_similar(&numbers);
            let cost = |groups: &[usize]| -> f64 {
                (0..3).map(|g| {
                    let own: Vec<f64> = numbers.iter().zip(groups).filter(|(_, o)| **o == g).map(|(x, _)| *x).collect();
                    let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
                    own.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
                }).sum()
            };
            let mut best = f64::INFINITY;
            let mut with_found = f64::INFINITY;
            for code in 0..3usize.pow(numbers.len() as u32) {
                let groups: Vec<usize> = (0..numbers.len()).map(|i| code / 3usize.pow(i as u32) % 3).collect();
                let cost = cost(&groups);
                best = best.min(cost);
                if groups.iter().zip(&found).all(|(g, f)| (*g == 2) == *f) {
                    with_found = with_found.min(cost);
                }
            }
            if found.contains(&true) {
                prop_assert!(with_found <= best + 1e-9, "{with_found} {best}");
            }
        }
    }
}
