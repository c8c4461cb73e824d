//! Charts of profiles, plans and measurements: one file each, averaging for display and measuring nothing.
//!
//! A chart reads its [`Subject`] into a drawing, which is drawn twice, as SVG and as PNG, by one function that
//! is generic over plotters' backends. A new chart is one file and one row of [`CHARTS`].

mod axis;
mod budgets;
mod canvas;
mod colour_bar;
mod curve_data;
mod curves;
mod dashes;
mod evidence;
mod facts;
mod figure;
mod frame;
mod frontier;
mod growth;
mod growth_words;
mod held_quality;
mod hit_rates;
mod interval;
mod layer_series;
mod legend;
mod lmba;
mod lmbo;
mod log_ticks;
mod mba_heatmap;
mod needle;
mod options;
mod outcomes;
mod over_length;
mod panel_grid;
mod panels;
mod pen;
mod plan_words;
mod provenance;
mod raster;
mod series;
mod speed;
mod spread;
mod subject;
mod text;
mod tick_steps;

#[cfg(test)]
mod options_read;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod sample_costs;
#[cfg(test)]
mod tests;

pub use crate::profile::{Crossing, Query};
pub use canvas::{COLUMN, PAGE};
pub use figure::Figure;
pub use options::{ChartOption, ChartOptions};
pub use subject::{Subject, SubjectKind};

use crate::error::{Error, Result};
use options::ChartOption as Opt;
use subject::Painter;

/// A kind of chart.
pub struct Chart {
    /// Name on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// The columns it reads, and of how many profiles or plans.
    pub needs: &'static str,
    /// The options that it reads, besides title and width.
    pub reads: &'static [ChartOption],
    draw: Painter,
}

impl Chart {
    /// What it is drawn from.
    pub fn takes(&self) -> SubjectKind {
        self.draw.takes()
    }
}

/// The charts that read `option`, separated by commas.
pub fn readers(option: ChartOption) -> String {
    let readers = CHARTS.iter().filter(|chart| chart.reads.contains(&option));
    readers
        .map(|chart| chart.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Every chart there is.
pub const CHARTS: &[Chart] = &[
    Chart {
        name: "lmba",
        about: "LMBA per layer, a line per profile with the spread over prompts",
        needs: "layers: lmba_QUERY_THRESHOLD (with --relative: ..._of_t), of 1 to 7 profiles",
        reads: &[Opt::Query, Opt::Threshold, Opt::Relative, Opt::Log],
        draw: Painter::Profiles(lmba::draw),
    },
    Chart {
        name: "lmbo",
        about: "LMBO per layer, a line per output threshold, a panel per profile",
        needs: "layers: lmbo_QUERY_THRESHOLD_CROSSING, of 1 to 12 profiles",
        reads: &[Opt::Query, Opt::OutputThresholds, Opt::Crossing, Opt::Raw],
        draw: Painter::Profiles(lmbo::draw),
    },
    Chart {
        name: "mba-heatmap",
        about: "MBA of every layer and query head, mean over prompts",
        needs: "heads: mba_QUERY_THRESHOLD, of 1 profile",
        reads: &[Opt::Query, Opt::Threshold],
        draw: Painter::Profiles(mba_heatmap::draw),
    },
    Chart {
        name: "curves",
        about: "retained mass and 1 - cos of the output against the budget, a line per layer",
        needs: "curves: mass_QUERY, cos_QUERY, of 1 profile",
        reads: &[Opt::Query, Opt::Raw, Opt::Layers],
        draw: Painter::Profiles(curves::draw),
    },
    Chart {
        name: "budgets",
        about: "tokens per KV head of every layer, a line or panel per budget plan with the range over KV heads",
        needs: "1 to 24 plans; more than four have a panel each",
        reads: &[Opt::Relative, Opt::Log],
        draw: Painter::Plans(budgets::draw),
    },
    Chart {
        name: "frontier",
        about: "quality against held bytes, a line per method with 95 % intervals over prompts",
        needs: "results: METRIC, kv_bytes, full_bytes, of 1 evaluation with 1 to 24 methods besides full",
        reads: &[Opt::Metric, Opt::Methods, Opt::Relative, Opt::Log],
        draw: Painter::Results(frontier::draw),
    },
    Chart {
        name: "needle",
        about: "needles found by length and depth at one budget, a panel per method, the full cache first",
        needs: "results: METRIC, length, depth, of 1 evaluation of task needle with 1 to 24 methods",
        reads: &[Opt::Metric, Opt::Methods, Opt::Budget],
        draw: Painter::Results(needle::draw),
    },
    Chart {
        name: "evidence",
        about: "share of the evidence that each layer keeps at one budget, a line or panel per method",
        needs: "evidence: evidence, of 1 evaluation with 1 to 24 methods besides full",
        reads: &[Opt::Methods, Opt::Budget],
        draw: Painter::Results(evidence::draw),
    },
    Chart {
        name: "hitrate",
        about: "SnapKV's observations: hit rates and shared votes per layer, a line per window",
        needs: "hitrate: hits, steps, skipped, overlap, of 1 hit-rate run",
        reads: &[Opt::Metric],
        draw: Painter::HitRates(hit_rates::draw),
    },
    Chart {
        name: "speed",
        about: "time per token and bytes held against context length: no cache, full, budgets",
        needs: "1 measurement of kvprof speed",
        reads: &[],
        draw: Painter::Speeds(speed::draw),
    },
    Chart {
        name: "growth",
        about: "prefill time against prompt length, its fit and its floor, and what profiling adds",
        needs: "1 run of kvprof bench with prefill at 3 lengths or more",
        reads: &[Opt::Metric],
        draw: Painter::Benches(growth::draw),
    },
];

/// The chart called `name`.
///
/// Errors: [`Error::UnknownName`], listing the charts there are.
pub fn find(name: &str) -> Result<&'static Chart> {
    let found = CHARTS.iter().find(|chart| chart.name == name);
    found.ok_or_else(|| Error::unknown("chart", name, CHARTS.iter().map(|c| c.name)))
}

/// Draws the chart called `name`; `provenance` is the command line that asks for it, kept in both files.
///
/// Equal input gives equal bytes.
///
/// Errors: [`Error::UnknownName`] for a chart, threshold or column that does not exist,
/// [`Error::Unsupported`] for a query that the chart lacks, [`Error::Invalid`] for nothing to draw, for
/// another kind of subject than the chart takes, for too many of them, no prompt, or an option out of its
/// bounds, [`Error::NotFinite`].
pub fn draw<'s>(
    name: &str,
    subject: impl Into<Subject<'s>>,
    options: &ChartOptions,
    provenance: &str,
) -> Result<Figure> {
    let (chart, subject) = (find(name)?, subject.into());
    let record = provenance::record(name, subject, provenance);
    chart.draw.paint(name, subject, options, &record)
}

/// Whether `error` says that a subject lacks what a chart needs, rather than that something is broken.
pub fn is_lack(error: &Error) -> bool {
    matches!(
        error,
        Error::UnknownName { .. } | Error::Invalid { .. } | Error::Unsupported { .. }
    )
}
