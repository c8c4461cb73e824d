//! Quality against held bytes: a line per method, an interval at every budget.

use plotters::prelude::DrawingBackend;

use super::axis::{Axis, number};
use super::canvas::{Drawing, Drawn, Sheet, figure_width, part, points};
use super::figure::{Figure, render};
use super::frame::{Frame, Panel};
use super::interval::Interval;
use super::legend::{HEADING_MARGIN, Heading, Key};
use super::options::ChartOptions;
use super::outcomes::{FULL, Outcome, count_words, distinct, outcomes};
use super::pen::{MOST_PENS, Pen, REFERENCE, pen};
use super::series::only;
use super::spread::mean;
use super::text;
use crate::error::{Error, Result};
use crate::eval::{Direction, Metric, Results};

const PANEL_POINTS: f64 = 150.0;
const BOTTOM_POINTS: f64 = 1.5;

/// Ratio of the largest to the smallest mean from which on a linear axis would press the small ones together.
const WIDE: f64 = 8.0;

/// Methods at one budget hold the same bytes: their marks are set apart by at most this, in points.
const APART_POINTS: (f64, f64) = (2.0, 12.0);

/// A method at one budget.
struct Point {
    held: f64,
    quality: Interval,
    prompts: usize,
}

struct Frontier {
    size: (i32, i32),
    heading: Heading,
    x: Axis,
    y: Axis,
    x_name: &'static str,
    y_name: String,
    series: Vec<(Pen, Vec<Point>)>,
    full: Option<Point>,
}

/// Draws the mean of a metric against the bytes that are held, with 95 % intervals over prompts.
///
/// The full cache is a dashed line that ends at its own bytes; where a logarithmic axis has no place for
/// its value, the legend names it.
///
/// Units: MB per prompt, or per cent of the full cache where [`ChartOptions::relative`] is set.
/// Errors: [`Error::UnknownName`] for a metric or column that is not there, [`Error::Invalid`] for
/// several evaluations, too many methods, or no row with a value.
pub(super) fn draw(all: &[Results], options: &ChartOptions, record: &str) -> Result<Figure> {
    let metric = Metric::find(options.metric.as_deref().unwrap_or("kl"))?;
    let title = format!("{} against held KV cache", metric.title);
    render(&Frontier::read(all, metric, options)?, &title, record)
}

impl Frontier {
    fn read(all: &[Results], metric: &Metric, options: &ChartOptions) -> Result<Self> {
        let results = only("frontier", all)?;
        let rows = outcomes(results, metric.name, metric.factor())?;
        let methods = distinct(rows.iter().map(|row| row.method));
        let (full, methods): (Vec<&str>, Vec<&str>) = methods.into_iter().partition(|m| *m == FULL);
        if !(1..=MOST_PENS).contains(&methods.len()) {
            let bound = format!("it must lie between 1 and {MOST_PENS}, besides full");
            return Err(Error::invalid(
                "number of methods for frontier",
                methods.len(),
                bound,
            ));
        }
        let of = |method: &str| line(&rows, method, options.relative);
        let series: Vec<(Pen, Vec<Point>)> = methods
            .iter()
            .enumerate()
            .map(|(i, m)| (pen(i), of(m)))
            .collect();
        let full = full
            .first()
            .and_then(|method| of(method).into_iter().next());
        let y = quality_axis(&series, full.as_ref(), metric, options.log);
        let unit = if options.relative { "% of it" } else { "MB" };
        let entries = legend(&series, &methods, full.as_ref(), metric, unit, &y);
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let shown_full = full.filter(|point| visible(&y, point.quality.mean));
        let mut chart = Self {
            size: (width, 0),
            heading: Heading::new(options.title.as_deref(), entries, room),
            x: bytes_axis(&series, shown_full.as_ref()),
            y,
            x_name: match options.relative {
                true => "Held KV cache (% of the full cache)",
                false => "Held KV cache (MB per prompt)",
            },
            y_name: metric.axis_name(),
            series,
            full: shown_full,
        };
        chart.size.1 = chart.heading.height()
            + points(PANEL_POINTS).max(text::width(&chart.y_name))
            + points(BOTTOM_POINTS)
            + chart.frame().bottom_room();
        Ok(chart)
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            x: &self.x,
            y: &self.y,
            x_name: Some(self.x_name),
            y_name: &self.y_name,
            grid: true,
        }
    }

    fn draw_full<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>) -> Drawn<DB> {
        let Some(full) = &self.full else {
            return Ok(());
        };
        let end = panel.at(full.held, full.quality.mean);
        REFERENCE.line(&panel.sheet, vec![(panel.x_range().0, end.1), end])?;
        REFERENCE.mark(&panel.sheet, end)
    }

    /// Bars first, then lines, then markers.
    fn draw_methods<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>) -> Drawn<DB> {
        let (most, all) = APART_POINTS;
        let gaps = self.series.len().saturating_sub(1).max(1) as f64;
        let step = most.min(all / gaps);
        let middle = (self.series.len() as f64 - 1.0) / 2.0;
        let aside = |index: usize| points((index as f64 - middle) * step);
        let place = |index: usize, held: f64, value: f64| {
            let (x, y) = panel.at(held, value.max(self.y.low()));
            (x + aside(index), y)
        };
        let drawn = |p: &&Point| visible(&self.y, p.quality.mean);
        for (index, (pen, line)) in self.series.iter().enumerate() {
            for p in line
                .iter()
                .filter(drawn)
                .filter(|p| p.quality.low < p.quality.high)
            {
                let ends = [p.quality.low, p.quality.high].map(|v| place(index, p.held, v));
                pen.bar(&panel.sheet, ends[0], ends[1])?;
            }
        }
        let spots = |index: usize, line: &[Point]| -> Vec<_> {
            let shown = line.iter().filter(drawn);
            shown
                .map(|p| place(index, p.held, p.quality.mean))
                .collect()
        };
        for (index, (pen, line)) in self.series.iter().enumerate() {
            pen.line(&panel.sheet, spots(index, line))?;
        }
        for (index, (pen, line)) in self.series.iter().enumerate() {
            for spot in spots(index, line) {
                pen.mark(&panel.sheet, spot)?;
            }
        }
        Ok(())
    }
}

/// A method's points by growing bytes.
fn line(rows: &[Outcome<'_>], method: &str, relative: bool) -> Vec<Point> {
    let own: Vec<&Outcome<'_>> = rows.iter().filter(|row| row.method == method).collect();
    let held = |row: &Outcome<'_>| match relative {
        true => 100.0 * row.held / row.full,
        false => row.held,
    };
    let mut points = Vec::new();
    for budget in distinct(own.iter().map(|row| row.budget)) {
        let rows: Vec<_> = own.iter().filter(|row| row.budget == budget).collect();
        let bytes: Vec<f64> = rows.iter().map(|row| held(row)).collect();
        let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
        points.push(Point {
            held: mean(&bytes),
            quality: Interval::of_mean(&values),
            prompts: values.len(),
        });
    }
    points.retain(|point| point.held.is_finite() && point.held > 0.0);
    points.sort_by(|a, b| a.held.total_cmp(&b.held));
    points
}

fn visible(axis: &Axis, value: f64) -> bool {
    value >= axis.low() && value <= axis.high()
}

fn bytes_axis(series: &[(Pen, Vec<Point>)], full: Option<&Point>) -> Axis {
    let held = series
        .iter()
        .flat_map(|(_, line)| line)
        .chain(full)
        .map(|p| p.held);
    let low = held.clone().fold(f64::INFINITY, f64::min);
    let high = held.fold(0.0, f64::max);
    let air = (high / low).powf(0.08).max(1.15);
    Axis::log(low / air, high * air)
}

fn quality_axis(
    series: &[(Pen, Vec<Point>)],
    full: Option<&Point>,
    metric: &Metric,
    log: bool,
) -> Axis {
    let intervals = || series.iter().flat_map(|(_, line)| line).map(|p| p.quality);
    let positive = intervals().map(|q| q.mean).filter(|mean| *mean > 0.0);
    let (least, most) = positive.fold((f64::INFINITY, 0.0f64), |(l, m), v| (l.min(v), m.max(v)));
    let top = intervals()
        .map(|q| q.high)
        .fold(f64::NEG_INFINITY, f64::max);
    let spans = metric.direction == Direction::Lower && most > WIDE * least;
    if (log || spans) && most > 0.0 {
        let ends = intervals().map(|q| q.low).filter(|low| *low >= least / 3.0);
        let foot = ends.fold(least, f64::min);
        return Axis::log(foot / 1.25, (top * 1.25).max(foot * 5.0));
    }
    let all = intervals()
        .flat_map(|q| [q.low, q.high])
        .chain(full.map(|p| p.quality.mean));
    let low = all.clone().fold(f64::INFINITY, f64::min);
    let high = all.fold(f64::NEG_INFINITY, f64::max);
    let air = 0.06 * (high - low);
    // A share that is everywhere 0 or everywhere 100 % still needs a height.
    match metric.is_share() && high > low {
        true => Axis::between((low - air).max(-1.5), (high + air).min(101.5), 6),
        false => Axis::between(low - air, high + air, 6),
    }
}

fn legend(
    series: &[(Pen, Vec<Point>)],
    methods: &[&str],
    full: Option<&Point>,
    metric: &Metric,
    unit: &str,
    y: &Axis,
) -> Vec<(Key, String)> {
    let mut entries: Vec<(Key, String)> = (series.iter().zip(methods))
        .map(|((pen, _), name)| (Key::Series(*pen), text::printable(name)))
        .collect();
    let rounded = |v: f64, to: f64| number((v * to).round() / to);
    let precision = if metric.is_share() { 10.0 } else { 1000.0 };
    entries.extend(full.map(|p| {
        let value = rounded(p.quality.mean, precision);
        let held = match unit {
            "MB" => format!(", {} MB", rounded(p.held, 10.0)),
            _ => String::new(),
        };
        (
            Key::Series(REFERENCE),
            format!("full cache: {value} {}{held}", metric.shown_unit()),
        )
    }));
    let points = || series.iter().flat_map(|(_, line)| line);
    let counts = count_words(points().map(|p| p.prompts));
    entries.push((
        Key::Bar,
        format!("95 % interval of the mean, {counts} prompts"),
    ));
    if series.len() > 1 {
        let aside = "marks at one budget are set apart sideways";
        entries.push((Key::Note, aside.to_owned()));
    }
    let absent = points().filter(|p| !visible(y, p.quality.mean)).count();
    if absent > 0 {
        entries.push((
            Key::Note,
            format!(
                "{absent} of {} points at 0: off this axis",
                points().count()
            ),
        ));
    }
    entries
}

impl Drawing for Frontier {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let frame = self.frame();
        let (left, top) = (frame.left_room(), self.heading.height());
        self.heading.draw(sheet, left)?;
        let size = (
            self.size.0 - frame.right_room(),
            self.size.1 - top - points(BOTTOM_POINTS),
        );
        let panel = frame.draw(&part(sheet, (0, top), size), left)?;
        self.draw_full(&panel)?;
        self.draw_methods(&panel)
    }
}
