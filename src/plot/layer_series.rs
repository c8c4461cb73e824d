//! Series over the layers of a model: their axes, and how lines, bands and markers are drawn.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawn, label_count, points};
use super::frame::Panel;
use super::legend::Key;
use super::pen::{Pen, Spot};
use super::spread::Spread;
use crate::error::{Error, Result};

/// Room that a layer's label needs on an axis, in points.
pub(super) const LAYER_LABEL: f64 = 16.0;

/// Room that a label needs on a vertical axis, in points: its height and a gap.
pub(super) const HEIGHT_OF_LABEL: f64 = 10.0;

/// Most labels of a linear axis that is as high as a panel of its own.
const MOST_LINEAR: usize = 6;

/// Least distance of two markers of one series, in points.
const MARKS_APART: f64 = 4.2;

/// Which layers of a series are marked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Marks {
    /// Every one, or as many as stay apart: for series that do not meet.
    Every,
    /// One series after the other, so that no marker hides another's.
    InTurn,
}

/// The vertical axis of `series` in a panel of `height` points: from 0, or logarithmic where `log` asks for it.
///
/// Errors: [`Error::Invalid`] for a value of 0 on a logarithmic axis.
pub(super) fn value_axis<'s>(
    series: impl Iterator<Item = &'s Spread> + Clone,
    log: bool,
    height: f64,
) -> Result<Axis> {
    let (low, high) = ends(series);
    let most = label_count(points(height), HEIGHT_OF_LABEL);
    match (log, low > 0.0) {
        (true, true) => Ok(Axis::log(low, high, most)),
        (true, false) => Err(Error::invalid(
            "smallest value on a logarithmic axis",
            low,
            "it must lie above 0: leave out --log",
        )),
        (false, _) => Ok(Axis::from_zero(high, most.min(MOST_LINEAR))),
    }
}

/// The least and the greatest value that will be drawn.
pub(super) fn ends<'s>(series: impl Iterator<Item = &'s Spread> + Clone) -> (f64, f64) {
    let bottoms = series.clone().map(Spread::bottom);
    (
        bottoms.fold(f64::INFINITY, f64::min),
        series.map(Spread::top).fold(f64::NEG_INFINITY, f64::max),
    )
}

/// The key of every band that is drawn, in the colours of their series.
pub(super) fn band_key(series: &[(Pen, Spread)]) -> Key {
    let banded = series.iter().filter(|(_, s)| s.low != s.high);
    Key::Band(banded.map(|(pen, _)| pen.colour).collect())
}

/// Draws bands first, then lines, then markers, so that no band hides another series' line.
pub(super) fn draw_series<DB: DrawingBackend>(
    panel: &Panel<'_, DB>,
    series: &[(Pen, Spread)],
    marks: Marks,
) -> Drawn<DB> {
    let place = |values: &[f64]| -> Vec<Spot> {
        values
            .iter()
            .enumerate()
            .map(|(layer, &v)| panel.at(layer as f64, v))
            .collect()
    };
    for (pen, spread) in series {
        if spread.low != spread.high {
            pen.band(&panel.sheet, &place(&spread.low), &place(&spread.high))?;
        }
    }
    for (pen, spread) in series {
        pen.line(&panel.sheet, place(&spread.mean))?;
    }
    for (index, (pen, spread)) in series.iter().enumerate() {
        let spots = place(&spread.mean);
        let turn = match marks {
            Marks::Every => (0, 1),
            Marks::InTurn => (index, series.len()),
        };
        for layer in marked(spots.len(), marker_step(&spots), turn) {
            pen.mark(&panel.sheet, spots[layer])?;
        }
    }
    Ok(())
}

/// The layers that are marked, a multiple of `step` apart: those of series `turn.0` of `turn.1` series, or all where a
/// series would have fewer than two marks.
fn marked(layers: usize, step: usize, turn: (usize, usize)) -> impl Iterator<Item = usize> {
    let (index, of) = match layers >= 2 * step * turn.1 {
        true => turn,
        false => (0, 1),
    };
    (index * step..layers).step_by(step * of)
}

/// Every how manyeth value gets a marker, so that markers of deep models do not merge.
fn marker_step(spots: &[Spot]) -> usize {
    match spots {
        [first, second, ..] => {
            let distance = (second.0 - first.0).max(1);
            (points(MARKS_APART) as usize)
                .div_ceil(distance as usize)
                .max(1)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread {
            mean: values.to_vec(),
            low: values.to_vec(),
            high: values.to_vec(),
        }
    }

    #[test]
    fn series_take_turns_at_being_marked() {
        let all: Vec<Vec<usize>> = (0..4).map(|i| marked(30, 1, (i, 4)).collect()).collect();
        assert_eq!(all[0][..3], [0, 4, 8]);
        let mut layers = all.concat();
        layers.sort_unstable();
        assert_eq!(layers, (0..30).collect::<Vec<_>>(), "every layer once");
        assert_eq!(marked(30, 2, (1, 2)).collect::<Vec<_>>()[..3], [2, 6, 10]);
        assert_eq!(marked(5, 1, (3, 4)).count(), 5, "too few to take turns");
        assert_eq!(marked(0, 1, (0, 1)).count(), 0);
    }

    #[test]
    fn values_lie_on_their_axis_and_zero_on_no_logarithmic_one() {
        let series = [spread(&[3.0, 40.0]), spread(&[7.0, 680.0])];
        for log in [false, true] {
            let axis = value_axis(series.iter(), log, 125.0).unwrap();
            assert_eq!(axis.is_log(), log);
            assert!(axis.low() <= 3.0 && axis.high() >= 680.0);
        }
        let zero = [spread(&[0.0, 40.0])];
        assert!(value_axis(zero.iter(), false, 125.0).is_ok());
        let refused = value_axis(zero.iter(), true, 125.0).unwrap_err();
        assert!(refused.to_string().contains("leave out --log"));
    }
}
