//! Axes: how values become positions, and where the ticks are.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Spacing of values along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    Log,
}

/// A scale, its ends, and its ticks: labelled `major` ones and bare `minor` ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    start: f64,
    end: f64,
    major: Vec<f64>,
    minor: Vec<f64>,
    /// Labels of the values 0, 1, ... instead of their numbers.
    names: Vec<String>,
}

impl Axis {
    /// Indices 0 to `count - 1`, `pad` beyond either end, with at most `most` labels, all integral.
    pub(super) fn indices(count: usize, pad: f64, most: usize) -> Self {
        let last = count.saturating_sub(1) as f64;
        let step = nice_step(last, most).max(1.0);
        Self::linear(-pad, last + pad, multiples(0.0, last, step))
    }

    /// Half a step beyond the first and the last of `names`, every one of which is a step; at most `most`
    /// are written.
    pub(super) fn categories(names: Vec<String>, most: usize) -> Self {
        let count = names.len();
        let step = count.div_ceil(most.max(1)).max(1);
        let major = (0..count).step_by(step).map(|i| i as f64).collect();
        Self {
            names,
            ..Self::linear(-0.5, count as f64 - 0.5, major)
        }
    }

    /// Layers 0 to `count - 1`, with room at either end for a marker.
    pub(super) fn layers(count: usize, most: usize) -> Self {
        Self::indices(count, (0.015 * count as f64).max(0.6), most)
    }

    /// Values from 0 to `high`, with a little air above.
    pub(super) fn from_zero(high: f64, most: usize) -> Self {
        let top = if high > 0.0 { high * 1.04 } else { 1.0 };
        Self::linear(0.0, top, multiples(0.0, top, nice_step(top, most)))
    }

    /// Values from `low` to `high`; equal ends are moved apart.
    pub(super) fn between(low: f64, high: f64, most: usize) -> Self {
        let (low, high) = if high > low {
            (low, high)
        } else {
            let air = low.abs().max(1.0) * 0.05;
            (low - air, low + air)
        };
        Self::linear(low, high, multiples(low, high, nice_step(high - low, most)))
    }

    fn linear(start: f64, end: f64, major: Vec<f64>) -> Self {
        Self {
            scale: Scale::Linear,
            start,
            end,
            major,
            minor: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Positive values from `low` to `high` on a logarithmic scale; both ends are kept as they are.
    ///
    /// Decades are labelled; where fewer than three lie on the axis, 2 and 5 are labelled as well.
    pub(super) fn log(low: f64, high: f64) -> Self {
        let low = if low > 0.0 { low } else { f64::MIN_POSITIVE };
        let high = if high > low { high } else { low * 10.0 };
        let inside = |v: &f64| *v >= low * (1.0 - 1e-9) && *v <= high * (1.0 + 1e-9);
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let ticks = |digits: &[f64]| -> Vec<f64> {
            let of_decade = |d: i32| digits.iter().map(move |m| power_of_ten(d) * m);
            decades.clone().flat_map(of_decade).filter(inside).collect()
        };
        let mut major = ticks(&[1.0]);
        if major.len() > 7 {
            let every = major.len().div_ceil(7);
            major = major.into_iter().step_by(every).collect();
        } else if major.len() < 3 {
            major = ticks(&[1.0, 2.0, 5.0]);
        }
        if major.len() < 2 {
            major = multiples(low, high, nice_step(high - low, 4));
        }
        let mut minor = ticks(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        minor.retain(|m| !major.contains(m));
        Self {
            scale: Scale::Log,
            start: low,
            end: high,
            major,
            minor,
            names: Vec::new(),
        }
    }

    /// Positive values from `low` to `high` on a logarithmic scale, labelled at `labels` and nowhere else.
    pub(super) fn log_at(low: f64, high: f64, labels: Vec<f64>) -> Self {
        Self {
            major: labels,
            minor: Vec::new(),
            ..Self::log(low, high)
        }
    }

    /// The same axis running the other way.
    pub(super) fn reversed(self) -> Self {
        Self {
            start: self.end,
            end: self.start,
            ..self
        }
    }

    /// Where `value` lies: 0 at the axis' start, 1 at its end.
    pub(super) fn fraction(&self, value: f64) -> f64 {
        let place = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Log => v.max(f64::MIN_POSITIVE).ln(),
        };
        let (start, end) = (place(self.start), place(self.end));
        (place(value) - start) / (end - start)
    }

    /// The lowest value on the axis.
    pub(super) fn low(&self) -> f64 {
        self.start.min(self.end)
    }

    /// Values with a label.
    pub(super) fn major(&self) -> &[f64] {
        &self.major
    }

    /// Values with a bare tick.
    pub(super) fn minor(&self) -> &[f64] {
        &self.minor
    }

    /// The labels of [`Axis::major`].
    pub(super) fn labels(&self) -> impl Iterator<Item = String> {
        self.major.iter().map(|&v| self.label(v))
    }

    fn label(&self, value: f64) -> String {
        let name = self.names.get(value.round().max(0.0) as usize);
        name.cloned().unwrap_or_else(|| number(value))
    }

    /// The highest value on the axis.
    pub(super) fn high(&self) -> f64 {
        self.start.max(self.end)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        // A value far outside must not overflow the renderers' 16-bit or 32-bit coordinates.
        let fraction = self.fraction(*value).clamp(-2.0, 3.0);
        limit.0 + (fraction * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.major.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.start..self.end
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}

/// A number as a reader expects it: thousands grouped, no needless decimals.
pub(super) fn number(value: f64) -> String {
    let mut text = format!("{:.6}", value.abs());
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    let (whole, decimals) = match text.split_once('.') {
        Some((whole, decimals)) => (whole.to_owned(), format!(".{decimals}")),
        None => (text, String::new()),
    };
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "\u{2212}" } else { "" };
    format!("{sign}{grouped}{decimals}")
}

/// 10 to the `exponent`, exact for the powers that a float holds exactly.
fn power_of_ten(exponent: i32) -> f64 {
    if exponent >= 0 {
        10f64.powi(exponent)
    } else {
        1.0 / 10f64.powi(-exponent)
    }
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that cuts `span` into at most `most` steps.
///
/// 2.5 is left out where it would give decimals: layers and tokens are whole.
fn nice_step(span: f64, most: usize) -> f64 {
    let raw = span / most.max(1) as f64;
    if !(raw > 0.0 && raw.is_finite()) {
        return 1.0;
    }
    let decade = power_of_ten(raw.log10().floor() as i32);
    let fits = |m: &f64| m * decade >= raw * (1.0 - 1e-9) && (*m != 2.5 || decade >= 10.0);
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(fits);
    nice.unwrap_or(10.0) * decade
}

/// Multiples of `step` from `low` to `high`.
fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    let slack = step * 1e-9;
    let first = ((low - slack) / step).ceil();
    let count = ((high + slack) / step).floor() - first;
    (0..=count.clamp(-1.0, 100.0) as i64)
        .map(|i| (first + i as f64) * step)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.labels().collect()
    }

    #[test]
    fn layer_ticks_are_integral() {
        assert_eq!(
            labels(&Axis::indices(30, 0.5, 7)),
            ["0", "5", "10", "15", "20", "25"]
        );
        assert_eq!(labels(&Axis::indices(3, 0.5, 7)), ["0", "1", "2"]);
        assert_eq!(labels(&Axis::indices(1, 0.5, 7)), ["0"]);
        assert_eq!(labels(&Axis::indices(80, 0.5, 6)), ["0", "20", "40", "60"]);
    }

    #[test]
    fn categories_keep_their_names() {
        let names = |n: usize| (0..n).map(|i| format!("{i}k")).collect();
        assert_eq!(labels(&Axis::categories(names(3), 5)), ["0k", "1k", "2k"]);
        assert_eq!(
            labels(&Axis::categories(names(11), 6)),
            ["0k", "2k", "4k", "6k", "8k", "10k"]
        );
        assert_eq!(Axis::categories(names(4), 9).fraction(1.5), 0.5);
    }

    #[test]
    fn token_ticks_are_round() {
        assert_eq!(
            labels(&Axis::from_zero(1151.0, 5)),
            ["0", "250", "500", "750", "1,000"]
        );
        assert_eq!(
            labels(&Axis::from_zero(0.0, 5)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(labels(&Axis::between(7.0, 7.0, 6)), ["6.8", "7", "7.2"]);
    }

    #[test]
    fn decades_are_labelled() {
        let axis = Axis::log(1.0, 2015.0);
        assert_eq!(labels(&axis), ["1", "10", "100", "1,000"]);
        assert_eq!(axis.minor().len(), 8 * 3 + 1);
        assert_eq!(
            labels(&Axis::log(1e-4, 1.0)),
            ["0.0001", "0.001", "0.01", "0.1", "1"]
        );
        assert_eq!(labels(&Axis::log(30.0, 300.0)), ["50", "100", "200"]);
        assert_eq!(
            labels(&Axis::log(210.0, 290.0)),
            ["220", "240", "260", "280"]
        );
    }

    #[test]
    fn values_map_to_positions() {
        let axis = Axis::log(1.0, 100.0);
        assert_eq!(axis.map(&10.0, (0, 200)), 100);
        assert_eq!(Axis::indices(3, 0.5, 5).reversed().map(&2.5, (90, 0)), 90);
        assert!(axis.map(&0.0, (0, 200)) < 0);
    }

    #[test]
    fn numbers_are_grouped_and_trimmed() {
        let shown: Vec<String> = [0.0, 1000.0, 1234567.5, 0.0001, -0.25].map(number).into();
        assert_eq!(
            shown,
            ["0", "1,000", "1,234,567.5", "0.0001", "\u{2212}0.25"]
        );
    }
}
