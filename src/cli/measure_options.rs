//! What is measured of attention, as the verbs take it that make profiles.

use std::str::FromStr;

use kvprof::model::cache::Representation;
use kvprof::profile::MeasureOptions;

/// Thresholds, and types of the cache.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct MeasureArguments {
    /// Retained-mass thresholds of MBA
    #[arg(long, value_delimiter = ',', default_values_t = MeasureOptions::default().thresholds)]
    thresholds: Vec<f64>,
    /// Cosine thresholds of LMBO
    #[arg(long, value_delimiter = ',', default_values_t = MeasureOptions::default().output_thresholds)]
    output_thresholds: Vec<f64>,
    /// Types of the cache whose cost is measured, separated by `;`: f16, q8, q4, q2, k=q8,v=q4, q8_0, ..; none by default
    #[arg(long, value_name = "TYPES", value_delimiter = ';')]
    quantise: Vec<Representation>,
}

impl MeasureArguments {
    /// What is measured of the rows of a window.
    ///
    /// Errors: those of [`MeasureOptions::check`].
    pub fn options(&self, window: Option<usize>) -> anyhow::Result<MeasureOptions> {
        let options = MeasureOptions {
            window,
            thresholds: self.thresholds.clone(),
            output_thresholds: self.output_thresholds.clone(),
            quantise: self.quantise.clone(),
            needs: None,
        };
        options.check()?;
        Ok(options)
    }
}

/// An observation window: a number of rows, or all.
#[derive(Clone, Copy, Debug)]
pub struct Window(pub Option<usize>);

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|w| Self(Some(w)))
                .map_err(|_| "expected a number or `all`".into()),
        }
    }
}
