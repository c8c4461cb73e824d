//! Time per token and bytes held against context length: what a cache saves, and what it costs.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, name_room, points};
use super::facts;
use super::figure::{Figure, render};
use super::legend::{HEADING_MARGIN, Heading, Key};
use super::options::ChartOptions;
use super::over_length::{Point, band_key, draw_series, length_axis, value_axis};
use super::panels::{Panels, Upright};
use super::pen::{PENS, Pen};
use crate::error::{Error, Result};
use crate::eval::speed::{Mode, Speed, Summary, summarise};

const PANEL_POINTS: f64 = 114.0;

const X_NAME: &str = "Context length (tokens)";
const TIME_NAME: &str = "Time per token (ms)";
const BYTES_NAME: &str = "KV cache held (MB)";

struct Series {
    pen: Pen,
    times: Vec<Point>,
    /// Empty without a cache: a logarithmic axis has no zero.
    megabytes: Vec<Point>,
}

struct SpeedChart {
    size: (i32, i32),
    heading: Heading,
    x: Axis,
    time: Axis,
    bytes: Axis,
    /// Of x, time and bytes.
    names: [String; 3],
    series: Vec<Series>,
}

/// Draws two panels over context length, all axes logarithmic: median time per token with the range of its
/// repeats, and megabytes (10^6 bytes) of keys and values held; a line for every mode and budget.
///
/// Without a cache nothing is held, which the second panel does not show.
/// Units: milliseconds, megabytes, tokens.
/// Errors: [`Error::Invalid`] for several measurements, more modes than pens, or none that was timed.
pub(super) fn draw(speeds: &[Speed], options: &ChartOptions, record: &str) -> Result<Figure> {
    let [speed] = speeds else {
        return Err(Error::invalid(
            "number of speeds for speed",
            speeds.len(),
            "this chart draws one at a time; run it once per measurement",
        ));
    };
    let chart = SpeedChart::read(speed, options)?;
    render(&chart, "Time per token and bytes held", record)
}

impl SpeedChart {
    fn read(speed: &Speed, options: &ChartOptions) -> Result<Self> {
        let summaries = summarise(&speed.measurements);
        let modes = modes(&summaries)?;
        let width = figure_width(options.width)?;
        let pens = PENS.into_iter().zip(&modes);
        let series: Vec<Series> = pens
            .map(|(pen, mode)| Series::of(pen, *mode, &summaries))
            .collect();
        let keys = series.iter().map(|s| Key::Series(s.pen));
        let words = modes.iter().map(Mode::to_string);
        let mut entries: Vec<(Key, String)> = keys.zip(words).collect();
        let repeats = summaries.iter().map(|s| s.repeats).max().unwrap_or(0);
        if repeats > 1 {
            let words = format!("min\u{2013}max of {repeats} repeats");
            let bands = series.iter().map(|s| (s.pen, &*s.times));
            entries.push((band_key(bands), words));
        }
        let ranges = |of: fn(&Series) -> &[Point]| {
            let ranges = series.iter().flat_map(of).map(|p| (p.low, p.high));
            value_axis(ranges, PANEL_POINTS)
        };
        let (time, bytes) = (ranges(|s| &s.times), ranges(|s| &s.megabytes));
        let x = length_axis(summaries.iter().map(|s| s.length));
        let height = points(PANEL_POINTS);
        let mut chart = Self {
            size: (width, 0),
            heading: Heading::new(
                options.title.as_deref(),
                facts::of_speed(&speed.meta),
                entries,
                width - points(HEADING_MARGIN),
            ),
            names: [
                x.named(X_NAME, name_room(width)),
                time.named(TIME_NAME, height),
                bytes.named(BYTES_NAME, height),
            ],
            x,
            time,
            bytes,
            series,
        };
        chart.size.1 = chart.heading.height() + chart.panels().total_height();
        Ok(chart)
    }

    fn panels(&self) -> Panels<'_> {
        let upright = |y, name| Upright {
            y,
            name,
            height: PANEL_POINTS,
        };
        let [x_name, time, bytes] = &self.names;
        Panels {
            width: self.size.0,
            x: &self.x,
            x_name,
            uprights: vec![upright(&self.time, time), upright(&self.bytes, bytes)],
        }
    }
}

impl Series {
    fn of(pen: Pen, mode: Mode, summaries: &[Summary]) -> Self {
        let mut own: Vec<&Summary> = summaries.iter().filter(|s| s.mode == mode).collect();
        own.sort_by_key(|s| s.length);
        let times = own.iter().map(|s| Point {
            length: s.length as f64,
            middle: s.median_ms,
            low: s.least_ms,
            high: s.most_ms,
        });
        let held = own.iter().filter(|s| s.kv_bytes > 0);
        let megabytes = held.map(|s| {
            let held = s.kv_bytes as f64 / 1e6;
            Point {
                length: s.length as f64,
                middle: held,
                low: held,
                high: held,
            }
        });
        Self {
            pen,
            times: times.collect(),
            megabytes: megabytes.collect(),
        }
    }
}

/// Every mode there is, in the order in which they were measured.
fn modes(summaries: &[Summary]) -> Result<Vec<Mode>> {
    let mut modes: Vec<Mode> = summaries.iter().map(|s| s.mode).collect();
    let order = |mode: &Mode| match mode {
        Mode::NoCache => (0, 0),
        Mode::Full => (1, 0),
        Mode::Budget(tokens) => (2, usize::MAX - tokens),
    };
    modes.sort_by_key(order);
    modes.dedup();
    if (1..=PENS.len()).contains(&modes.len()) {
        return Ok(modes);
    }
    let bound = format!("between 1 and {} can be told apart", PENS.len());
    Err(Error::invalid(
        "number of modes for speed",
        modes.len(),
        bound,
    ))
}

impl Drawing for SpeedChart {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let (panels, top) = (self.panels(), self.heading.height());
        self.heading.draw(sheet, panels.left())?;
        let times = self.series.iter().map(|s| (s.pen, &*s.times));
        let held = self.series.iter().map(|s| (s.pen, &*s.megabytes));
        draw_series(&panels.draw(sheet, top, 0)?, &times.collect::<Vec<_>>())?;
        let held: Vec<_> = held.filter(|(_, all)| !all.is_empty()).collect();
        draw_series(&panels.draw(sheet, top, 1)?, &held)
    }
}
