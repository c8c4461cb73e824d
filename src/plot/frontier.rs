//! Quality against held bytes: a line per method, an interval at every budget.

use super::chart::Chart;
use super::figure::{Axis, BASELINE, Description, EDGES, Entry, Key, Marks, OTHERS, PENS, Pen};
use super::figure::{Point, REFERENCE, Series, Shape, Sharing, SpreadStyle, Words, ends};
use super::figure::{figure_width, heading_room, labels_up, number, points, text_width};
use super::lines_of_types::lines_of_types;
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
/// Methods that spend no budget and differ only in the bits of one kind of type are points of one line.
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

/// What all panels share.
struct Frontier {
    x: Axis,
    y: Axis,
    /// Every method's budgets by growing bytes: bytes held, in MB or in per cent of the full cache, and the metric.
    methods: Vec<Vec<Point>>,
    /// Index of the method that the others are compared with.
    baseline: Option<usize>,
    /// The full cache, where the axis has a place for it.
    full: Option<Point>,
}

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let metric = Metric::find(options.metric.as_deref().unwrap_or("kl"))?;
    let results: &Results = CHART.only(all)?;
    let rows = outcomes(results, metric)?;
    let methods = rows.iter().map(|row| row.method);
    let methods = shown_methods(CHART.name, methods, options.methods.as_deref())?;
    let lines = lines_of_types(&methods, &rows);
    let names: Vec<Words> = lines.iter().map(|line| Words::from(&*line.name)).collect();
    let baseline = &results.meta.settings.baseline.as_str();
    let baseline = lines
        .iter()
        .position(|line| line.methods.contains(baseline));
    let of = |methods: &[&str]| at_budgets(&rows, methods, options.relative).into_iter();
    let (methods, samples): (Vec<Vec<Point>>, Vec<Vec<usize>>) =
        lines.iter().map(|line| of(&line.methods).unzip()).unzip();
    let full = of(&[FULL]).next().map(|(point, _)| point);
    let width = figure_width(options.width)?;
    let sharing = Sharing::of(names.len(), TOGETHER, HEIGHTS, width, LEAST_PANEL);
    let y = quality_axis(&methods, full, metric, options.log, sharing.height);
    let shown = full.filter(|point| visible(&y, point));
    // In panels of their own, methods would lose most of the width to the way to the full cache's bytes.
    let room = heading_room(width) / sharing.columns as i32 - points(10.0);
    let x = bytes_axis(&methods, shown.filter(|_| sharing.together), room);
    let frontier = Frontier {
        x: x.called(if options.relative {
            "Held KV cache (% of the full cache)"
        } else {
            "Held KV cache (MB per prompt)"
        }),
        y: y.called(metric.axis_name()),
        methods,
        baseline,
        full: shown,
    };
    let mut entries = sharing.keys(&names, "the method named");
    if !sharing.together {
        entries.extend(frontier.keys_behind(&names));
    }
    entries.extend(full.map(|full| {
        let key = match (shown, sharing.together) {
            (None, _) => Key::Note,
            (_, true) => Key::Series(REFERENCE),
            (_, false) => Key::Line(REFERENCE),
        };
        (key, full_words(full, metric, options.relative).into())
    }));
    let counts = format!("{} {}", count_words(&samples.concat()), sample_noun(&rows));
    entries.extend(frontier.notes(sharing.together, &counts));
    let panels = sharing.panels((&frontier.x, &frontier.y), &names, |own| match own {
        None => frontier.together(),
        Some(own) => frontier.alone(own),
    });
    Ok(Description {
        facts: facts(results),
        entries,
        panels,
        columns: sharing.columns,
        ..Description::new(format!("{} against held KV cache", metric.title), width)
    })
}

impl Frontier {
    /// The points of a method that the axis has a place for, with intervals inside it.
    fn series(&self, pen: Pen, method: &[Point], aside: f64) -> Series {
        let inside = |point: &Point| Point {
            low: point.low.max(self.y.low()),
            ..*point
        };
        let shown = method.iter().filter(|point| visible(&self.y, point));
        Series {
            pen,
            points: shown.map(inside).collect(),
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
    fn alone(&self, own: usize) -> Vec<Shape> {
        let behind = |method: usize, pen: Pen| {
            let points = self.series(pen, &self.methods[method], 0.0).points;
            Shape::line(pen, points.iter().map(|p| (p.x, p.middle)).collect())
        };
        let others = (0..self.methods.len())
            .filter(|index| *index != own && Some(*index) != self.baseline)
            .map(|index| behind(index, Pen::plain(OTHERS, 0.5)));
        let full = (self.full.iter())
            .map(|full| Shape::line(REFERENCE, EDGES.map(|x| (x, full.middle)).to_vec()));
        let baseline = self.baseline.iter();
        let baseline = baseline.map(|&index| behind(index, Pen::plain(BASELINE, 0.7)));
        let front = self.series(PENS[0], &self.methods[own], 0.0);
        let front = Shape::Series(vec![front], Marks::All);
        others.chain(full).chain(baseline).chain([front]).collect()
    }

    /// The legend of what lies behind every method.
    fn keys_behind(&self, names: &[Words]) -> Vec<Entry> {
        let line = |colour| Key::Line(Pen::plain(colour, 0.6));
        let baseline = self.baseline.map(|index| {
            let words = names[index].clone().before(", the baseline".to_owned());
            (line(BASELINE), words)
        });
        let others = (line(OTHERS), "the others".into());
        baseline.into_iter().chain([others]).collect()
    }

    /// What the legend says of intervals over so many samples, and of points that do not show.
    fn notes(&self, together: bool, samples: &str) -> Vec<Entry> {
        let mut notes = vec![(
            Key::Bar(if together { REFERENCE } else { PENS[0] }),
            format!("95 % interval of the mean, {samples}").into(),
        )];
        if together && self.methods.len() > 1 {
            let aside = "marks at one budget are set apart sideways";
            notes.push((Key::Note, aside.into()));
        }
        let all = self.methods.concat();
        let absent = all.iter().filter(|point| !visible(&self.y, point)).count();
        if absent > 0 {
            let words = format!("{absent} of {} points at 0: off this axis", all.len());
            notes.push((Key::Note, words.into()));
        }
        notes
    }
}

/// Methods of one line at every budget by growing bytes, with the number of samples (prompts, or needles) behind each;
/// `relative` in per cent of the full cache.
fn at_budgets(rows: &[Outcome<'_>], methods: &[&str], relative: bool) -> Vec<(Point, usize)> {
    let of_line = rows.iter().filter(|row| methods.contains(&row.method));
    let own: Vec<&Outcome<'_>> = of_line.collect();
    let at = |(method, budget): (&str, &str)| {
        let rows = own
            .iter()
            .filter(|row| row.method == method && row.budget == budget);
        let bytes = rows.clone().map(|row| {
            if relative {
                100.0 * row.held / row.full
            } else {
                row.held
            }
        });
        let values = sample_means(rows.copied());
        let bytes: Vec<f64> = bytes.collect();
        (mean_with_interval(mean(&bytes), &values), values.len())
    };
    let budgets = methods.iter().flat_map(|method| {
        let rows = own.iter().filter(|row| row.method == *method);
        let budgets = distinct(rows.map(|row| row.budget)).into_iter();
        budgets.map(|budget| (*method, budget))
    });
    let mut all: Vec<(Point, usize)> = budgets.map(at).collect();
    all.retain(|(point, _)| point.x.is_finite() && point.x > 0.0);
    all.sort_by(|(a, _), (b, _)| a.x.total_cmp(&b.x));
    all
}

/// Whether a mean lies on the axis: a logarithmic one has no place for 0.
fn visible(axis: &Axis, point: &Point) -> bool {
    (axis.low()..=axis.high()).contains(&point.middle)
}

/// The axis of held bytes, of every method and of the full cache where it has a place, `room` units long.
fn bytes_axis(methods: &[Vec<Point>], full: Option<Point>, room: i32) -> Axis {
    let cut = methods.iter().flatten().map(|p| p.x);
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
    methods: &[Vec<Point>],
    full: Option<Point>,
    metric: &Metric,
    log: bool,
    height: f64,
) -> Axis {
    let (all, labels) = (methods.iter().flatten(), labels_up(height));
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
