//! The charts of a report, small enough for a phone and drawn large on a screen.

use serde::Serialize;

use crate::error::Result;
use crate::eval::Results;
use crate::plot::{self, ChartOptions};

/// A chart with its words.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    /// Name of the chart, and of its place on the page.
    name: &'static str,
    /// What to see in it.
    caption: &'static str,
    /// The SVG element.
    svg: String,
}

/// What could be drawn, and why the rest could not.
pub(super) struct Charts {
    pub(super) drawn: Vec<Chart>,
    pub(super) absent: Vec<String>,
}

/// Charts of a report with their metrics, of which the first that the evaluation has is drawn.
const SHOWN: &[(&str, &[&str], &str)] = &[
    (
        "frontier",
        &["kl", "nll", "evidence"],
        "Quality against the bytes of the held KV cache, a line per method.",
    ),
    (
        "evidence",
        &[],
        "Share of the evidence tokens that each layer keeps.",
    ),
    (
        "needle",
        &["contains", "evidence"],
        "Needles by length of the haystack and depth, the full cache first.",
    ),
];

/// Draws every chart of [`SHOWN`] that `results` has the data for.
pub(super) fn charts(results: &Results, command: &str) -> Result<Charts> {
    let mut charts = Charts {
        drawn: Vec::new(),
        absent: Vec::new(),
    };
    for (name, metrics, caption) in SHOWN {
        match first(results, name, metrics, command) {
            Ok(svg) => charts.drawn.push(Chart { name, caption, svg }),
            Err(lack) if plot::is_lack(&lack) => charts.absent.push(format!("{name}: {lack}")),
            Err(fault) => return Err(fault),
        }
    }
    Ok(charts)
}

/// The chart of the first of `metrics` that there is, or the error of the last.
fn first(results: &Results, name: &str, metrics: &[&str], command: &str) -> Result<String> {
    let draw = |metric: Option<&str>| {
        let options = ChartOptions {
            metric: metric.map(str::to_owned),
            ..ChartOptions::default()
        };
        let one = std::slice::from_ref(results);
        plot::draw(name, one, &options, command).map(|figure| element(&figure.svg).to_owned())
    };
    let Some((last, others)) = metrics.split_last() else {
        return draw(None);
    };
    for metric in others {
        match draw(Some(metric)) {
            Err(lack) if plot::is_lack(&lack) => {}
            decided => return decided,
        }
    }
    draw(Some(last))
}

/// The document without its XML declaration, which HTML does not know.
fn element(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |start| &svg[start..])
}
