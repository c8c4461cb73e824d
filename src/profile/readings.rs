//! What a measure is of one layer, as its prefill left it.

use super::measures::{HeadMeasures, LayerMeasures, mean};
use super::needs::{BudgetMeasure, CurveMeasure, LayerNumber, Points};
use super::options::MeasureOptions;
use super::query::{Crossing, OutputMeasure};

impl BudgetMeasure {
    /// The budgets of one layer, one or one per KV head; `None` where they were not measured.
    ///
    /// Units: keys.
    pub fn of_layer(&self, layer: &LayerMeasures, measured: &MeasureOptions) -> Option<Vec<f64>> {
        let attention = measured.attention_thresholds();
        match *self {
            Self::Layers { query, .. } => {
                let place = self.place(&attention).ok()?;
                Some(vec![mean(&layer.budgets(query, place)?)])
            }
            Self::KvHeads { query, .. } => {
                let place = self.place(&attention).ok()?;
                let heads = layer.kv_heads.iter();
                heads.map(|head| head.of(query, place)).collect()
            }
            Self::Outputs {
                vector,
                crossing,
                raw,
                ..
            } => {
                let place = self.place(&measured.output_thresholds).ok()?;
                let curve = layer.output(vector).curve(raw);
                let threshold = measured.output_thresholds[place];
                let budget = match crossing {
                    Crossing::First => curve.first(threshold),
                    Crossing::Stable => curve.stable(threshold),
                };
                (!curve.budgets.is_empty()).then(|| vec![budget as f64])
            }
        }
    }
}

impl LayerNumber {
    /// The number of one layer; `None` where it was not measured.
    pub fn of_layer(&self, layer: &LayerMeasures) -> Option<f64> {
        match self {
            Self::PooledEntropy => {
                let entropies: Vec<f64> = layer.heads.iter().map(|head| head.entropy).collect();
                Some(mean(&entropies)).filter(|entropy| !entropy.is_nan())
            }
            Self::ResidualCosine => layer.residual_cosine,
        }
    }
}

impl CurveMeasure {
    /// The curves of one layer, one or one per query head, at the budgets of `grid`; `None` where they were not
    /// measured.
    pub fn of_layer(&self, layer: &LayerMeasures, grid: &[usize]) -> Option<Vec<Points>> {
        match *self {
            Self::Mass(vector) => {
                let curve = |head: &HeadMeasures| {
                    let mass = head.mass(vector);
                    let points = grid.iter().copied().zip(mass.iter().copied());
                    (mass.len() == grid.len()).then(|| points.collect())
                };
                layer.heads.iter().map(curve).collect()
            }
            Self::Output {
                vector,
                measure,
                raw,
            } => {
                let curve = layer.output(vector).curve(raw);
                let value = |budget: usize| {
                    let [cosine, relative_l2] = curve.at(budget);
                    match measure {
                        OutputMeasure::Cosine => cosine,
                        OutputMeasure::RelativeL2 => relative_l2,
                    }
                };
                let points = grid.iter().map(|&budget| (budget, value(budget)));
                (!curve.budgets.is_empty()).then(|| vec![points.collect()])
            }
        }
    }
}
