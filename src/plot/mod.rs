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
mod figure;
mod frame;
mod legend;
mod lmba;
mod lmbo;
mod mba_heatmap;
mod options;
mod pen;
mod plan_names;
mod provenance;
mod raster;
mod series;
mod speed;
mod spread;
mod subject;
mod text;

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

pub use crate::profile::{Crossing, Query};
pub use canvas::{COLUMN, PAGE};
pub use figure::Figure;
pub use options::ChartOptions;
pub use subject::{Subject, SubjectKind};

use crate::error::{Error, Result};
use subject::Painter;

/// A kind of chart.
pub struct Chart {
    /// Name on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// The columns it reads, and of how many profiles, plans or measurements.
    pub needs: &'static str,
    draw: Painter,
}

impl Chart {
    /// What it is drawn from.
    pub fn takes(&self) -> SubjectKind {
        self.draw.takes()
    }
}

/// Every chart there is.
pub const CHARTS: &[Chart] = &[
    Chart {
        name: "lmba",
        about: "LMBA per layer, a line per profile with the spread over prompts",
        needs: "layers: lmba_QUERY_THRESHOLD (with --relative: ..._of_t), of 1 to 7 profiles",
        draw: Painter::Profiles(lmba::draw),
    },
    Chart {
        name: "lmbo",
        about: "LMBO per layer, a line per output threshold, a panel per profile",
        needs: "layers: lmbo_QUERY_THRESHOLD_CROSSING, of 1 to 12 profiles",
        draw: Painter::Profiles(lmbo::draw),
    },
    Chart {
        name: "mba-heatmap",
        about: "MBA of every layer and query head, mean over prompts",
        needs: "heads: mba_QUERY_THRESHOLD, of 1 profile",
        draw: Painter::Profiles(mba_heatmap::draw),
    },
    Chart {
        name: "curves",
        about: "retained mass and 1 - cos of the output against the budget, a line per layer",
        needs: "curves: mass_QUERY, cos_QUERY, of 1 profile",
        draw: Painter::Profiles(curves::draw),
    },
    Chart {
        name: "budgets",
        about: "tokens per KV head of every layer, a line per budget plan with the spread over KV heads",
        needs: "1 to 7 plans",
        draw: Painter::Plans(budgets::draw),
    },
    Chart {
        name: "speed",
        about: "time per token and bytes held against context length: no cache, full, budgets",
        needs: "1 measurement of kvprof speed",
        draw: Painter::Speeds(speed::draw),
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
/// plans where profiles are drawn or the reverse, for too many of them, no prompt, or an option out of its
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
