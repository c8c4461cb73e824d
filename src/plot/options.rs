//! What a chart shows, and how large.

use std::str::FromStr;

use super::figure::COLUMN;
use crate::error::{Error, Result};
use crate::profile::{Crossing, Query};

/// Where a layer of several models lies along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At its index l from 0.
    Index,
    /// At l/(L − 1): from 0, the first layer, to 1, the last.
    Relative,
}

impl Depth {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Index, Self::Relative];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Relative => "relative",
        }
    }
}

impl FromStr for Depth {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|depth| depth.name() == name);
        found.ok_or_else(|| Error::unknown("depth", name, known))
    }
}

/// What to show; every chart reads the options that it declares, and every one `title` and `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartOptions {
    /// Whose attention: `lmba` and `mba-heatmap` know all three, `lmbo` and `curves` not `rows`.
    pub query: Query,
    /// Retained mass τ of MBA and LMBA.
    pub threshold: f64,
    /// Cosines of LMBO, a line each.
    pub output_thresholds: Vec<f64>,
    /// Which crossing of a cosine: `lmbo`.
    pub crossing: Crossing,
    /// Whether outputs are those of probabilities left as they were, not renormalised: `lmbo`, `curves`.
    pub raw: bool,
    /// Where `lmba` and `lmbo` draw a layer; by default at its index where all models have as many layers, else at its
    /// relative depth.
    pub depth: Option<Depth>,
    /// Whether `lmba`, `lmbo`, `mba-heatmap` and `budgets` show per cent of T instead of tokens, and `frontier` per cent of
    /// the full cache instead of bytes.
    pub relative: bool,
    /// Whether the vertical axis of `lmba`, `budgets`, `frontier` and `residency` is logarithmic where it need not be.
    pub log: bool,
    /// What `frontier` and `needle` measure quality by, of [`crate::eval::METRICS`]; each has its own default.
    /// For `hitrate` `all` important keys, or those `beyond-sinks`; for `growth` seconds on the `wall`, or
    /// of `cpu`; for `residency` `bytes` of the cache, or `ms` per token.
    pub metric: Option<String>,
    /// Methods that `frontier`, `needle`, `evidence` and `residency` show, in this order, separated by commas; all by default.
    pub methods: Option<String>,
    /// The budget that `needle` and `evidence` show, as it was typed; the smallest by default.
    pub budget: Option<String>,
    /// Layers that `curves` draws; all of them by default.
    pub layers: Option<Vec<usize>>,
    /// Title above the figure; papers put a caption below instead.
    pub title: Option<String>,
    /// Width of the figure in inches: [`COLUMN`] or [`super::PAGE`], or between 2 and 12.
    pub width: f64,
}

/// An option that some charts read and others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChartOption {
    /// [`ChartOptions::query`].
    Query,
    /// [`ChartOptions::threshold`].
    Threshold,
    /// [`ChartOptions::output_thresholds`].
    OutputThresholds,
    /// [`ChartOptions::crossing`].
    Crossing,
    /// [`ChartOptions::raw`].
    Raw,
    /// [`ChartOptions::depth`].
    Depth,
    /// [`ChartOptions::relative`].
    Relative,
    /// [`ChartOptions::log`].
    Log,
    /// [`ChartOptions::metric`].
    Metric,
    /// [`ChartOptions::methods`].
    Methods,
    /// [`ChartOptions::budget`].
    Budget,
    /// [`ChartOptions::layers`], which the command line lacks.
    Layers,
}

impl ChartOption {
    /// Every one of them.
    pub const ALL: [Self; 12] = [
        Self::Query,
        Self::Threshold,
        Self::OutputThresholds,
        Self::Crossing,
        Self::Raw,
        Self::Depth,
        Self::Relative,
        Self::Log,
        Self::Metric,
        Self::Methods,
        Self::Budget,
        Self::Layers,
    ];

    /// Its name, as the command line has it after two dashes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Threshold => "threshold",
            Self::OutputThresholds => "output-thresholds",
            Self::Crossing => "crossing",
            Self::Raw => "raw",
            Self::Depth => "depth",
            Self::Relative => "relative",
            Self::Log => "log",
            Self::Metric => "metric",
            Self::Methods => "methods",
            Self::Budget => "budget",
            Self::Layers => "layers",
        }
    }
}

impl Default for ChartOptions {
    fn default() -> Self {
        Self {
            query: Query::Pooled,
            threshold: 0.9,
            output_thresholds: vec![0.9, 0.99, 0.999],
            crossing: Crossing::First,
            raw: false,
            depth: None,
            relative: false,
            log: false,
            metric: None,
            methods: None,
            budget: None,
            layers: None,
            title: None,
            width: COLUMN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert!(
            Query::ALL
                .into_iter()
                .all(|q| q.name().parse::<Query>().unwrap() == q)
        );
        assert!(
            Crossing::ALL
                .into_iter()
                .all(|c| c.name().parse::<Crossing>().unwrap() == c)
        );
        assert!(
            Depth::ALL
                .into_iter()
                .all(|d| d.name().parse::<Depth>().unwrap() == d)
        );
        let error = "deep".parse::<Depth>().unwrap_err().to_string();
        assert_eq!(error, "unknown depth 'deep'; known: index, relative");
        let error = "first".parse::<Query>().unwrap_err().to_string();
        assert!(error.contains("last, pooled, rows"), "{error}");
    }
}
