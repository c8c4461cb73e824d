//! What an evaluation measures, as a reader knows it: names, units, and which way is better.

use crate::error::{Error, Result};

/// Which end of a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Small values.
    Lower,
    /// Large values.
    Higher,
}

/// A column of `results.parquet` that judges quality.
#[derive(Debug, PartialEq)]
pub struct Metric {
    /// Column name, and its name on the command line.
    pub name: &'static str,
    /// What it is, without its unit.
    pub title: &'static str,
    /// Unit of the values that are shown.
    pub unit: &'static str,
    /// What a value of the table is multiplied by to be shown: 100 for shares, which are read in per cent.
    pub factor: f64,
    /// Which way is better.
    pub better: Better,
}

const fn share(name: &'static str, title: &'static str) -> Metric {
    Metric {
        name,
        title,
        unit: "%",
        factor: 100.0,
        better: Better::Higher,
    }
}

const fn nats(name: &'static str, title: &'static str) -> Metric {
    Metric {
        name,
        title,
        unit: "nats",
        factor: 1.0,
        better: Better::Lower,
    }
}

/// Every metric, fidelity to the full cache first.
pub const METRICS: &[Metric] = &[
    nats("kl", "KL from the full cache"),
    share("top1", "Top-1 agreement with the full cache"),
    nats("nll", "NLL of the gold answer"),
    share("f1", "F1"),
    share("em", "Exact match"),
    share("contains", "Answers that contain the gold"),
    share("evidence", "Evidence kept"),
];

impl Metric {
    /// The metric called `name`.
    ///
    /// Errors: [`Error::UnknownName`].
    pub fn find(name: &str) -> Result<&'static Self> {
        let found = METRICS.iter().find(|metric| metric.name == name);
        found.ok_or_else(|| Error::unknown("metric", name, METRICS.iter().map(|m| m.name)))
    }

    /// Whether values are shares, which lie between 0 and 100 %.
    pub fn is_share(&self) -> bool {
        self.unit == "%"
    }

    /// Name and unit, as an axis carries them.
    pub fn axis_name(&self) -> String {
        format!("{} ({})", self.title, self.unit)
    }
}
