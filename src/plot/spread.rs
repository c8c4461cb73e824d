//! What a chart says about many prompts: their mean, and how far they lie apart.

use super::text;

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
    pub(super) fn of(prompts: impl IntoIterator<Item = usize> + Clone) -> Self {
        let most = prompts.clone().into_iter().max().unwrap_or(0);
        let least = prompts.into_iter().filter(|&n| n > 1).min().unwrap_or(0);
        match (most, least) {
            (0 | 1, _) => Self::None,
            (_, n) if n < ENOUGH_FOR_PERCENTILES => Self::Range,
            _ => Self::Percentiles,
        }
    }

    /// Words for the legend, as many as `room` units hold; `prompts` is the number that all series share.
    pub(super) fn words(self, prompts: Option<usize>, room: i32) -> Option<String> {
        let band = match self {
            Self::None => return None,
            Self::Range => "min\u{2013}max",
            Self::Percentiles => "10th\u{2013}90th percentile",
        };
        let of = prompts.map_or_else(|| "prompts".to_owned(), |n| format!("{n} prompts"));
        let words = format!("{band} of {of}");
        Some(if text::width(&words) <= room {
            words
        } else {
            band.to_owned()
        })
    }
}

/// Mean and band of several prompts' values, index by index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    /// Arithmetic mean over prompts.
    pub(super) mean: Vec<f64>,
    /// Lower edge of the band.
    pub(super) low: Vec<f64>,
    /// Upper edge of the band.
    pub(super) high: Vec<f64>,
}

impl Spread {
    /// Mean and `band` of `values[prompt][index]`.
    ///
    /// Every prompt must have as many values as the first.
    pub(super) fn over_prompts(values: &[Vec<f64>], band: Band) -> Self {
        let (low, high) = match band {
            Band::Percentiles => (0.1, 0.9),
            Band::None | Band::Range => (0.0, 1.0),
        };
        let width = values.first().map_or(0, Vec::len);
        let mut spread = Self {
            mean: Vec::new(),
            low: Vec::new(),
            high: Vec::new(),
        };
        for index in 0..width {
            let mut column: Vec<f64> = values
                .iter()
                .filter_map(|v| v.get(index).copied())
                .collect();
            column.sort_by(f64::total_cmp);
            spread.mean.push(mean(&column));
            spread.low.push(quantile(&column, low));
            spread.high.push(quantile(&column, high));
        }
        spread
    }

    /// The largest value that will be drawn.
    pub(super) fn top(&self) -> f64 {
        self.high
            .iter()
            .chain(&self.mean)
            .copied()
            .fold(f64::NEG_INFINITY, f64::max)
    }

    /// The smallest value that will be drawn.
    pub(super) fn bottom(&self) -> f64 {
        self.low
            .iter()
            .chain(&self.mean)
            .copied()
            .fold(f64::INFINITY, f64::min)
    }
}

/// Arithmetic mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
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

    #[test]
    fn eleven_prompts_lose_their_outermost_values() {
        let values: Vec<Vec<f64>> = (0..11).map(|i| vec![f64::from(i), 5.0]).collect();
        let spread = Spread::over_prompts(&values, Band::of([11]));
        assert_eq!(spread.mean, [5.0, 5.0]);
        assert_eq!(spread.low, [1.0, 5.0]);
        assert_eq!(spread.high, [9.0, 5.0]);
        assert_eq!((spread.bottom(), spread.top()), (1.0, 9.0));
    }

    #[test]
    fn few_prompts_show_all() {
        let spread = Spread::over_prompts(&[vec![1.0], vec![4.0]], Band::of([2]));
        assert_eq!(
            (spread.low[0], spread.mean[0], spread.high[0]),
            (1.0, 2.5, 4.0)
        );
        assert_eq!(
            Band::of([2]).words(Some(2), 9999).unwrap(),
            "min–max of 2 prompts"
        );
        assert_eq!(
            Band::of([2, 3]).words(None, 9999).unwrap(),
            "min–max of prompts"
        );
        assert_eq!(Band::of([2]).words(Some(2), 9).unwrap(), "min–max");
        assert_eq!(Band::of([1]).words(Some(1), 9999), None);
        assert_eq!(Band::of([50, 10]), Band::Percentiles);
        assert_eq!(Band::of([50, 9]), Band::Range);
        assert_eq!(Band::of([50, 1]), Band::Percentiles);
    }
}
