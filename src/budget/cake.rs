//! CAKE: layers by how far the window's attention is spread, and how much it moves.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::{Allocator, Request, Targets};
use crate::error::{Error, Result};
use crate::profile::{Needs, TokenMeasure};
use crate::registry::{Entry, described, parse};

/// Sinks, window, and the rest in proportion to H^(1/τ1)·V^(1/τ2) of the window's rows over the tokens before it.
///
/// H is the entropy −Σ p ln p over query heads, rows and tokens, not renormalised; V the sum over query heads and tokens of the
/// unbiased variance over rows.
/// Paper: arXiv:2503.12491 (CAKE), section 4.1. Differs: once, after the last layer, where CAKE cuts layer by layer during prefill;
/// its τ are tuned for every model and budget, here they are 1 unless given; what exceeds the prompt goes to the other layers in
/// proportion, not in equal parts; cuts while decoding are a residency's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cake {
    /// Temperature of the entropy.
    pub tau1: f64,
    /// Temperature of the variance.
    pub tau2: f64,
}

impl Default for Cake {
    fn default() -> Self {
        Self {
            tau1: 1.0,
            tau2: 1.0,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Allocator> = Entry {
    name: "cake",
    paper: "arXiv:2503.12491 (CAKE), section 4.1",
    about: "in proportion to entropy and variance of the window's rows, from the prompt itself",
    differs: "once, after the last layer; tau1 and tau2 are 1 unless given, where the paper tunes both for every model and budget",
    build: |p| Ok(Box::new(parse::<Cake>(p)?.checked()?)),
};

impl Cake {
    fn checked(self) -> serde_json::Result<Self> {
        for (name, tau) in [("tau1", self.tau1), ("tau2", self.tau2)] {
            if !(tau.is_finite() && tau > 0.0) {
                let tau = readable_number(tau);
                let problem = format!("{name} is {tau}, but a number above 0 is expected");
                return Err(serde::de::Error::custom(problem));
            }
        }
        Ok(self)
    }

    /// Preferences of all layers, the largest 1: powers of small sums would vanish.
    fn preferences(&self, entropies: &[f64], variances: &[f64]) -> Vec<f64> {
        let largest = |sums: &[f64]| sums.iter().copied().fold(0.0, f64::max);
        let relative = |sum: f64, most: f64| {
            if most > 0.0 {
                (sum / most).max(0.0)
            } else {
                1.0
            }
        };
        let (h, v) = (largest(entropies), largest(variances));
        let layers = entropies.iter().zip(variances);
        layers
            .map(|(entropy, variance)| {
                let entropy = relative(*entropy, h).powf(1.0 / self.tau1);
                entropy * relative(*variance, v).powf(1.0 / self.tau2)
            })
            .collect()
    }
}

impl Allocator for Cake {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, granularity: Granularity) -> Result<Needs> {
        granularity.layers_only("preferences are of layers; heads compete with +pooled")?;
        Ok(Needs {
            token_measures: vec![TokenMeasure::RowEntropy, TokenMeasure::RowVariance],
            ..Needs::default()
        })
    }

    fn targets(&self, request: &Request<'_>) -> Result<Targets> {
        self.needs(request.granularity)?;
        if request.floor.window < 2 {
            let bound = "a variance over rows needs two: --window 2 or more";
            return Err(Error::invalid(
                "window of cake",
                request.floor.window,
                bound,
            ));
        }
        let measures = request.measured()?;
        let sums = |measure| -> Result<Vec<f64>> {
            let tokens = measures.token_measure(measure)?;
            let layers = tokens.competing(0, request.floor.window).into_iter();
            let sum = |heads: Vec<&[f64]>| heads.into_iter().flatten().sum();
            Ok(layers.map(sum).collect())
        };
        let entropies = sums(TokenMeasure::RowEntropy)?;
        let variances = sums(TokenMeasure::RowVariance)?;
        Ok(request.by_weight(&self.preferences(&entropies, &variances)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::TokenScores;
    use crate::budget::sample::{Sample, allocated};

    #[test]
    fn layers_by_hand() {
        let sample = Sample::default();
        let mut request = sample.request(5.0, 2);
        request.floor.window = 2;
        // Two heads of four tokens; the window's two do not count.
        let layer = |a: f64, b: f64| vec![vec![a, 0.0, 50.0, 50.0], vec![0.0, b, 50.0, 50.0]];
        let scores = |layers| TokenScores::new(layers, vec![0; 3]).unwrap();
        let measures = request.measures.cloned().unwrap();
        let measures = measures
            .with_token_measure(
                TokenMeasure::RowEntropy,
                scores(vec![layer(1.0, 1.0), layer(2.0, 2.0), layer(4.0, 0.0)]),
            )
            .with_token_measure(
                TokenMeasure::RowVariance,
                scores(vec![layer(0.1, 0.2), layer(0.3, 0.0), layer(0.6, 0.3)]),
            );
        request.measures = Some(&measures);
        // H·V = 2·0.3, 4·0.3, 4·0.9 = 1 : 2 : 6 of 9 tokens above 2.
        assert_eq!(
            allocated(&Cake::default(), &request),
            [[3, 3], [4, 4], [8, 8]]
        );
        // sqrt(H)·V² = 1·1, √2·1, √2·9 of 9: 0.594, 0.841, 7.565; what is left goes to the largest remainders.
        let rule = Cake {
            tau1: 2.0,
            tau2: 0.5,
        };
        assert_eq!(allocated(&rule, &request), [[3, 3], [3, 3], [9, 9]]);
    }

    #[test]
    fn layers_that_say_nothing_are_equal() {
        assert_eq!(
            Cake::default().preferences(&[0.0; 2], &[0.0; 2]),
            [1.0, 1.0]
        );
        assert!(
            Cake {
                tau1: 0.0,
                tau2: 1.0
            }
            .checked()
            .is_err()
        );
        assert!(
            Cake {
                tau1: 1.0,
                tau2: f64::NAN
            }
            .checked()
            .is_err()
        );
    }
}
