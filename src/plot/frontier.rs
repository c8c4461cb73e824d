//! Quality against held bytes: a line per method, an interval at every budget.

use super::chart::Chart;
use super::figure::{
    Axis, BASELINE, Description, EDGES, Entry, Key, Marks, OTHERS, PENS, Panel, Pen,
};
use super::figure::{Point, REFERENCE, Series, Shape, SpreadStyle, Words, ends, figure_width};
use super::figure::{grid_columns, heading_room, labels_up, number, points, text_width};
use super::options::{ChartOption as Opt, ChartOptions};
use super::outcomes::{
    FULL, Outcome, count_words, distinct, facts, outcomes, sample_means, sample_noun, shown_methods,
};
use super::over_prompts::{mean, mean_with_interval};
use super::source::{Source, SourceKind};
use crate::error::Result;
use crate::eval::{Direction, Metric, Results};

/// Methods whose intervals can stand side by side; more get a panel each.
const TOGETHER: usize = 6;
/// Height of a panel of all methods, and of one of several, in points.
const HEIGHTS: [f64; 2] = [150.0, 64.0];
const LEAST_PANEL: f64 = 68.0;

/// Methods at one budget hold the same bytes: their marks are set apart by at most this, in points.
const APART_POINTS: (f64, f64) = (2.6, 13.0);

/// Least gap between two labels of bytes, in points.
const LABEL_GAP: f64 = 4.5;

/// Most labels of a linear axis, where every second one could be left out.
const MOST_LINEAR: usize = 6;

/// The mean of a metric against the bytes that are held, with 95 % intervals over prompts.
///
/// Up to six methods share a panel, where the full cache is a dotted line that ends at its own bytes. More have
/// a panel each, with the evaluation's baseline and the other methods behind, and the full cache as a dotted line
/// across. Where a logarithmic axis has no place for the full cache's value, the legend names it.
///
/// Units: MB per prompt, or per cent of the full cache where [`ChartOptions::relative`] is set.
pub(super) const CHART: Chart = Chart {
    name: "frontier",
    about: "quality against held bytes, a line per method with 95 % intervals over prompts",
    needs: "results: METRIC, kv_bytes, full_bytes, of 1 evaluation with 1 to 24 methods besides full",
    reads: &[Opt::Metric, Opt::Methods, Opt::Relative, Opt::Log],
    takes: SourceKind::Results,
    describe,
};

/// A method at one budget.
#[derive(Clone, Copy)]
struct AtBudget {
    /// Bytes held, in MB or in per cent of the full cache, and the metric over samples: prompts, or needles.
    point: Point,
    /// Samples behind it.
    samples: usize,
}

/// A method at every budget that has finite bytes, by growing bytes.
struct Method {
    name: String,
    budgets: Vec<AtBudget>,
}

/// What all panels share.
struct Frontier {
    x: Axis,
    y: Axis,
    methods: Vec<Method>,
    /// Index of the method that the others are compared with.
    baseline: Option<usize>,
    /// The full cache, where the axis has a place for it.
    full: Option<Point>,
}

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let metric = Metric::find(options.metric.as_deref().unwrap_or("kl"))?;
    let results: &Results = CHART.only(all)?;
    let rows = outcomes(results, metric.name, metric.factor())?;
    let held = rows.iter().map(|row| row.method);
    let names = shown_methods(CHART.name, held, options.methods.as_deref())?;
    let method = |name: &&str| Method {
        name: (*name).to_owned(),
        budgets: at_budgets(&rows, name, options.relative),
    };
    let methods: Vec<Method> = names.iter().map(method).collect();
    let together = methods.len() <= TOGETHER;
    let full = at_budgets(&rows, FULL, options.relative)
        .first()
        .map(|at| at.point);
    let height = HEIGHTS[usize::from(!together)];
    let y = quality_axis(&methods, full, metric, options.log, height);
    let y = y.called(metric.axis_name());
    let shown = full.filter(|point| visible(&y, point));
    let width = figure_width(options.width)?;
    let columns = if together {
        1
    } else {
        grid_columns(width, LEAST_PANEL, methods.len())
    };
    let panel = heading_room(width) / columns as i32 - points(10.0);
    // In panels of their own, methods would lose most of the width to the way to the full cache's bytes.
    let x = bytes_axis(&methods, shown.filter(|_| together), panel).called(if options.relative {
        "Held KV cache (% of the full cache)"
    } else {
        "Held KV cache (MB per prompt)"
    });
    let frontier = Frontier {
        x,
        y,
        methods,
        baseline: names
            .iter()
            .position(|name| *name == results.meta.settings.baseline),
        full: shown,
    };
    let mut entries = if together {
        let methods = frontier.methods.iter();
        let names = methods.map(|method| Words::from(&method.name));
        PENS.into_iter().map(Key::Series).zip(names).collect()
    } else {
        frontier.keys_of_panels()
    };
    entries.extend(full.map(|full| {
        let key = match (shown, together) {
            (None, _) => Key::Note,
            (_, true) => Key::Series(REFERENCE),
            (_, false) => Key::Line(REFERENCE),
        };
        (key, full_words(full, metric, options.relative).into())
    }));
    entries.extend(frontier.notes(together, sample_noun(&rows)));
    let axes = (&frontier.x, &frontier.y);
    let panels = if together {
        Panel::alone(axes, height, frontier.together())
    } else {
        let methods = frontier.methods.iter().enumerate();
        let alone = |(own, method): (usize, &Method)| {
            (Words::from(&method.name), frontier.alone(own, method))
        };
        Panel::each(axes, height, methods.map(alone))
    };
    Ok(Description {
        facts: facts(results),
        entries,
        panels,
        columns,
        ..Description::new(format!("{} against held KV cache", metric.title), width)
    })
}

impl Frontier {
    /// The points of a method that the axis has a place for, with intervals inside it.
    fn series(&self, pen: Pen, method: &Method, aside: f64) -> Series {
        let points = method.budgets.iter().map(|at| at.point);
        let inside = |point: Point| Point {
            low: point.low.max(self.y.low()),
            ..point
        };
        Series {
            pen,
            points: points.filter(|p| visible(&self.y, p)).map(inside).collect(),
            spread: SpreadStyle::Bars(aside),
        }
    }

    /// Every method in one panel, in front of the way to the full cache.
    fn together(&self) -> Vec<Shape> {
        let gaps = self.methods.len().saturating_sub(1) as f64;
        let step = APART_POINTS.0.min(APART_POINTS.1 / gaps.max(1.0));
        let methods = PENS.into_iter().zip(&self.methods).enumerate();
        let series = methods.map(|(index, (pen, method))| {
            self.series(pen, method, (index as f64 - gaps / 2.0) * step)
        });
        let full = self.full.iter().flat_map(|full| {
            let (held, value) = (full.x, full.middle);
            let end = Series::banded(REFERENCE, vec![Point::alone(held, value)]);
            [
                Shape::line(REFERENCE, vec![(EDGES[0], value), (held, value)]),
                Shape::Series(vec![end], Marks::All),
            ]
        });
        let series = Shape::Series(series.collect(), Marks::All);
        full.chain([series]).collect()
    }

    /// One method in front of the others.
    fn alone(&self, own: usize, method: &Method) -> Vec<Shape> {
        let behind = |method: &Method, pen: Pen| {
            let points = self.series(pen, method, 0.0).points;
            Shape::line(pen, points.iter().map(|p| (p.x, p.middle)).collect())
        };
        let methods = self.methods.iter().enumerate();
        let others = methods.filter(|(index, _)| *index != own && Some(*index) != self.baseline);
        let others = others.map(|(_, method)| behind(method, Pen::plain(OTHERS, 0.5)));
        let full = self
            .full
            .map(|full| Shape::line(REFERENCE, EDGES.map(|x| (x, full.middle)).to_vec()));
        let baseline = self.baseline.and_then(|index| self.methods.get(index));
        let baseline = baseline.map(|method| behind(method, Pen::plain(BASELINE, 0.7)));
        let series = Shape::Series(vec![self.series(PENS[0], method, 0.0)], Marks::All);
        others.chain(full).chain(baseline).chain([series]).collect()
    }

    fn keys_of_panels(&self) -> Vec<Entry> {
        let line = |colour| Key::Line(Pen::plain(colour, 0.6));
        let mut entries = vec![(Key::Series(PENS[0]), "the method named".into())];
        if let Some(baseline) = self.baseline.and_then(|index| self.methods.get(index)) {
            let words = format!("{}, the baseline", baseline.name);
            entries.push((line(BASELINE), words.into()));
        }
        entries.push((line(OTHERS), "the others".into()));
        entries
    }

    fn notes(&self, together: bool, noun: &str) -> Vec<Entry> {
        let all: Vec<&AtBudget> = self.methods.iter().flat_map(|m| &m.budgets).collect();
        let counts: Vec<usize> = all.iter().map(|at| at.samples).collect();
        let counts = count_words(&counts);
        let mut notes = vec![(
            Key::Bar(if together { REFERENCE } else { PENS[0] }),
            format!("95 % interval of the mean, {counts} {noun}").into(),
        )];
        if together && self.methods.len() > 1 {
            let aside = "marks at one budget are set apart sideways";
            notes.push((Key::Note, aside.into()));
        }
        let absent = all.iter().filter(|at| !visible(&self.y, &at.point)).count();
        if absent > 0 {
            let words = format!("{absent} of {} points at 0: off this axis", all.len());
            notes.push((Key::Note, words.into()));
        }
        notes
    }
}

/// `method` at every budget by growing bytes; `relative` in per cent of the full cache.
fn at_budgets(rows: &[Outcome<'_>], method: &str, relative: bool) -> Vec<AtBudget> {
    let own: Vec<&Outcome<'_>> = rows.iter().filter(|row| row.method == method).collect();
    let held = |row: &&&Outcome<'_>| {
        if relative {
            100.0 * row.held / row.full
        } else {
            row.held
        }
    };
    let at = |budget: &str| {
        let rows: Vec<_> = own.iter().filter(|row| row.budget == budget).collect();
        let bytes: Vec<f64> = rows.iter().map(held).collect();
        let values = sample_means(rows.iter().map(|row| **row));
        AtBudget {
            point: mean_with_interval(mean(&bytes), &values),
            samples: values.len(),
        }
    };
    let budgets = distinct(own.iter().map(|row| row.budget));
    let mut all: Vec<AtBudget> = budgets.into_iter().map(at).collect();
    all.retain(|at| at.point.x.is_finite() && at.point.x > 0.0);
    all.sort_by(|a, b| a.point.x.total_cmp(&b.point.x));
    all
}

/// Whether a mean lies on the axis: a logarithmic one has no place for 0.
fn visible(axis: &Axis, point: &Point) -> bool {
    (axis.low()..=axis.high()).contains(&point.middle)
}

fn all_points(methods: &[Method]) -> impl Iterator<Item = Point> + Clone {
    methods.iter().flat_map(|m| &m.budgets).map(|at| at.point)
}

/// The axis of held bytes, of every method and of the full cache where it has a place, `room` units long.
fn bytes_axis(methods: &[Method], full: Option<Point>, room: i32) -> Axis {
    let cut = all_points(methods).map(|p| p.x);
    let (low, most) = ends(cut.clone().chain(full.map(|p| p.x)));
    // Marks at one budget are set apart sideways, the full cache's is not.
    let air = (most / low).powf(0.08).max(1.15);
    let (low, high) = (low / air, most.max(ends(cut).1 * air));
    // The longest label, but for decimals of less than one.
    let widest = if high >= 10.0 {
        number(high.round())
    } else {
        "0.5".to_owned()
    };
    let most = room / (text_width(&widest) + points(LABEL_GAP));
    Axis::log(low, high, most.max(1) as usize)
}

/// The axis of quality: logarithmic for `log`, or where values that are better lower span a decade.
fn quality_axis(
    methods: &[Method],
    full: Option<Point>,
    metric: &Metric,
    log: bool,
    height: f64,
) -> Axis {
    let (all, labels) = (all_points(methods), labels_up(height));
    let positive = all.clone().map(|p| p.middle).filter(|mean| *mean > 0.0);
    let (least, most) = ends(positive);
    let spans = metric.direction == Direction::Lower && Axis::needs_log(least, most);
    if (log || spans) && most > 0.0 {
        let low = all.clone().map(|p| p.low).filter(|low| *low >= least / 3.0);
        let (foot, _) = ends(low.chain([least]));
        return Axis::log(foot, ends(all.map(|p| p.high)).1, labels);
    }
    let all = all.flat_map(|p| [p.low, p.high]);
    let (low, high) = ends(all.chain(full.map(|p| p.middle)));
    let labels = (2 * labels / 3).clamp(1, MOST_LINEAR);
    // A share that is everywhere 0 or everywhere 100 % still needs a height.
    if metric.is_share() && high <= low {
        Axis::per_cent(labels)
    } else {
        Axis::covering(low, high, labels).padded()
    }
}

/// The full cache's value and bytes.
fn full_words(full: Point, metric: &Metric, relative: bool) -> String {
    let rounded = |v: f64, to: f64| number((v * to).round() / to);
    let precision = if metric.is_share() { 10.0 } else { 1000.0 };
    let value = rounded(full.middle, precision);
    let held = if relative {
        String::new()
    } else {
        format!(", {} MB", rounded(full.x, 10.0))
    };
    format!("full cache: {value} {}{held}", metric.shown_unit())
}
