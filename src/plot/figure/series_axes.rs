//! Axes that hold every point of some series.

use super::axis::Axis;
use super::canvas::{label_count, points};
use super::shapes::Series;
use crate::error::{Error, Result};

/// Room that a label needs on a vertical axis, in points: its height and a gap.
const HEIGHT_OF_LABEL: f64 = 10.0;

/// Most labels of a linear axis that is as high as a panel of its own.
const MOST_LINEAR: usize = 6;

/// Room beyond the outermost lengths, as a factor.
const AIR: f64 = 1.25;

/// Most lengths that are labelled; more of them get round numbers.
const MOST_LENGTHS: usize = 7;

/// Labels that a vertical axis `height` points high has room for.
pub fn labels_up(height: f64) -> usize {
    label_count(points(height), HEIGHT_OF_LABEL)
}

/// The least and the greatest of `values`.
pub fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    })
}

/// The least and the greatest value of `all` that will be drawn.
pub fn spread_ends<'s>(all: impl IntoIterator<Item = &'s Series>) -> (f64, f64) {
    let points = all.into_iter().flat_map(|series| &series.points);
    ends(points.flat_map(|p| [p.low, p.middle, p.high]))
}

/// The vertical axis of values between `low` and `high` in a panel of `height` points: from 0, or logarithmic where `log`
/// asks for it.
///
/// Errors: [`Error::Invalid`] for a value of 0 on a logarithmic axis.
pub fn from_zero_or_log((low, high): (f64, f64), log: bool, height: f64) -> Result<Axis> {
    let most = labels_up(height);
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

/// A logarithmic axis of values between `low` and `high`, or of any where there are none, in a panel of `height` points.
pub fn log_axis((low, high): (f64, f64), height: f64) -> Axis {
    let (low, high) = if low.is_finite() {
        (low, high)
    } else {
        (1.0, 10.0)
    };
    Axis::log(low, high, labels_up(height))
}

/// A logarithmic axis of these lengths, labelled at each where there is room.
pub fn length_axis(lengths: impl Iterator<Item = f64>) -> Axis {
    let mut lengths: Vec<f64> = lengths.collect();
    lengths.sort_by(f64::total_cmp);
    lengths.dedup();
    let [first, last] = [lengths.first(), lengths.last()].map(|end| end.copied().unwrap_or(1.0));
    // Labels stay apart where lengths are half as long again as the one before.
    let apart = lengths.windows(2).all(|pair| pair[1] >= 1.5 * pair[0]);
    if apart && lengths.len() <= MOST_LENGTHS {
        Axis::log_at(first / AIR, last * AIR, lengths)
    } else {
        Axis::log(first, last, MOST_LENGTHS)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pen::PENS;
    use super::super::shapes::Point;
    use super::*;

    fn labels(lengths: &[f64]) -> Vec<String> {
        length_axis(lengths.iter().copied()).labels().collect()
    }

    #[test]
    fn lengths_are_labelled_where_their_labels_stay_apart() {
        let doubled = labels(&[2048.0, 512.0, 1024.0, 512.0]);
        assert_eq!(doubled, ["512", "1,024", "2,048"]);
        let close = labels(&[1000.0, 1100.0, 1200.0, 2000.0]);
        assert_eq!((&*close[0], &*close[close.len() - 1]), ("1,000", "2,000"));
    }

    #[test]
    fn values_lie_on_their_axis_and_zero_on_no_logarithmic_one() {
        let points = [3.0, 40.0, 7.0, 680.0].map(|v| Point::alone(0.0, v));
        let series = Series::banded(PENS[0], points.to_vec());
        for log in [false, true] {
            let axis = from_zero_or_log(spread_ends([&series]), log, 125.0).unwrap();
            assert_eq!(axis.is_log(), log);
            assert!(axis.low() <= 3.0 && axis.high() >= 680.0);
        }
        assert!(from_zero_or_log((0.0, 40.0), false, 125.0).is_ok());
        let refused = from_zero_or_log((0.0, 40.0), true, 125.0).unwrap_err();
        assert!(refused.to_string().contains("leave out --log"));
    }

    #[test]
    fn ranges_lie_inside_their_axis() {
        let axis = log_axis(ends([2.0, 3.0, 0.5, 0.6].into_iter()), 118.0);
        assert!(axis.low() <= 0.5 && axis.high() >= 3.0);
        let empty = log_axis(ends(std::iter::empty()), 118.0);
        assert!(empty.low() > 0.0 && empty.high() > empty.low());
    }
}
