//! What a profile measures: window and thresholds, checked before anything runs.

use serde::{Deserialize, Serialize};

use super::needs::{BudgetMeasure, CurveMeasure, Needs};
use super::query::{Crossing, OutputMeasure, Query, Vector};
use super::threshold_name;
use crate::error::{Error, Result};

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureOptions {
    /// Observation window w: how many of the last rows; `None` is every row.
    pub window: Option<usize>,
    /// Retained-mass thresholds of MBA, each above 0 and below 1.
    pub thresholds: Vec<f64>,
    /// Cosine thresholds of LMBO, each above 0 and below 1.
    pub output_thresholds: Vec<f64>,
    /// What is asked for of all that; `None` is everything, as a profile has it.
    ///
    /// A part is measured as everything would be, to the last bit.
    #[serde(skip)]
    pub needs: Option<Needs>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self {
            window: Some(32),
            thresholds: vec![0.5, 0.8, 0.9, 0.95, 0.99],
            output_thresholds: vec![0.8, 0.9, 0.95, 0.99, 0.999],
            needs: None,
        }
    }
}

impl MeasureOptions {
    /// Refuses what cannot be measured.
    ///
    /// Errors: [`Error::Invalid`] for a window of 0, thresholds outside (0, 1], repeated or none.
    pub fn check(&self) -> Result<()> {
        if self.window == Some(0) {
            let bound = "at least one row must be observed";
            return Err(Error::invalid("--window", 0, bound));
        }
        for (what, list) in [
            ("--thresholds", &self.thresholds),
            ("--output-thresholds", &self.output_thresholds),
        ] {
            if list.is_empty() {
                let bound = "at least one threshold is needed";
                return Err(Error::invalid(what, "empty", bound));
            }
            // At 1 the answer would hang on which tiny terms a float sum still feels.
            if let Some(bad) = list.iter().find(|t| !(**t > 0.0 && **t < 1.0)) {
                let bound = "a threshold lies above 0 and below 1";
                return Err(Error::invalid(what, bad, bound));
            }
            let mut names: Vec<_> = list.iter().map(|t| threshold_name(*t)).collect();
            names.sort();
            if names.windows(2).any(|w| w[0] == w[1]) {
                let bound = "each threshold is named once";
                return Err(Error::invalid(what, format!("{list:?}"), bound));
            }
        }
        Ok(())
    }

    /// What is asked for, everything where no part is named.
    pub fn asked(&self) -> Needs {
        let all = || Needs::all(self);
        self.needs.clone().unwrap_or_else(all)
    }

    /// Rows that a prompt of `tokens` has in its window.
    pub fn rows(&self, tokens: usize) -> usize {
        self.window.unwrap_or(tokens).min(tokens)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_bounds_are_refused() {
        let with = |f: fn(&mut MeasureOptions)| {
            let mut options = MeasureOptions::default();
            f(&mut options);
            options.check()
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|o| o.window = None).is_ok());
        assert!(with(|o| o.window = Some(0)).is_err());
        assert!(with(|o| o.thresholds = vec![0.0]).is_err());
        assert!(with(|o| o.thresholds = vec![1.0]).is_err());
        assert!(with(|o| o.thresholds = vec![f64::NAN]).is_err());
        assert!(with(|o| o.thresholds = vec![0.9, 0.9]).is_err());
        assert!(with(|o| o.output_thresholds = vec![]).is_err());
    }
}
