//! What is asked of a profile, against what it measures.

use super::needs::{BudgetMeasure, CurveMeasure, LayerNumber, Needs};
use super::options::MeasureOptions;
use super::query::{Crossing, OutputMeasure, Query, Vector};
use super::threshold_name;
use super::work::Work;
use crate::error::{Error, Result};

impl MeasureOptions {
    /// What is asked for, everything where no part is named.
    pub fn asked(&self) -> Needs {
        let all = || Needs::all(self);
        self.needs.clone().unwrap_or_else(all)
    }

    /// The thresholds that budgets of attention are measured at, in the order in which [`super::MinimumBudgets`] holds
    /// them.
    pub fn attention_thresholds(&self) -> Vec<f64> {
        Work::of(self).thresholds
    }
}

impl Needs {
    /// Everything that an allocation can read of a profile.
    pub fn all(measured: &MeasureOptions) -> Self {
        let mut all = Self::default();
        for &threshold in &measured.thresholds {
            for query in Query::ALL {
                all.budgets.push(BudgetMeasure::Layers { query, threshold });
                all.budgets
                    .push(BudgetMeasure::KvHeads { query, threshold });
            }
        }
        for (vector, raw) in Vector::ALL
            .into_iter()
            .flat_map(|v| [(v, false), (v, true)])
        {
            for &threshold in &measured.output_thresholds {
                all.budgets
                    .extend(Crossing::ALL.map(|crossing| BudgetMeasure::Outputs {
                        vector,
                        threshold,
                        crossing,
                        raw,
                    }));
            }
            all.curves
                .extend(OutputMeasure::ALL.map(|measure| CurveMeasure::Output {
                    vector,
                    measure,
                    raw,
                }));
        }
        all.curves.extend(Vector::ALL.map(CurveMeasure::Mass));
        all.numbers.push(LayerNumber::PooledEntropy);
        all
    }

    /// Refuses thresholds that are not among those of a profile.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
    pub fn check(&self, measured: &MeasureOptions) -> Result<()> {
        self.budgets.iter().try_for_each(|m| m.check(measured))
    }
}

impl BudgetMeasure {
    /// The place of its threshold among `measured`.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
    pub(super) fn place(&self, measured: &[f64]) -> Result<usize> {
        let (Self::Layers { threshold, .. }
        | Self::KvHeads { threshold, .. }
        | Self::Outputs { threshold, .. }) = self;
        let name = threshold_name(*threshold);
        let place = measured.iter().position(|t| threshold_name(*t) == name);
        place.ok_or_else(|| {
            let measured: Vec<String> = measured.iter().map(f64::to_string).collect();
            let known = measured.iter().map(String::as_str);
            Error::unknown("threshold", &threshold.to_string(), known)
        })
    }

    /// Refuses a threshold that is not among those of a profile.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
    pub fn check(&self, measured: &MeasureOptions) -> Result<()> {
        let thresholds = match self {
            Self::Outputs { .. } => &measured.output_thresholds,
            _ => &measured.thresholds,
        };
        self.place(thresholds).map(drop)
    }
}
