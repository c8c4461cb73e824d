//! The charts of a report, small enough for a phone and drawn large on a screen.

use serde::Serialize;

use crate::error::Result;
use crate::eval::Results;
use crate::plot::{self, ChartOptions};

/// A chart with its words.
#[derive(Debug, Serialize)]
pub(super) struct CaptionedChart {
    /// Name of the chart, and of its place on the page.
    name: &'static str,
    /// What to see in it.
    caption: &'static str,
    /// The SVG element.
    svg: String,
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

/// Every chart of [`SHOWN`] that `results` has the data for, and why the rest could not be drawn.
pub(super) fn charts(
    results: &Results,
    command: &str,
) -> Result<(Vec<CaptionedChart>, Vec<String>)> {
    let (mut drawn, mut absent) = (Vec::new(), Vec::new());
    for (name, metrics, caption) in SHOWN {
        match first(results, name, metrics, command) {
            Ok(svg) => drawn.push(CaptionedChart { name, caption, svg }),
            Err(lack) if plot::is_lack(&lack) => absent.push(format!("{name}: {lack}")),
            Err(fault) => return Err(fault),
        }
    }
    Ok((drawn, absent))
}

/// The chart of the first of `metrics` that there is, or the error of the last.
fn first(results: &Results, name: &str, metrics: &[&str], command: &str) -> Result<String> {
    let draw = |metric: Option<&str>| {
        let options = ChartOptions {
            metric: metric.map(str::to_owned),
            ..ChartOptions::default()
        };
        let one = std::slice::from_ref(results);
        let svg = plot::draw(name, one, &options, command)?.svg;
        // HTML does not know the XML declaration before the element.
        Ok(svg[svg.find("<svg").unwrap_or(0)..].to_owned())
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
