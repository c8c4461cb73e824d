//! Charts of profiles, plans and measurements: one file each, averaging for display and measuring nothing.
//!
//! A chart says which kind of folder it reads and describes a figure of it; [`figure`] lays it out and draws it, as SVG
//! and as PNG. A new chart is one file and one row of [`CHARTS`].

mod budgets;
mod chart;
mod curve_data;
mod curves;
mod evidence;
mod figure;
mod frontier;
mod growth;
mod growth_words;
mod hit_rates;
mod layer_windows;
mod lines_of_types;
mod lmba;
mod lmbo;
mod mba_heatmap;
mod needle;
mod options;
mod outcomes;
mod over_layers;
mod over_length;
mod over_prompts;
mod plan_words;
mod profiles;
mod residency;
mod source;
mod speed;

#[cfg(test)]
mod tests;

pub use crate::profile::{Crossing, Query};
pub use chart::Chart;
pub use figure::{COLUMN, Figure, PAGE};
pub use options::{ChartOption, ChartOptions, Depth};
pub use source::{Source, SourceKind, of_type};

use crate::error::{Error, Result};

/// Every chart there is.
pub const CHARTS: &[Chart] = &[
    lmba::CHART,
    lmbo::CHART,
    mba_heatmap::CHART,
    curves::CHART,
    budgets::CHART,
    frontier::CHART,
    needle::CHART,
    evidence::CHART,
    hit_rates::CHART,
    speed::CHART,
    growth::CHART,
    residency::CHART,
];

/// The charts that read `option`, separated by commas.
pub fn readers(option: ChartOption) -> String {
    let readers = CHARTS.iter().filter(|chart| chart.reads.contains(&option));
    let names: Vec<&str> = readers.map(|chart| chart.name).collect();
    names.join(", ")
}

/// The chart called `name`.
///
/// Errors: [`Error::UnknownName`], listing the charts there are.
pub fn find(name: &str) -> Result<&'static Chart> {
    let found = CHARTS.iter().find(|chart| chart.name == name);
    found.ok_or_else(|| Error::unknown("chart", name, CHARTS.iter().map(|c| c.name)))
}

/// Draws the chart called `name` of `all`, as [`Chart::draw`] does.
///
/// Errors: [`Error::UnknownName`] for a chart that does not exist; those of [`Chart::draw`].
pub fn draw<S: Source>(
    name: &str,
    all: &[S],
    options: &ChartOptions,
    command: &str,
) -> Result<Figure> {
    let sources: Vec<&dyn Source> = all.iter().map(|source| source as &dyn Source).collect();
    find(name)?.draw(&sources, options, command)
}

/// Whether `error` says that a subject lacks what a chart needs, rather than that something is broken.
pub fn is_lack(error: &Error) -> bool {
    matches!(
        error,
        Error::UnknownName { .. } | Error::Invalid { .. } | Error::Unsupported { .. }
    )
}
