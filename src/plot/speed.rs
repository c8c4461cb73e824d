//! Time per token and bytes held against context length: what a cache saves, and what it costs.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, inches, part, points};
use super::figure::{Figure, render};
use super::frame::{Frame, Panel};
use super::legend::{HEADING_MARGIN, Heading, Key};
use super::options::ChartOptions;
use super::pen::{PENS, Pen};
use super::text;
use crate::error::{Error, Result};
use crate::eval::speed::{Mode, Speed, Summary, summarise};

const PANEL_POINTS: f64 = 118.0;
const PANEL_GAP: f64 = 8.0;
const BOTTOM_POINTS: f64 = 1.5;

/// Room beyond the outermost values, as a factor.
const AIR: f64 = 1.25;

/// Most lengths that are labelled; more of them get the decades.
const MOST_LABELS: usize = 7;

const X_NAME: &str = "Context length (tokens)";
const TIME_NAME: &str = "Time per token (ms)";
const BYTES_NAME: &str = "KV cache held (MB)";

/// A mode at one length.
#[derive(Clone, Copy, Debug)]
struct Point {
    length: f64,
    middle: f64,
    low: f64,
    high: f64,
}

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
            entries.push((Key::Band, words));
        }
        let times = series.iter().flat_map(|s| &s.times);
        let bytes = series.iter().flat_map(|s| &s.megabytes);
        let mut chart = Self {
            size: (width, 0),
            heading: Heading::new(
                options.title.as_deref(),
                entries,
                width - points(HEADING_MARGIN),
            ),
            x: length_axis(&summaries),
            time: value_axis(times),
            bytes: value_axis(bytes),
            series,
        };
        let rows = if chart.side_by_side() { 1 } else { 2 };
        let frames = chart.frames(true);
        let gap = points(PANEL_GAP) + chart.frames(false)[0].bottom_room();
        chart.size.1 = chart.heading.height()
            + rows * chart.panel_height()
            + (rows - 1) * gap
            + frames[1].bottom_room()
            + points(BOTTOM_POINTS + 2.0);
        Ok(chart)
    }

    fn side_by_side(&self) -> bool {
        self.size.0 >= inches(5.0)
    }

    fn panel_height(&self) -> i32 {
        let names = [TIME_NAME, BYTES_NAME].map(text::width);
        points(PANEL_POINTS).max(names[0]).max(names[1])
    }

    /// Both frames; `named` gives the first its own name of x.
    fn frames(&self, named: bool) -> [Frame<'_>; 2] {
        let frame = |y, y_name, named: bool| Frame {
            x: &self.x,
            y,
            x_name: named.then_some(X_NAME),
            y_name: Some(y_name),
            grid: true,
        };
        [
            frame(&self.time, TIME_NAME, named),
            frame(&self.bytes, BYTES_NAME, true),
        ]
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

fn length_axis(summaries: &[Summary]) -> Axis {
    let mut lengths: Vec<f64> = summaries.iter().map(|s| s.length as f64).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.dedup();
    let first = lengths.first().copied().unwrap_or(1.0) / AIR;
    let last = lengths.last().copied().unwrap_or(1.0) * AIR;
    // Labels stay apart where lengths are half as long again as the one before.
    let apart = lengths.windows(2).all(|pair| pair[1] >= 1.5 * pair[0]);
    match apart && lengths.len() <= MOST_LABELS {
        true => Axis::log_at(first, last, lengths),
        false => Axis::log(first, last),
    }
}

fn value_axis<'p>(points: impl Iterator<Item = &'p Point> + Clone) -> Axis {
    let low = points.clone().map(|p| p.low).fold(f64::INFINITY, f64::min);
    let high = points.map(|p| p.high).fold(0.0, f64::max);
    match low.is_finite() {
        true => Axis::log(low / AIR, high * AIR),
        false => Axis::log(1.0, 10.0),
    }
}

/// Bands first, then lines, then markers, so that no band hides another series' line.
fn draw_series<DB: DrawingBackend>(panel: &Panel<'_, DB>, series: &[(Pen, &[Point])]) -> Drawn<DB> {
    let place = |all: &[Point], value: fn(&Point) -> f64| -> Vec<_> {
        let spots = all.iter().map(|p| panel.at(p.length, value(p)));
        spots.collect()
    };
    for (pen, all) in series {
        if all.iter().any(|p| p.low < p.high) {
            let (low, high) = (place(all, |p| p.low), place(all, |p| p.high));
            pen.band(&panel.sheet, &low, &high)?;
        }
    }
    for (pen, all) in series {
        pen.line(&panel.sheet, place(all, |p| p.middle))?;
    }
    for (pen, all) in series {
        for spot in place(all, |p| p.middle) {
            pen.mark(&panel.sheet, spot)?;
        }
    }
    Ok(())
}

impl Drawing for SpeedChart {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let [time, bytes] = self.frames(self.side_by_side());
        let left = time.left_room().max(bytes.left_room());
        let top = self.heading.height() + points(2.0);
        self.heading.draw(sheet, left)?;
        let width = self.size.0 - time.right_room();
        let height = self.panel_height();
        let (first, second) = if self.side_by_side() {
            let half = (width - points(PANEL_GAP)) / 2;
            let size = (half, height + time.bottom_room());
            (((0, top), size), ((half + points(PANEL_GAP), top), size))
        } else {
            let upper = height + time.bottom_room();
            let below = top + upper + points(PANEL_GAP);
            (
                ((0, top), (width, upper)),
                ((0, below), (width, height + bytes.bottom_room())),
            )
        };
        let times = self.series.iter().map(|s| (s.pen, &*s.times));
        let held = self.series.iter().map(|s| (s.pen, &*s.megabytes));
        let panel = time.draw(&part(sheet, first.0, first.1), left)?;
        draw_series(&panel, &times.collect::<Vec<_>>())?;
        let panel = bytes.draw(&part(sheet, second.0, second.1), left)?;
        draw_series(
            &panel,
            &held.filter(|(_, all)| !all.is_empty()).collect::<Vec<_>>(),
        )
    }
}
