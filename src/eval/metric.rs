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

/// A number that is measured for every prompt, method and budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Column of the results table.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Unit of the column: "share", "nats", "tokens", "bytes".
    pub unit: &'static str,
    /// Which values are good.
    pub direction: Direction,
    /// Decimals that a table shows.
    pub decimals: usize,
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    direction: Direction,
    decimals: usize,
    about: &'static str,
) -> Metric {
    Metric {
        name,
        about,
        unit,
        direction,
        decimals,
    }
}

use Direction::{Higher, Lower, Neutral};

/// Every metric there is, in the order of tables. A results table need not hold all.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("f1", "share", Higher, 3, "token F1 of the answer, best of the accepted answers (LongBench)"),
    metric("em", "share", Higher, 3, "answers that equal an accepted one after normalisation"),
    metric("contains", "share", Higher, 3, "answers that contain an accepted one; of RULER's outputs, the share"),
    metric("nll", "nats", Lower, 3, "negative log-likelihood of the gold answer, per token"),
    metric("kl", "nats", Lower, 4, "mean KL divergence of the next token, full cache to cut cache"),
    metric("top1", "share", Higher, 3, "steps at which the likeliest token is the full cache's"),
    metric("evidence", "share", Higher, 3, "evidence tokens that are still cached"),
    metric("budget_tokens", "tokens", Neutral, 1, "tokens kept per KV head, mean over layers and KV heads"),
    metric("kv_bytes", "bytes", Neutral, 2, "bytes of the keys and values held"),
];

/// The metric called `name`.
///
/// Errors: [`Error::UnknownName`], listing the metrics there are.
pub fn find(name: &str) -> Result<&'static Metric> {
    let found = METRICS.iter().find(|metric| metric.name == name);
    found.ok_or_else(|| Error::unknown("metric", name, METRICS.iter().map(|m| m.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_only_name() {
        for metric in METRICS {
            assert_eq!(find(metric.name).unwrap(), metric);
        }
        let refused = find("rouge").unwrap_err().to_string();
        assert!(refused.contains("'rouge'") && refused.contains("kv_bytes"));
    }
}
