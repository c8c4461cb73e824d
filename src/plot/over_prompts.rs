//! What a chart says about many prompts: their mean, how far they lie apart, and how sure the mean is.

use super::figure::{Entry, Key, Point, Series, Words};
use crate::eval::Bootstrap;

/// Fewest prompts for which a percentile means something.
const ENOUGH_FOR_PERCENTILES: usize = 10;

/// Which band a chart draws around the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Band {
    /// One prompt: none.
    None,
    /// Fewer than ten prompts: all of them.
    Range,
    /// Ten prompts or more: all but the outer tenths.
    Percentiles,
}

impl Band {
    /// The band for profiles of these numbers of prompts; charts draw one kind for all.
    pub(super) fn of(prompts: &[usize]) -> Self {
        let most = prompts.iter().max().unwrap_or(&0);
        let least = prompts.iter().filter(|&&n| n > 1).min().unwrap_or(&0);
        match (most, least) {
            (0 | 1, _) => Self::None,
            (_, n) if *n < ENOUGH_FOR_PERCENTILES => Self::Range,
            _ => Self::Percentiles,
        }
    }

    /// Words for the legend; `prompts` is the number that all series share.
    fn words(self, prompts: Option<usize>) -> Option<Words> {
        let band = match self {
            Self::None => return None,
            Self::Range => "min\u{2013}max",
            Self::Percentiles => "10th\u{2013}90th percentile",
        };
        let of = prompts.map_or_else(|| "prompts".to_owned(), |n| format!("{n} prompts"));
        Some(Words::of([format!("{band} of {of}"), band.to_owned()]))
    }

    /// The legend's entry for the bands of `series` over these numbers of prompts, where there are any.
    pub(super) fn entry(self, prompts: &[usize], series: &[Series]) -> Option<Entry> {
        let words = self.words(common_count(prompts))?;
        Some((Key::bands(series), words))
    }

    /// Mean and band of `values[prompt][index]`, index by index.
    ///
    /// Every prompt must have as many values as the first.
    pub(super) fn around_means(self, values: &[Vec<f64>]) -> Vec<Point> {
        let (low, high) = match self {
            Self::Percentiles => (0.1, 0.9),
            Self::None | Self::Range => (0.0, 1.0),
        };
        let width = values.first().map_or(0, Vec::len);
        let point = |index: usize| {
            let column = values.iter().filter_map(|v| v.get(index).copied());
            let mut column: Vec<f64> = column.collect();
            column.sort_by(f64::total_cmp);
            let ends = (quantile(&column, low), quantile(&column, high));
            Point::between(index as f64, mean(&column), ends)
        };
        (0..width).map(point).collect()
    }
}

/// The number of prompts, where all series have the same.
pub(super) fn common_count(counts: &[usize]) -> Option<usize> {
    let first = *counts.first()?;
    counts.iter().all(|&n| n == first).then_some(first)
}

/// Arithmetic mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean and bootstrap interval at 95 % of one value per prompt, at `x`; seeded, so equal input gives equal ends.
pub(super) fn mean_with_interval(x: f64, values: &[f64]) -> Point {
    let mean = mean(values);
    let interval = Bootstrap::default().interval(values);
    Point::between(x, mean, interval.map_or((mean, mean), |i| (i.low, i.high)))
}

/// The `q` quantile of ascending values, linear between neighbours.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(a), Some(b)) => a + (b - a) * (place - place.floor()),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::figure::{PENS, spread_ends};

    #[test]
    fn eleven_prompts_lose_their_outermost_values() {
        let values: Vec<Vec<f64>> = (0..11).map(|i| vec![f64::from(i), 5.0]).collect();
        let points = Band::of(&[11]).around_means(&values);
        let of = |value: fn(&Point) -> f64| points.iter().map(value).collect::<Vec<_>>();
        assert_eq!(of(|p| p.middle), [5.0, 5.0]);
        assert_eq!(of(|p| p.low), [1.0, 5.0]);
        assert_eq!(of(|p| p.high), [9.0, 5.0]);
        let series = Series::banded(PENS[0], points);
        assert_eq!(spread_ends([&series]), (1.0, 9.0));
    }

    #[test]
    fn few_prompts_show_all() {
        let points = Band::of(&[2]).around_means(&[vec![1.0], vec![4.0]]);
        assert_eq!(
            (points[0].low, points[0].middle, points[0].high),
            (1.0, 2.5, 4.0)
        );
        let words = |band: Band, prompts, room| Some(band.words(prompts)?.within(room));
        let range = Band::of(&[2]);
        assert_eq!(words(range, Some(2), 9999).unwrap(), "min–max of 2 prompts");
        assert_eq!(
            words(Band::of(&[2, 3]), None, 9999).unwrap(),
            "min–max of prompts"
        );
        let short = crate::plot::figure::text_width("min–max");
        assert_eq!(words(range, Some(2), short).unwrap(), "min–max");
        assert_eq!(words(Band::of(&[1]), Some(1), 9999), None);
        assert_eq!(Band::of(&[50, 10]), Band::Percentiles);
        assert_eq!(Band::of(&[50, 9]), Band::Range);
        assert_eq!(Band::of(&[50, 1]), Band::Percentiles);
    }

    #[test]
    fn ends_enclose_the_mean_at_two_standard_errors() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let interval = mean_with_interval(0.0, &values);
        assert_eq!(interval.middle, 49.5);
        let half = 1.96 * 28.866 / 10.0;
        assert!((interval.low - (49.5 - half)).abs() < 0.5, "{interval:?}");
        assert!((interval.high - (49.5 + half)).abs() < 0.5, "{interval:?}");
        assert_eq!(interval, mean_with_interval(0.0, &values));
    }

    #[test]
    fn equal_values_and_single_ones_leave_no_doubt() {
        for values in [&[3.0; 7][..], &[3.0]] {
            let interval = mean_with_interval(0.0, values);
            assert_eq!(
                (interval.low, interval.middle, interval.high),
                (3.0, 3.0, 3.0)
            );
        }
    }
}
