//! Axes: how values become positions, and where the ticks are.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::canvas::{heading_room, label_count, points};
use super::text;
use super::ticks::{self, first_to_last, multiples, nice_step};

/// Ratio of the largest to the smallest value from which on a scale is logarithmic.
const DECADE: f64 = 10.0;

/// Room that a layer's label needs on an axis, in points.
const LAYER_LABEL: f64 = 16.0;

/// Spacing of values along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    Log,
}

/// A scale, its ends, and its ticks: labelled `major` ones and bare `minor` ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    scale: Scale,
    start: f64,
    end: f64,
    major: Vec<f64>,
    minor: Vec<f64>,
    /// Labels of the values 0, 1, ... instead of their numbers.
    labels: Vec<String>,
    /// What it measures, with its unit in parentheses where it has one.
    name: String,
}

impl Axis {
    /// Indices 0 to `count - 1`, `pad` beyond either end, with at most `most` labels, all integral; the first and
    /// the last are labelled.
    pub fn indices(count: usize, pad: f64, most: usize) -> Self {
        let last = count.saturating_sub(1);
        let step = nice_step(last as f64, most).max(1.0) as usize;
        Self::linear(-pad, last as f64 + pad, first_to_last(last, step, most))
    }

    /// Half a step beyond the first and the last of `labels`, every one of which is a step; at most `most`
    /// are written, the first and the last among them.
    pub fn categories(labels: Vec<String>, most: usize) -> Self {
        let count = labels.len();
        let last = count.saturating_sub(1);
        let step = count.div_ceil(most.max(1)).max(1);
        Self {
            labels,
            ..Self::linear(
                -0.5,
                count as f64 - 0.5,
                first_to_last(last, step, last.div_ceil(step)),
            )
        }
    }

    /// Layers 0 to `count - 1`, with room at either end for a marker, in a figure `width` units wide of so many columns,
    /// which lie `apart` points from each other.
    pub fn layers(count: usize, width: i32, columns: usize, apart: f64) -> Self {
        let panel = heading_room(width) / columns as i32 - points(apart);
        let most = label_count(panel, LAYER_LABEL);
        Self::indices(count, (0.015 * count as f64).max(0.6), most).called("Layer")
    }

    /// Depths from 0, the first layer, to 1, the last, otherwise as [`Self::layers`].
    pub fn relative_depth(width: i32, columns: usize, apart: f64) -> Self {
        let panel = heading_room(width) / columns as i32 - points(apart);
        let axis = Self::covering(0.0, 1.0, label_count(panel, LAYER_LABEL).min(6));
        axis.padded().called("Relative depth, l/(L \u{2212} 1)")
    }

    /// Values from 0 to `high`, ending on the first label that is not below it.
    pub fn from_zero(high: f64, most: usize) -> Self {
        Self::covering(0.0, if high > 0.0 { high } else { 1.0 }, most)
    }

    /// Values from `low` to `high`, beginning and ending on labels, of which there are about `most`; equal ends are
    /// moved apart.
    pub fn covering(low: f64, high: f64, most: usize) -> Self {
        let (low, high) = if high > low {
            (low, high)
        } else {
            let air = low.abs().max(1.0) * 0.05;
            (low - air, low + air)
        };
        let step = nice_step(high - low, most);
        let slack = 1e-9;
        let start = (low / step + slack).floor() * step;
        let end = (high / step - slack).ceil() * step;
        Self::linear(start, end, multiples(start, end, step))
    }

    /// 0 to 100 %, with room beyond either end for a marker.
    pub fn per_cent(most: usize) -> Self {
        Self::covering(0.0, 100.0, most).padded()
    }

    /// The same labels with room beyond the outermost ones for a marker.
    pub fn padded(self) -> Self {
        let air = 0.025 * (self.end - self.start);
        Self {
            start: self.start - air,
            end: self.end + air,
            ..self
        }
    }

    fn linear(start: f64, end: f64, major: Vec<f64>) -> Self {
        Self {
            scale: Scale::Linear,
            start,
            end,
            major,
            minor: Vec::new(),
            labels: Vec::new(),
            name: String::new(),
        }
    }

    /// The same axis of what `name` says, which ends with its unit in parentheses where it has one.
    pub fn called(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// Whether values from `low` to `high` need a logarithmic scale: a decade, on a linear one, would press the small
    /// ones together.
    pub fn needs_log(low: f64, high: f64) -> bool {
        low > 0.0 && high >= DECADE * low
    }

    /// Positive values from `low` to `high` on a logarithmic scale that begins and ends on labels and has room for
    /// `most`.
    pub fn log(low: f64, high: f64, most: usize) -> Self {
        let (start, end) = ticks::ends(positive(low), positive(high), most);
        Self::log_between(start, end, most)
    }

    /// Positive values from `low` to `high` on a logarithmic scale; both ends are kept as they are, and labelled.
    pub fn log_between(low: f64, high: f64, most: usize) -> Self {
        let low = positive(low);
        let high = if high > low { high } else { low * 10.0 };
        let (major, minor) = ticks::ticks(low, high, most);
        Self {
            scale: Scale::Log,
            minor,
            ..Self::linear(low, high, major)
        }
    }

    /// Positive values from `low` to `high` on a logarithmic scale, labelled at `labels` and nowhere else.
    pub fn log_at(low: f64, high: f64, labels: Vec<f64>) -> Self {
        Self {
            major: labels,
            minor: Vec::new(),
            ..Self::log_between(low, high, 1)
        }
    }

    /// The same axis running the other way.
    pub fn reversed(self) -> Self {
        Self {
            start: self.end,
            end: self.start,
            ..self
        }
    }

    /// Where `value` lies: 0 at the axis' start, 1 at its end.
    pub fn fraction(&self, value: f64) -> f64 {
        let place = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Log => v.max(f64::MIN_POSITIVE).ln(),
        };
        let (start, end) = (place(self.start), place(self.end));
        (place(value) - start) / (end - start)
    }

    /// Whether the scale is logarithmic.
    pub(super) fn is_log(&self) -> bool {
        self.scale == Scale::Log
    }

    /// Its name, saying so if the scale is logarithmic; in as many words as `room` units hold.
    pub fn named(&self, room: i32) -> String {
        let name = &self.name;
        if !self.is_log() || name.is_empty() {
            return name.clone();
        }
        let with = |words: &str| match name.strip_suffix(')') {
            Some(open) => format!("{open}, {words})"),
            None => format!("{name} ({words})"),
        };
        let long = with("log scale");
        if text::width(&long) <= room {
            long
        } else {
            with("log")
        }
    }

    /// The lowest value on the axis.
    pub fn low(&self) -> f64 {
        self.start.min(self.end)
    }

    /// Values with a label.
    pub fn major(&self) -> &[f64] {
        &self.major
    }

    /// Values with a bare tick.
    pub(super) fn minor(&self) -> &[f64] {
        &self.minor
    }

    /// The labels of [`Axis::major`].
    pub fn labels(&self) -> impl Iterator<Item = String> {
        self.major.iter().map(|&v| self.label(v))
    }

    fn label(&self, value: f64) -> String {
        let label = self.labels.get(value.round().max(0.0) as usize);
        label.cloned().unwrap_or_else(|| number(value))
    }

    /// The highest value on the axis.
    pub fn high(&self) -> f64 {
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
pub fn number(value: f64) -> String {
    // What six decimals would call 0.
    if value != 0.0 && value.abs() < 1e-6 {
        let text = format!("{value:e}").replacen('-', "\u{2212}", 2);
        return text;
    }
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

fn positive(value: f64) -> f64 {
    if value > 0.0 {
        value
    } else {
        f64::MIN_POSITIVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.labels().collect()
    }

    #[test]
    fn the_first_and_the_last_layer_are_labelled() {
        let labelled = |count, most| labels(&Axis::indices(count, 0.5, most));
        assert_eq!(labelled(30, 7), ["0", "5", "10", "15", "20", "25", "29"]);
        assert_eq!(labelled(32, 7), ["0", "5", "10", "15", "20", "25", "31"]);
        assert_eq!(labelled(30, 2), ["0", "29"]);
        assert_eq!(labelled(3, 7), ["0", "1", "2"]);
        assert_eq!(labelled(1, 7), ["0"]);
        assert_eq!(labelled(80, 6), ["0", "20", "40", "60", "79"]);
    }

    #[test]
    fn categories_keep_their_names() {
        let names = |n: usize| (0..n).map(|i| format!("{i}k")).collect();
        assert_eq!(labels(&Axis::categories(names(3), 5)), ["0k", "1k", "2k"]);
        assert_eq!(
            labels(&Axis::categories(names(11), 6)),
            ["0k", "2k", "4k", "6k", "8k", "10k"]
        );
        assert_eq!(
            labels(&Axis::categories(names(12), 6)),
            ["0k", "2k", "4k", "6k", "8k", "11k"]
        );
        assert_eq!(Axis::categories(names(4), 9).fraction(1.5), 0.5);
    }

    #[test]
    fn linear_axes_begin_and_end_on_labels() {
        assert_eq!(
            labels(&Axis::from_zero(1151.0, 5)),
            ["0", "250", "500", "750", "1,000", "1,250"]
        );
        assert_eq!(labels(&Axis::from_zero(1000.0, 4)).last().unwrap(), "1,000");
        assert_eq!(
            labels(&Axis::from_zero(0.0, 5)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(
            labels(&Axis::covering(7.0, 7.0, 6)),
            ["6.6", "6.8", "7", "7.2", "7.4"]
        );
        for (low, high) in [
            (0.0, 3.0),
            (-0.7, 0.1),
            (1.0, 2.03),
            (12.3, 12.4),
            (60.0, 100.0),
        ] {
            for most in [3, 4, 6] {
                let axis = Axis::covering(low, high, most);
                let (first, last) = (axis.major[0], axis.major[axis.major.len() - 1]);
                assert!(axis.low() <= low && axis.high() >= high);
                assert!((axis.fraction(first)).abs() < 1e-9);
                assert!((axis.fraction(last) - 1.0).abs() < 1e-9);
                assert!(axis.major.len() <= most + 2, "{:?}", axis.major);
            }
        }
        let padded = Axis::per_cent(6);
        assert_eq!(labels(&padded), ["0", "20", "40", "60", "80", "100"]);
        assert!(padded.low() < 0.0 && padded.high() > 100.0);
    }

    #[test]
    fn logarithmic_axes_begin_and_end_on_labels() {
        let axis = Axis::log(1.0, 2015.0, 12);
        assert_eq!(labels(&axis), ["1", "10", "100", "1,000", "3,000"]);
        assert_eq!(axis.minor().len(), 8 * 3 + 1);
        assert_eq!(
            labels(&Axis::log(1e-4, 1.0, 8)),
            ["0.0001", "0.001", "0.01", "0.1", "1"]
        );
        assert_eq!(
            labels(&Axis::log(36.0, 680.0, 10)),
            ["30", "50", "100", "200", "500", "800"]
        );
        assert_eq!(
            labels(&Axis::log(210.0, 290.0, 10)),
            ["200", "225", "250", "275", "300"]
        );
        let exact = Axis::log_between(1.0, 2032.0, 8);
        assert_eq!(labels(&exact), ["1", "10", "100", "2,032"]);
    }

    #[test]
    fn logarithmic_axes_are_named_as_such() {
        let (log, wide) = (Axis::log(1.0, 10.0, 5), 1_000_000);
        assert_eq!(
            log.clone().called("Time (s)").named(wide),
            "Time (s, log scale)"
        );
        assert_eq!(log.clone().called("Time (s)").named(0), "Time (s, log)");
        assert_eq!(log.called("1 − cos").named(wide), "1 − cos (log scale)");
        assert_eq!(
            Axis::from_zero(9.0, 5).called("Time (s)").named(wide),
            "Time (s)"
        );
        assert!(Axis::needs_log(1.0, 10.0) && !Axis::needs_log(1.0, 9.9));
        assert!(!Axis::needs_log(0.0, 10.0));
    }

    #[test]
    fn values_map_to_positions() {
        let axis = Axis::log(1.0, 100.0, 5);
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
