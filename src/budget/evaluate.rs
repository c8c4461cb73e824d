//! What a profile's curves predict of a plan.

use super::curve::Curve;
use super::geometry::Geometry;
use super::measures::Measures;
use super::output_query::output_query;
use super::profile_curves::{loss_curves, mass_curves};
use crate::error::{Error, Result};
use crate::profile::{CurveMeasure, Needs, OutputMeasure, Profile, Query};

/// A profile's mean curves up to a prompt length.
#[derive(Clone, Debug)]
pub struct Predictor {
    geometry: Geometry,
    tokens: usize,
    mass: Vec<Curve>,
    cosine: Vec<Curve>,
    relative_l2: Vec<Curve>,
}

/// What is kept and lost, by the curves of the profile that was asked.
///
/// Shapes: mass `[layer][kv_head]`, losses `[layer]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Retained attention mass, 0 to 1.
    pub mass: Vec<Vec<f64>>,
    /// 1 − cos of the layer's output; `None` where its heads differ by more than a token, since outputs
    /// were measured with equal budgets for all heads of a layer.
    pub cosine_loss: Vec<Option<f64>>,
    /// ‖y − ŷ‖ / ‖y‖ of the layer's output; `None` as above.
    pub relative_l2: Vec<Option<f64>>,
}

impl Predictor {
    /// Reads the curves of `query` (`last` or `pooled`, renormalised outputs) up to `tokens`.
    ///
    /// Errors: for a profile without curves or columns, or with damaged ones.
    pub fn new(profile: &Profile, query: Query, tokens: usize) -> Result<Self> {
        let vector = output_query(query)?;
        let outputs = OutputMeasure::ALL.map(|measure| CurveMeasure::Output {
            vector,
            measure,
            raw: false,
        });
        let curves = [CurveMeasure::Mass(vector)].into_iter().chain(outputs);
        let measures = Measures::of_profile(profile, &curves.map(Needs::from).collect())?;
        measures.geometry().check()?;
        let loss = |measure| loss_curves(&measures, vector, measure, false, tokens);
        Ok(Self {
            geometry: measures.geometry().clone(),
            tokens,
            mass: mass_curves(&measures, vector, tokens)?,
            cosine: loss(OutputMeasure::Cosine)?,
            relative_l2: loss(OutputMeasure::RelativeL2)?,
        })
    }

    /// What token budgets `[layer][kv_head]` keep and lose.
    ///
    /// Errors: [`Error::Invalid`] for another number of layers or KV heads.
    pub fn predict(&self, kept: &[Vec<usize>]) -> Result<Prediction> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        if kept.len() != layers || kept.iter().any(|layer| layer.len() != kv_heads) {
            let bound = format!("the profile has {layers} layers of {kv_heads} KV heads");
            let what = "number of layers and KV heads";
            return Err(Error::invalid(what, "another", bound));
        }
        let mass = |(layer, curves): (&Vec<usize>, &[Curve])| {
            let pairs = layer.iter().zip(curves);
            pairs.map(|(&b, curve)| curve.at(b as f64)).collect()
        };
        let losses = |curves: &[Curve]| -> Vec<Option<f64>> {
            let pairs = kept.iter().zip(curves);
            let loss =
                |(layer, curve): (&Vec<usize>, &Curve)| Some(curve.at(mean_of_equal(layer)?));
            pairs.map(loss).collect()
        };
        let of_layers = kept.iter().zip(self.mass.chunks(kv_heads));
        Ok(Prediction {
            mass: of_layers.map(mass).collect(),
            cosine_loss: losses(&self.cosine),
            relative_l2: losses(&self.relative_l2),
        })
    }

    /// The prompt length that the curves reach to.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Mean budget of heads that are equal up to the token that a total leaves over.
fn mean_of_equal(layer: &[usize]) -> Option<f64> {
    let (least, most) = (layer.iter().min()?, layer.iter().max()?);
    let sum: usize = layer.iter().sum();
    (most - least <= 1).then(|| sum as f64 / layer.len() as f64)
}

impl Prediction {
    /// Mean retained mass over layers and KV heads.
    pub fn mean_mass(&self) -> f64 {
        let all: Vec<f64> = self.mass.concat();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    }

    /// Mean of 1 − cos over layers; `None` if any layer has none.
    pub fn mean_cosine_loss(&self) -> Option<f64> {
        mean(&self.cosine_loss)
    }

    /// Mean relative L2 error over layers; `None` if any layer has none.
    pub fn mean_relative_l2(&self) -> Option<f64> {
        mean(&self.relative_l2)
    }
}

fn mean(losses: &[Option<f64>]) -> Option<f64> {
    let known: Option<Vec<f64>> = losses.iter().copied().collect();
    known.map(|l| l.iter().sum::<f64>() / l.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::sample::Sample;

    #[test]
    fn predictions_by_hand() {
        let sample = Sample::default();
        let predictor = Predictor::new(&sample.profile(), Query::Pooled, 100).unwrap();
        // Mass and cos rise evenly to 1 at 10, 20, 58.
        let seen = predictor
            .predict(&[vec![5, 5], vec![3, 2], vec![58, 70]])
            .unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(seen.mass[0][0], 0.5) && close(seen.mass[1][0], 0.15));
        assert!(close(seen.mass[2][0], 1.0) && close(seen.mass[2][1], 1.0));
        assert!(close(seen.cosine_loss[0].unwrap(), 0.5));
        assert!(close(seen.cosine_loss[1].unwrap(), 0.875), "2.5 of 20");
        assert_eq!(seen.cosine_loss[2], None, "heads differ");
        assert_eq!(seen.mean_cosine_loss(), None);
        assert!(close(
            seen.mean_mass(),
            (0.5 + 0.5 + 0.15 + 0.1 + 2.0) / 6.0
        ));
        assert!(predictor.predict(&[vec![5, 5]]).is_err());
    }
}
