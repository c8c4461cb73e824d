//! Time of prefill against prompt length, its fit and its floor, and what profiling takes on top.

use super::chart::Chart;
use super::figure::{
    Axis, Description, Entry, FIT, Key, PENS, Panel, Pen, Point, REFERENCE, Series,
};
use super::figure::{Shape, Words, ends, figure_width, length_axis, log_axis};
use super::growth_words as words;
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_length::{self, marked, repeats_entry, threads};
use super::source::{Source, SourceKind};
use crate::bench::{Bench, Growth, SavedRow};
use crate::error::{Error, Result};
use crate::eval::RepeatSpread;

/// Heights of the panel of seconds and of that of ratios, in points.
const HEIGHTS: [f64; 2] = [118.0, 82.0];

/// Points along a fitted curve: enough to look continuous.
const FINE: usize = 64;

/// Workloads over whole prompts that are shown where they were measured, the bare one first: every other one is
/// divided by it.
const SHOWN: [(&str, &str); 4] = [
    ("prefill", "bare prefill"),
    ("profile-32", "profile of 32 rows"),
    ("profile-128", "profile of 128 rows"),
    ("profile-all", "profile of all rows"),
];

/// Seconds over prompt length, both logarithmic, and below or beside them the ratio to bare prefill:
/// medians with the range of their repeats, a line for every workload that goes over whole prompts.
///
/// The fit of bare prefill is dashed, its operations at the machine's limit are dotted. A ratio is that of the
/// same repeat, so that its median is not that of the medians drawn beside it.
/// Units: seconds, on the wall or of CPU time; tokens.
/// Errors: [`Error::Invalid`] for fewer than three lengths of bare prefill, or CPU seconds that the system did not tell;
/// [`Error::UnknownName`] for another metric than `wall` and `cpu`.
pub(super) const CHART: Chart = Chart {
    name: "growth",
    about: "prefill time against prompt length, its fit and its floor, and what profiling adds",
    needs: "1 run of kvprof bench with prefill at 3 lengths or more",
    reads: &[Opt::Metric],
    takes: SourceKind::Benches,
    describe,
};

/// Which seconds are drawn.
struct Clock {
    /// What its axes begin with.
    time: &'static str,
    growth: fn(&Bench) -> Option<&Growth>,
    /// Seconds and ratio of a row, where they are known.
    read: fn(&SavedRow) -> Option<(RepeatSpread, RepeatSpread)>,
}

const WALL: Clock = Clock {
    time: "Time",
    growth: |bench| bench.growth.as_ref(),
    read: |row| Some((row.wall, row.ratio)),
};

const CPU: Clock = Clock {
    time: "CPU time",
    growth: |bench| bench.cpu_growth.as_ref(),
    read: |row| row.cpu.zip(row.cpu_ratio),
};

/// A workload's seconds, and its ratios to bare prefill.
struct Workload {
    pen: Pen,
    name: &'static str,
    seconds: Vec<Point>,
    ratios: Vec<Point>,
}

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let bench: &Bench = CHART.only(all)?;
    let clock = match options.metric.as_deref().unwrap_or("wall") {
        "wall" => WALL,
        "cpu" => CPU,
        other => return Err(Error::unknown("metric", other, ["wall", "cpu"])),
    };
    let width = figure_width(options.width)?;
    let workloads = workloads(bench, &clock)?;
    let bare = workloads.first().filter(|w| w.name == SHOWN[0].1);
    let [first, _, .., last] = bare.map_or(&[][..], |bare| &bare.seconds) else {
        return Err(Error::invalid(
            "number of lengths of prefill for growth",
            bare.map_or(0, |bare| bare.seconds.len()),
            "its fit needs three: measure with `kvprof bench --lengths 1024,2048,4096 --out`",
        ));
    };
    let growth = (clock.growth)(bench).ok_or_else(|| {
        let bound = "its lengths must tell a from b in a·T + b·T²: run kvprof bench again";
        Error::invalid("fit of prefill", "missing", bound)
    })?;
    let fit = curve(growth.linear, growth.quadratic, (first.x, last.x));
    let at_limit = growth.linear_at_limit.zip(growth.quadratic_at_limit);
    let floor = at_limit.map_or(Vec::new(), |(a, b)| curve(a, b, (first.x, last.x)));
    let measured = || workloads.iter().flat_map(|w| &w.seconds);
    let x = length_axis(measured().map(|p| p.x)).called("Prompt length T (tokens)");
    let curves = fit.iter().chain(&floor).map(|(_, seconds)| *seconds);
    let seconds = ends(measured().flat_map(|p| [p.low, p.high]).chain(curves));
    let series: Vec<Series> = (workloads.iter())
        .map(|w| Series::banded(w.pen, w.seconds.clone()))
        .collect();
    let keys = workloads
        .iter()
        .map(|w| (Key::Series(w.pen), w.name.into()));
    let mut entries: Vec<Entry> = keys.collect();
    entries.extend(repeats_entry(bench.repeats, &series));
    entries.push((Key::Line(FIT), words::fit(growth.linear, growth.quadratic)));
    let mut shapes = Vec::new();
    if !floor.is_empty() {
        entries.push((Key::Line(REFERENCE), words::floor()));
        shapes.push(Shape::line(REFERENCE, floor));
    }
    shapes.extend([marked(series), Shape::line(FIT, fit)]);
    let y = log_axis(seconds, HEIGHTS[0]).called(format!("{} (s)", clock.time));
    let times = Panel::alone((&x, &y), HEIGHTS[0], shapes);
    let ratios = ratios(&x, &workloads, &clock);
    let panels = [times, ratios.unwrap_or_default()].concat();
    let about = "Prefill time against prompt length";
    let facts = facts(bench);
    Ok(over_length::describe(about, width, facts, entries, panels))
}

/// Model and machine.
fn facts(bench: &Bench) -> Vec<Words> {
    let (model, machine) = (&bench.model, &bench.machine);
    let cpu = machine.cpu.as_ref();
    let of = cpu.map_or(String::new(), |cpu| format!(" of {cpu}"));
    vec![
        format!("{}, {}", model.name, model.dtype).into(),
        format!("{}{of}", threads(machine.threads)).into(),
    ]
}

/// Every workload of [`SHOWN`] that was measured, each with its own pen whichever others are there.
fn workloads(bench: &Bench, clock: &Clock) -> Result<Vec<Workload>> {
    let mut all = Vec::new();
    for ((workload, name), pen) in SHOWN.into_iter().zip(PENS) {
        let rows = bench.rows.iter().filter(|row| row.workload == workload);
        let mut rows: Vec<&SavedRow> = rows.collect();
        rows.sort_by_key(|row| row.length);
        let (mut seconds, mut ratios) = (Vec::new(), Vec::new());
        for row in rows {
            let (time, ratio) = (clock.read)(row).ok_or_else(|| {
                let what = format!("CPU time of {} at {} tokens", row.workload, row.length);
                Error::invalid(what, "not known", "only --metric wall can be drawn of it")
            })?;
            seconds.push(point(row.length, &time));
            ratios.push(point(row.length, &ratio));
        }
        if !seconds.is_empty() {
            all.push(Workload {
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
    Point::between(length as f64, spread.median, (spread.least, spread.most))
}

/// a·T + b·T² over a fine grid, where it is positive.
fn curve(a: f64, b: f64, (first, last): (f64, f64)) -> Vec<(f64, f64)> {
    let length = |step: usize| first * (last / first).powf(step as f64 / FINE as f64);
    let at = |t: f64| (t, a * t + b * t * t);
    let all = (0..=FINE).map(|step| at(length(step)));
    all.filter(|(_, seconds)| *seconds > 0.0).collect()
}

/// The panel of ratios to the first workload, which is drawn as a line at 1; none where there is no other.
fn ratios(x: &Axis, workloads: &[Workload], clock: &Clock) -> Option<Vec<Panel>> {
    let (bare, others) = workloads
        .split_first()
        .filter(|(_, others)| !others.is_empty())?;
    let all = others.iter().flat_map(|w| &w.ratios);
    let (low, high) = ends(all.flat_map(|p| [p.low, p.high]).chain([1.0]));
    let y = Axis::covering(low, high.max(low + 0.1), 6).padded();
    let line = Shape::line(bare.pen, vec![(x.low(), 1.0), (x.high(), 1.0)]);
    let series = others
        .iter()
        .map(|w| Series::banded(w.pen, w.ratios.clone()));
    let shapes = vec![line, marked(series.collect())];
    let y = y.called(format!("{} over prefill", clock.time));
    Some(Panel::alone((x, &y), HEIGHTS[1], shapes))
}
