//! Value-aware pruning: attention times the length of what it would bring.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::{host_rows, l1_norms};
use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::compute::device::{RowPooling, pool_rows};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Attention that a token received times a norm of its value.
///
/// Paper: arXiv:2406.12335 (VATP), section 3. Differs: once, on the prompt; in the mean over the group; with
/// `norm=projected` the value is measured by what W_o makes of it, in the mean over the group too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueNorm {
    /// Whose attention.
    pub rows: Weights,
    /// Which norm.
    pub norm: Norm,
}

/// Rows whose attention counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// All rows of the prompt, as VATP has it over H2O.
    #[default]
    All,
    /// The window's rows, in their mean.
    Window,
}

/// Norms of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// ‖v‖₁.
    #[default]
    L1,
    /// ‖W_o v‖₁, by the columns of each query head.
    Projected,
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "value-norm",
    paper: "arXiv:2406.12335 (VATP), section 3",
    about: "attention received times the L1 norm of the value, or of what W_o makes of it",
    differs: "applied once to the prompt instead of at every step, in the mean over the group",
    build: |p| Ok(Box::new(parse::<ValueNorm>(p)?)),
};

impl Scorer for ValueNorm {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, window: usize) -> Needs {
        let of_window = self.rows == Weights::Window;
        Needs {
            window: if of_window { window.max(1) } else { 0 },
            all_rows: !of_window,
            values: self.norm == Norm::L1,
            projected_norms: self.norm == Norm::Projected,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let attention = match self.rows {
            Weights::All => observation.received()?,
            Weights::Window => observation.window_mean()?,
        };
        let mean = RowPooling::mean_of_groups(observation.group, observation.tokens);
        let attention = pool_rows(attention, mean)?;
        let norms = match self.norm {
            Norm::Projected => observation.group_norms()?.concat(),
            Norm::L1 => value_norms(observation)?.concat(),
        };
        let norms = Tensor::from_vec(norms, attention.dims2()?, attention.device())?;
        LayerScores::new((attention * norms)?)
    }
}

/// ‖v‖₁ of every value, `[kv_head][token]`.
pub(super) fn value_norms(observation: &LayerObservation<'_>) -> Result<Vec<Vec<f64>>> {
    let heads = observation.values()?.iter();
    let norms = heads.map(|values| Ok(l1_norms(&host_rows(values)?, values.dims2()?.1)));
    norms.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn attention_is_weighed_by_either_norm() {
        let received = Tensor::new(&[[1.0, 0.5], [3.0, 0.5]], &Device::Cpu).unwrap();
        let last = Tensor::new(&[[0.25, 0.75], [0.75, 0.25]], &Device::Cpu).unwrap();
        let values = [Tensor::new(&[[1f32, -2.0], [0.0, 8.0]], &Device::Cpu).unwrap()];
        let norms = [vec![1.0, 2.0], vec![3.0, 6.0]];
        let observation = LayerObservation {
            received: Some(&received),
            window_mean: Some(&last),
            values: Some(&values),
            projected_norms: Some(&norms),
            ..LayerObservation::of(2, 2, 1, &Device::Cpu)
        };
        let score = |rows, norm| {
            let scores = ValueNorm { rows, norm }.score(&observation).unwrap();
            scores.to_rows().unwrap()
        };
        assert_eq!(score(Weights::All, Norm::L1), [[2.0 * 3.0, 0.5 * 8.0]]);
        assert_eq!(
            score(Weights::All, Norm::Projected),
            [[2.0 * 2.0, 0.5 * 4.0]]
        );
        assert_eq!(score(Weights::Window, Norm::L1), [[1.5, 4.0]]);
    }
}
