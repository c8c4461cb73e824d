//! The numbers of an evaluation: their names, units and which way is good.

use serde::Serialize;

use crate::error::{Error, Result};

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
    /// Neither: a cost or a setting, of which means are reported and no verdict.
    Neutral,
}

/// A number that is measured for every prompt, method and budget: a column of the results table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Column name, and its name on the command line.
    pub name: &'static str,
    /// What charts call it, without its unit.
    pub title: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Unit of the column: "share", "nats", "nats per token", "tokens", "bytes".
    pub unit: &'static str,
    /// Which values are good.
    pub direction: Direction,
    /// Decimals that a terminal table shows.
    pub decimals: usize,
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    direction: Direction,
    decimals: usize,
    title: &'static str,
    about: &'static str,
) -> Metric {
    Metric {
        name,
        title,
        about,
        unit,
        direction,
        decimals,
    }
}

use Direction::{Higher, Lower, Neutral};

/// Every metric there is, fidelity to the full cache first. A results table need not hold all.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("kl", "nats", Lower, 4, "KL from the full cache", "mean KL divergence of the next token, full cache to cut cache"),
    metric("top1", "share", Higher, 3, "Top-1 agreement with the full cache", "steps at which the likeliest token is the full cache's"),
    metric("nll", "nats per token", Lower, 3, "NLL of the gold answer", "negative log-likelihood of the likeliest accepted answer"),
    metric("f1", "share", Higher, 3, "F1", "token F1 of the answer, best of the accepted answers (LongBench)"),
    metric("em", "share", Higher, 3, "Exact match", "answers that equal an accepted one after normalisation"),
    metric("contains", "share", Higher, 3, "Answers that contain the gold", "answers that contain an accepted one; for RULER the share of its outputs"),
    metric("evidence", "share", Higher, 3, "Evidence kept", "evidence tokens that are still cached"),
    metric("budget_tokens", "tokens", Neutral, 1, "Tokens kept", "tokens kept per KV head, mean over layers and KV heads"),
    metric("kv_bytes", "bytes", Neutral, 0, "Held KV cache", "bytes of the keys and values held"),
];

impl Metric {
    /// Metrics that judge quality; the others are costs.
    pub fn of_quality() -> impl Iterator<Item = &'static Self> {
        METRICS.iter().filter(|m| m.direction != Neutral)
    }

    /// The metric of quality called `name`.
    ///
    /// Errors: [`Error::UnknownName`], listing the metrics there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        let found = Self::of_quality().find(|metric| metric.name == name);
        found.ok_or_else(|| Error::unknown("metric", name, Self::of_quality().map(|m| m.name)))
    }

    /// Whether values are shares, which charts and pages show in per cent.
    pub fn is_share(&self) -> bool {
        self.unit == "share"
    }

    /// What a value is multiplied by to be shown in [`Metric::shown_unit`].
    pub fn factor(&self) -> f64 {
        if self.is_share() { 100.0 } else { 1.0 }
    }

    /// The unit that charts and pages show.
    pub fn shown_unit(&self) -> &'static str {
        if self.is_share() { "%" } else { self.unit }
    }

    /// Title and unit, as an axis carries them.
    pub fn axis_name(&self) -> String {
        format!("{} ({})", self.title, self.shown_unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_quality_are_found_by_their_only_name() {
        for metric in Metric::of_quality() {
            assert_eq!(Metric::find(metric.name).unwrap(), metric);
        }
        let refused = Metric::find("rouge").unwrap_err().to_string();
        assert!(refused.contains("'rouge'") && refused.contains("contains"));
        assert!(Metric::find("kv_bytes").is_err());
    }

    #[test]
    fn shares_are_shown_in_per_cent() {
        let shown = |name| Metric::find(name).unwrap().axis_name();
        assert_eq!(shown("f1"), "F1 (%)");
        assert_eq!(shown("nll"), "NLL of the gold answer (nats per token)");
    }
}
