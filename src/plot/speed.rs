//! Time per token and bytes held against context length: what a cache saves, and what it costs.

use super::chart::Chart;
use super::figure::{Description, PENS, Panel, Point, Series};
use super::figure::{figure_width, keys, length_axis, log_axis, spread_ends};
use super::options::ChartOptions;
use super::over_length::{self, marked, repeats_entry, threads};
use super::source::{Source, SourceKind};
use crate::error::{Error, Result};
use crate::eval::speed::{Mode, Speed, Summary, summarise};

const HEIGHT: f64 = 114.0;

/// Two panels over context length, all axes logarithmic: median time per token with the range of its
/// repeats, and megabytes (10^6 bytes) of keys and values held; a line for every mode and budget.
///
/// Without a cache nothing is held, which the second panel does not show.
/// Units: milliseconds, megabytes, tokens.
/// Errors: [`Error::Invalid`] for more modes than pens, or none that was timed.
pub(super) const CHART: Chart = Chart {
    name: "speed",
    about: "time per token and bytes held against context length: no cache, full, budgets",
    needs: "1 measurement of kvprof speed",
    reads: &[],
    takes: SourceKind::Speeds,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let speed: &Speed = CHART.only(all)?;
    let summaries = summarise(&speed.measurements);
    let modes = modes(&summaries)?;
    let width = figure_width(options.width)?;
    let series = |point: fn(&Summary) -> Option<Point>| -> Vec<Series> {
        let of_mode = |(pen, mode): (_, &Mode)| {
            let mut own: Vec<_> = summaries.iter().filter(|s| s.mode == *mode).collect();
            own.sort_by_key(|s| s.length);
            Series::banded(pen, own.into_iter().filter_map(point).collect())
        };
        let all = PENS.into_iter().zip(&modes).map(of_mode);
        all.filter(|s| !s.points.is_empty()).collect()
    };
    let times = series(|s| {
        let ends = (s.least_ms, s.most_ms);
        Some(Point::between(s.length as f64, s.median_ms, ends))
    });
    // A logarithmic axis has no zero, which is what no cache holds.
    let held = series(|s| {
        let megabytes = s.kv_bytes as f64 / 1e6;
        (s.kv_bytes > 0).then(|| Point::alone(s.length as f64, megabytes))
    });
    let mut entries = keys(modes.iter().map(ToString::to_string));
    let repeats = summaries.iter().map(|s| s.repeats).max().unwrap_or(0);
    entries.extend(repeats_entry(repeats, &times));
    let x = length_axis(summaries.iter().map(|s| s.length as f64));
    let x = x.called("Context length (tokens)");
    let upright = |series: Vec<Series>, name: &str| {
        let y = log_axis(spread_ends(&series), HEIGHT).called(name);
        Panel::alone((&x, &y), HEIGHT, vec![marked(series)])
    };
    let meta = &speed.meta;
    let device = meta.model.device.to_lowercase();
    let facts = vec![
        format!("{}, {} on {device}", meta.model.name, meta.model.dtype).into(),
        threads(meta.settings.threads).into(),
    ];
    let times = upright(times, "Time per token (ms)");
    let panels = [times, upright(held, "KV cache held (MB)")].concat();
    let about = "Time per token and bytes held";
    Ok(over_length::describe(about, width, facts, entries, panels))
}

/// Every mode there is, in the order in which they were measured.
fn modes(summaries: &[Summary]) -> Result<Vec<Mode>> {
    let mut modes: Vec<Mode> = summaries.iter().map(|s| s.mode).collect();
    modes.sort_by_key(|mode| match mode {
        Mode::NoCache => (0, 0),
        Mode::Full => (1, 0),
        Mode::Budget(tokens) => (2, usize::MAX - tokens),
    });
    modes.dedup();
    if (1..=PENS.len()).contains(&modes.len()) {
        return Ok(modes);
    }
    let bound = format!("between 1 and {} can be told apart", PENS.len());
    let what = "number of modes for speed";
    Err(Error::invalid(what, modes.len(), bound))
}
