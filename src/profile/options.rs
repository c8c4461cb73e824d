//! What a profile measures: window and thresholds, checked before anything runs.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::needs::Needs;
use super::threshold_name;
use crate::error::{Error, Result};
use crate::model::cache::Representation;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureOptions {
    /// Observation window w: how many of the last rows; `None` is every row.
    pub window: Option<usize>,
    /// Retained-mass thresholds of MBA, each above 0 and below 1.
    pub thresholds: Vec<f64>,
    /// Cosine thresholds of LMBO, each above 0 and below 1.
    pub output_thresholds: Vec<f64>,
    /// Types of the cache whose cost is measured, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantise: Vec<Representation>,
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
            quantise: Vec::new(),
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
        let mut types = self.quantise.iter().enumerate();
        match types.find(|(i, held_as)| self.quantise[..*i].contains(held_as)) {
            None => Ok(()),
            Some((_, twice)) => {
                let bound = "each type of the cache is named once";
                Err(Error::invalid("--quantise", twice, bound))
            }
        }
    }

    /// Refuses types of the cache that the heads of a model cannot have, and devices that do not code keys and values.
    ///
    /// Errors: as [`Representation::check_width`]; [`Error::Unsupported`] on devices other than the CPU.
    pub fn check_types(&self, head_dim: usize, device: &Device) -> Result<()> {
        if !self.quantise.is_empty() && !device.is_cpu() {
            return Err(Error::Unsupported {
                what: "--quantise on",
                found: format!("{:?}", device.location()),
                supported: "--device cpu".into(),
            });
        }
        let mut types = self.quantise.iter();
        types.try_for_each(|held_as| held_as.check_width(head_dim))
    }

    /// The types of the cache whose cost is measured; none where only a part is asked for.
    pub(super) fn types(&self) -> &[Representation] {
        if self.needs.is_some() {
            return &[];
        }
        &self.quantise
    }

    /// Rows that a prompt of `tokens` has in its window.
    pub fn rows(&self, tokens: usize) -> usize {
        self.window.unwrap_or(tokens).min(tokens)
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
        let types = |names: [&str; 2]| names.map(|name| name.parse().unwrap()).to_vec();
        let mut options = MeasureOptions {
            quantise: types(["q8", "k=q8,v=q8"]),
            ..MeasureOptions::default()
        };
        assert!(options.check().unwrap_err().to_string().contains("q8"));
        options.quantise = types(["q8", "q4_0"]);
        assert!(options.check().is_ok() && options.check_types(64, &Device::Cpu).is_ok());
        let said = options.check_types(80, &Device::Cpu).unwrap_err();
        assert!(said.to_string().contains("head dimension is 80"), "{said}");
    }
}
