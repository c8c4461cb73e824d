//! Series over prompt length, as every chart of costs draws them: logarithmic, with the range of their repeats.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawn, label_count, points};
use super::frame::Panel;
use super::layer_series::HEIGHT_OF_LABEL;
use super::legend::Key;
use super::pen::Pen;

/// Room beyond the outermost values, as a factor.
const AIR: f64 = 1.25;

/// Most lengths that are labelled; more of them get round numbers.
const MOST_LABELS: usize = 7;

/// A value at one length, with its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// T.
    pub(super) length: f64,
    /// What the line goes through.
    pub(super) middle: f64,
    /// The least of all repeats.
    pub(super) low: f64,
    /// The most of them.
    pub(super) high: f64,
}

/// A logarithmic axis of these lengths, labelled at each where there is room.
pub(super) fn length_axis(lengths: impl Iterator<Item = usize>) -> Axis {
    let mut lengths: Vec<f64> = lengths.map(|length| length as f64).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.dedup();
    let first = lengths.first().copied().unwrap_or(1.0) / AIR;
    let last = lengths.last().copied().unwrap_or(1.0) * AIR;
    // Labels stay apart where lengths are half as long again as the one before.
    let apart = lengths.windows(2).all(|pair| pair[1] >= 1.5 * pair[0]);
    match apart && lengths.len() <= MOST_LABELS {
        true => Axis::log_at(first, last, lengths),
        false => Axis::log(first * AIR, last / AIR, MOST_LABELS),
    }
}

/// A logarithmic axis that holds every one of these ranges, in a panel of `height` points.
pub(super) fn value_axis(ranges: impl Iterator<Item = (f64, f64)> + Clone, height: f64) -> Axis {
    let most = label_count(points(height), HEIGHT_OF_LABEL);
    let low = ranges.clone().map(|r| r.0).fold(f64::INFINITY, f64::min);
    let high = ranges.map(|r| r.1).fold(0.0, f64::max);
    match low.is_finite() {
        true => Axis::log(low, high, most),
        false => Axis::log(1.0, 10.0, most),
    }
}

/// The bands of all series that have one, as a legend's key.
pub(super) fn band_key<'s>(series: impl Iterator<Item = (Pen, &'s [Point])>) -> Key {
    let banded = series.filter(|(_, all)| all.iter().any(|p| p.low < p.high));
    Key::Band(banded.map(|(pen, _)| pen.colour).collect())
}

/// Bands first, then lines, then markers, so that no band hides another series' line.
pub(super) fn draw_series<DB: DrawingBackend>(
    panel: &Panel<'_, DB>,
    series: &[(Pen, &[Point])],
) -> Drawn<DB> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(lengths: &[usize]) -> Vec<String> {
        length_axis(lengths.iter().copied()).labels().collect()
    }

    #[test]
    fn lengths_are_labelled_where_their_labels_stay_apart() {
        assert_eq!(labels(&[2048, 512, 1024, 512]), ["512", "1,024", "2,048"]);
        let close = labels(&[1000, 1100, 1200, 2000]);
        assert_eq!((&*close[0], &*close[close.len() - 1]), ("1,000", "2,000"));
    }

    #[test]
    fn ranges_lie_inside_their_axis() {
        let axis = value_axis([(2.0, 3.0), (0.5, 0.6)].into_iter(), 118.0);
        assert!(axis.low() <= 0.5 && axis.high() >= 3.0);
        let empty = value_axis(std::iter::empty(), 118.0);
        assert!(empty.low() > 0.0 && empty.high() > empty.low());
    }
}
