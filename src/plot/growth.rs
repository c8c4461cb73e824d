//! Time of prefill against prompt length, its fit and its floor, and what profiling takes on top.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, name_room, points};
use super::facts;
use super::figure::{Figure, render};
use super::frame::Panel;
use super::growth_words as words;
use super::legend::{HEADING_MARGIN, Heading, Key, words_room};
use super::options::ChartOptions;
use super::over_length::{Point, band_key, draw_series, length_axis, value_axis};
use super::panels::{Panels, Upright};
use super::pen::{PENS, Pen, REFERENCE, fit_line};
use crate::bench::{Bench, Growth, SavedRow};
use crate::error::{Error, Result};
use crate::eval::RepeatSpread;

const TIME_POINTS: f64 = 118.0;
const RATIO_POINTS: f64 = 82.0;

const X_NAME: &str = "Prompt length T (tokens)";

/// Points along a fitted curve: enough to look continuous.
const FINE: usize = 64;

/// Workloads over whole prompts that are shown where they were measured, the bare one first.
const SHOWN: [(&str, &str); 4] = [
    (BARE, "bare prefill"),
    ("profile-32", "profile of 32 rows"),
    ("profile-128", "profile of 128 rows"),
    ("profile-all", "profile of all rows"),
];

/// What every other one is divided by.
const BARE: &str = "prefill";

/// Which seconds are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clock {
    Wall,
    Cpu,
}

struct Series {
    pen: Pen,
    name: &'static str,
    seconds: Vec<Point>,
    /// Empty for the bare one, which all are divided by.
    ratios: Vec<Point>,
}

struct GrowthChart {
    size: (i32, i32),
    heading: Heading,
    clock: Clock,
    x: Axis,
    time: Axis,
    x_name: String,
    time_name: String,
    /// `None` where nothing but the bare one was measured.
    ratio: Option<Axis>,
    series: Vec<Series>,
    /// a·T + b·T² as fitted.
    fit: Vec<(f64, f64)>,
    /// The same of the operations at the machine's limit; empty where none was measured.
    floor: Vec<(f64, f64)>,
}

/// Draws seconds over prompt length, both logarithmic, and below or beside them the ratio to bare prefill:
/// medians with the range of their repeats, a line for every workload that goes over whole prompts.
///
/// The fit of bare prefill is dashed, its operations at the machine's limit are dotted. A ratio is that of the
/// same repeat, so that its median is not that of the medians drawn beside it.
/// Units: seconds, on the wall or of CPU time; tokens.
/// Errors: [`Error::Invalid`] for several runs, fewer than three lengths of bare prefill, or CPU seconds that
/// the system did not tell; [`Error::UnknownName`] for another metric than `wall` and `cpu`.
pub(super) fn draw(benches: &[Bench], options: &ChartOptions, record: &str) -> Result<Figure> {
    let [bench] = benches else {
        return Err(Error::invalid(
            "number of bench runs for growth",
            benches.len(),
            "this chart draws one at a time; run it once per bench run",
        ));
    };
    let chart = GrowthChart::read(bench, options)?;
    render(&chart, "Prefill time against prompt length", record)
}

impl Clock {
    fn of(metric: Option<&str>) -> Result<Self> {
        match metric.unwrap_or("wall") {
            "wall" => Ok(Self::Wall),
            "cpu" => Ok(Self::Cpu),
            other => Err(Error::unknown("metric", other, ["wall", "cpu"])),
        }
    }

    /// Seconds and ratio of a row.
    fn read(self, row: &SavedRow) -> Result<(RepeatSpread, RepeatSpread)> {
        let untold = || {
            let what = format!("CPU time of {} at {} tokens", row.workload, row.length);
            Error::invalid(what, "not known", "only --metric wall can be drawn of it")
        };
        match self {
            Self::Wall => Ok((row.wall, row.ratio)),
            Self::Cpu => Ok((
                row.cpu.ok_or_else(untold)?,
                row.cpu_ratio.ok_or_else(untold)?,
            )),
        }
    }

    fn growth(self, bench: &Bench) -> Option<&Growth> {
        match self {
            Self::Wall => bench.growth.as_ref(),
            Self::Cpu => bench.cpu_growth.as_ref(),
        }
    }

    fn time_name(self) -> &'static str {
        match self {
            Self::Wall => "Time (s)",
            Self::Cpu => "CPU time (s)",
        }
    }

    fn ratio_name(self) -> &'static str {
        match self {
            Self::Wall => "Time over prefill",
            Self::Cpu => "CPU time over prefill",
        }
    }
}

impl GrowthChart {
    fn read(bench: &Bench, options: &ChartOptions) -> Result<Self> {
        let clock = Clock::of(options.metric.as_deref())?;
        let width = figure_width(options.width)?;
        let series = series(bench, clock)?;
        let (growth, ends) = growth(bench, clock, &series)?;
        let fit = curve(growth.linear, growth.quadratic, ends);
        let at_limit = growth.linear_at_limit.zip(growth.quadratic_at_limit);
        let floor = at_limit.map_or(Vec::new(), |(a, b)| curve(a, b, ends));
        let measured = series.iter().flat_map(|s| &s.seconds);
        let lengths = measured.clone().map(|p| p.length as usize);
        let ranges = measured.map(|p| (p.low, p.high));
        let curves = fit.iter().chain(&floor).map(|(_, s)| (*s, *s));
        let entries = entries(&series, growth, !floor.is_empty(), bench.repeats, width);
        let x = length_axis(lengths);
        let time = value_axis(ranges.chain(curves), TIME_POINTS);
        let mut chart = Self {
            size: (width, 0),
            heading: Heading::new(
                options.title.as_deref(),
                facts::of_bench(bench),
                entries,
                width - points(HEADING_MARGIN),
            ),
            clock,
            x_name: x.named(X_NAME, name_room(width)),
            x,
            time_name: time.named(clock.time_name(), points(TIME_POINTS)),
            time,
            ratio: ratio_axis(series.iter().flat_map(|s| &s.ratios)),
            series,
            fit,
            floor,
        };
        chart.size.1 = chart.heading.height() + chart.panels().total_height();
        Ok(chart)
    }

    fn panels(&self) -> Panels<'_> {
        let time = Upright {
            y: &self.time,
            name: &self.time_name,
            height: TIME_POINTS,
        };
        let ratio = self.ratio.as_ref().map(|y| Upright {
            y,
            name: self.clock.ratio_name(),
            height: RATIO_POINTS,
        });
        Panels {
            width: self.size.0,
            x: &self.x,
            x_name: &self.x_name,
            uprights: [Some(time), ratio].into_iter().flatten().collect(),
        }
    }

    fn draw_times<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>) -> Drawn<DB> {
        let place = |curve: &[(f64, f64)]| -> Vec<_> {
            let spots = curve.iter().map(|&(length, s)| panel.at(length, s));
            spots.collect()
        };
        if !self.floor.is_empty() {
            REFERENCE.line(&panel.sheet, place(&self.floor))?;
        }
        let all: Vec<_> = self.series.iter().map(|s| (s.pen, &*s.seconds)).collect();
        draw_series(panel, &all)?;
        fit_line(&panel.sheet, place(&self.fit))
    }

    /// Bare prefill is its own ratio: the line at 1 is drawn as its series is.
    fn draw_ratios<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>) -> Drawn<DB> {
        let (bare, profiles): (Vec<_>, Vec<_>) =
            self.series.iter().partition(|s| s.ratios.is_empty());
        for series in bare {
            let ends = [self.x.low(), self.x.high()].map(|length| panel.at(length, 1.0));
            series.pen.line(&panel.sheet, ends.to_vec())?;
        }
        let all: Vec<_> = profiles.iter().map(|s| (s.pen, &*s.ratios)).collect();
        draw_series(panel, &all)
    }
}

/// The series of every workload of [`SHOWN`] that was measured, each with its own pen whichever others are
/// there.
fn series(bench: &Bench, clock: Clock) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for ((workload, name), pen) in SHOWN.into_iter().zip(PENS) {
        let mut rows: Vec<_> = (bench.rows.iter())
            .filter(|row| row.workload == workload)
            .collect();
        rows.sort_by_key(|row| row.length);
        let (mut seconds, mut ratios) = (Vec::new(), Vec::new());
        for row in rows {
            let (time, ratio) = clock.read(row)?;
            seconds.push(point(row.length, &time));
            ratios.push(point(row.length, &ratio));
        }
        if workload == BARE {
            ratios.clear();
        }
        if !seconds.is_empty() {
            all.push(Series {
                pen,
                name,
                seconds,
                ratios,
            });
        }
    }
    Ok(all)
}

fn point(length: usize, spread: &RepeatSpread) -> Point {
    Point {
        length: length as f64,
        middle: spread.median,
        low: spread.least,
        high: spread.most,
    }
}

/// The fit of bare prefill, with the shortest and the longest T.
fn growth<'b>(
    bench: &'b Bench,
    clock: Clock,
    series: &[Series],
) -> Result<(&'b Growth, (f64, f64))> {
    let bare = series.iter().find(|s| s.ratios.is_empty());
    let [first, _, .., last] = bare.map_or(&[][..], |s| &s.seconds) else {
        return Err(Error::invalid(
            "number of lengths of prefill for growth",
            bare.map_or(0, |s| s.seconds.len()),
            "its fit needs three: measure with `kvprof bench --lengths 1024,2048,4096 --out`",
        ));
    };
    let growth = clock.growth(bench).ok_or_else(|| {
        let bound = "its lengths must tell a from b in a·T + b·T²: run kvprof bench again";
        Error::invalid("fit of prefill", "missing", bound)
    })?;
    Ok((growth, (first.length, last.length)))
}

/// a·T + b·T² over a fine grid, where it is positive.
fn curve(a: f64, b: f64, (first, last): (f64, f64)) -> Vec<(f64, f64)> {
    let length = |step: usize| first * (last / first).powf(step as f64 / FINE as f64);
    let at = |t: f64| (t, a * t + b * t * t);
    let all = (0..=FINE).map(|step| at(length(step)));
    all.filter(|(_, seconds)| *seconds > 0.0).collect()
}

/// A linear axis of ratios with 1 on it; `None` without any.
fn ratio_axis<'p>(ratios: impl Iterator<Item = &'p Point> + Clone) -> Option<Axis> {
    ratios.clone().next()?;
    let low = ratios.clone().map(|p| p.low).fold(1.0, f64::min);
    let high = ratios.map(|p| p.high).fold(1.0, f64::max);
    Some(Axis::covering(low, high.max(low + 0.1), 6).padded())
}

fn entries(
    series: &[Series],
    growth: &Growth,
    floor: bool,
    repeats: usize,
    width: i32,
) -> Vec<(Key, String)> {
    let room = words_room(width - points(HEADING_MARGIN));
    let keys = series.iter();
    let mut entries: Vec<_> = keys
        .map(|s| (Key::Series(s.pen), s.name.to_owned()))
        .collect();
    if repeats > 1 {
        let words = format!("min\u{2013}max of {repeats} repeats");
        let bands = series.iter().map(|s| (s.pen, &*s.seconds));
        entries.push((band_key(bands), words));
    }
    entries.push((Key::Fit, words::fit(growth.linear, growth.quadratic, room)));
    if floor {
        entries.push((Key::Reference, words::floor(room)));
    }
    entries
}

impl Drawing for GrowthChart {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let (panels, top) = (self.panels(), self.heading.height());
        self.heading.draw(sheet, panels.left())?;
        self.draw_times(&panels.draw(sheet, top, 0)?)?;
        match self.ratio {
            Some(_) => self.draw_ratios(&panels.draw(sheet, top, 1)?),
            None => Ok(()),
        }
    }
}
