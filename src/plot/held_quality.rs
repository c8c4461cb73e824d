//! Quality against held bytes, read from an evaluation: points per method, and the axes they lie on.

use super::axis::{Axis, number};
use super::canvas::points;
use super::interval::Interval;
use super::outcomes::{Outcome, distinct, sample_means};
use super::spread::mean;
use super::text;
use crate::eval::{Direction, Metric};

/// Least gap between two labels of bytes, in points.
const LABEL_GAP: f64 = 4.5;

/// Most labels of a linear axis, where every second one could be left out.
const MOST_LINEAR: usize = 6;

/// A method at one budget.
pub(super) struct Point {
    /// Bytes held, in MB or in per cent of the full cache.
    pub(super) held: f64,
    /// The metric over samples: prompts, or needles.
    pub(super) quality: Interval,
    /// Samples behind it.
    pub(super) samples: usize,
}

/// A method's points by growing bytes.
pub(super) struct Series {
    /// The method.
    pub(super) name: String,
    /// None where no budget has finite bytes.
    pub(super) points: Vec<Point>,
}

/// The points of `method` by growing bytes; `relative` in per cent of the full cache.
pub(super) fn line(rows: &[Outcome<'_>], method: &str, relative: bool) -> Vec<Point> {
    let own: Vec<&Outcome<'_>> = rows.iter().filter(|row| row.method == method).collect();
    let held = |row: &Outcome<'_>| match relative {
        true => 100.0 * row.held / row.full,
        false => row.held,
    };
    let mut points = Vec::new();
    for budget in distinct(own.iter().map(|row| row.budget)) {
        let rows: Vec<_> = own.iter().filter(|row| row.budget == budget).collect();
        let bytes: Vec<f64> = rows.iter().map(|row| held(row)).collect();
        let values = sample_means(rows.iter().copied().copied());
        points.push(Point {
            held: mean(&bytes),
            quality: Interval::of_mean(&values),
            samples: values.len(),
        });
    }
    points.retain(|point| point.held.is_finite() && point.held > 0.0);
    points.sort_by(|a, b| a.held.total_cmp(&b.held));
    points
}

/// Whether `value` lies on the axis: a logarithmic one has no place for 0.
pub(super) fn visible(axis: &Axis, value: f64) -> bool {
    value >= axis.low() && value <= axis.high()
}

/// The axis of held bytes, of every series and of the full cache where it has a place, `room` units long.
pub(super) fn bytes_axis(series: &[Series], full: Option<&Point>, room: i32) -> Axis {
    let cut = series.iter().flat_map(|s| &s.points).map(|p| p.held);
    let held = cut.clone().chain(full.map(|p| p.held));
    let low = held.clone().fold(f64::INFINITY, f64::min);
    let most = held.fold(0.0, f64::max);
    // Marks at one budget are set apart sideways, the full cache's is not.
    let air = (most / low).powf(0.08).max(1.15);
    let (low, high) = (low / air, most.max(cut.fold(0.0, f64::max) * air));
    // The longest label, but for decimals of less than one.
    let widest = match high >= 10.0 {
        true => number(high.round()),
        false => "0.5".to_owned(),
    };
    let most = room / (text::width(&widest) + points(LABEL_GAP));
    Axis::log(low, high, most.max(1) as usize)
}

/// The axis of quality with room for `labels`: logarithmic for `log`, or where values that are better lower span a decade.
pub(super) fn quality_axis(
    series: &[Series],
    full: Option<&Point>,
    metric: &Metric,
    log: bool,
    labels: usize,
) -> Axis {
    let intervals = || series.iter().flat_map(|s| &s.points).map(|p| p.quality);
    let positive = intervals().map(|q| q.mean).filter(|mean| *mean > 0.0);
    let (least, most) = positive.fold((f64::INFINITY, 0.0f64), |(l, m), v| (l.min(v), m.max(v)));
    let top = intervals()
        .map(|q| q.high)
        .fold(f64::NEG_INFINITY, f64::max);
    let spans = metric.direction == Direction::Lower && Axis::needs_log(least, most);
    if (log || spans) && most > 0.0 {
        let ends = intervals().map(|q| q.low).filter(|low| *low >= least / 3.0);
        let foot = ends.fold(least, f64::min);
        return Axis::log(foot, top, labels);
    }
    let all = intervals()
        .flat_map(|q| [q.low, q.high])
        .chain(full.map(|p| p.quality.mean));
    let low = all.clone().fold(f64::INFINITY, f64::min);
    let high = all.fold(f64::NEG_INFINITY, f64::max);
    let labels = (2 * labels / 3).clamp(1, MOST_LINEAR);
    // A share that is everywhere 0 or everywhere 100 % still needs a height.
    match metric.is_share() && high <= low {
        true => Axis::per_cent(labels),
        false => Axis::covering(low, high, labels).padded(),
    }
}
