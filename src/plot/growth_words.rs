//! A fit's coefficients and a floor in words that a legend has room for.

use super::figure::Words;

/// Units of time from the largest down.
const UNITS: [(f64, &str); 5] = [
    (1.0, "s"),
    (1e-3, "ms"),
    (1e-6, "µs"),
    (1e-9, "ns"),
    (1e-12, "ps"),
];

/// a·T + b·T² with its coefficients.
///
/// Units: seconds per token, and per token squared.
pub(super) fn fit(linear: f64, quadratic: f64) -> Words {
    let sign = if quadratic < 0.0 { '\u{2212}' } else { '+' };
    let lead = if linear < 0.0 { "\u{2212}" } else { "" };
    let (a, b) = (duration(linear.abs()), duration(quadratic.abs()));
    let sum = format!("{lead}{a} · T {sign} {b} · T²");
    Words::of([format!("fit of prefill: {sum}"), format!("fit: {sum}"), sum])
}

/// What the operations would take at the machine's limit.
pub(super) fn floor() -> Words {
    Words::of([
        "operations of prefill at the machine’s limit",
        "operations at the machine’s limit",
        "at the machine’s limit",
    ])
}

/// Seconds in the largest unit that leaves a digit before the point, to three digits.
fn duration(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0 s".to_owned();
    }
    // Rounded first, so that 999.9 µs becomes 1.00 ms.
    let magnitude = 10f64.powf(2.0 - seconds.log10().floor());
    let rounded = (seconds * magnitude).round() / magnitude;
    let fits = |(unit, _): &(f64, &str)| rounded >= unit * (1.0 - 1e-9);
    let (unit, name) = UNITS
        .into_iter()
        .find(fits)
        .unwrap_or(UNITS[UNITS.len() - 1]);
    let value = rounded / unit;
    let digits = (2.0 - (value * (1.0 + 1e-9)).log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::figure::points;

    #[test]
    fn durations_have_three_digits_and_a_unit_that_suits_them() {
        for (seconds, shown) in [
            (2.3149e-3, "2.31 ms"),
            (1.5e-7, "150 ns"),
            (9.996e-4, "1.00 ms"),
            (12.0, "12.0 s"),
            (1e-6, "1.00 µs"),
            (1e-9, "1.00 ns"),
            (3.21e-11, "32.1 ps"),
            (4.2e-13, "0.420 ps"),
            (0.0, "0 s"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
    }

    #[test]
    fn words_get_shorter_before_they_are_cut() {
        let all = |linear, quadratic| {
            [300.0, 110.0, 90.0].map(|room| fit(linear, quadratic).within(points(room)))
        };
        assert_eq!(
            all(2.3149e-3, 1.5e-7),
            [
                "fit of prefill: 2.31 ms · T + 150 ns · T²",
                "fit: 2.31 ms · T + 150 ns · T²",
                "2.31 ms · T + 150 ns · T²"
            ]
        );
        let [long, _, short] = all(-2.0, -3e-9);
        assert!(
            long.ends_with("\u{2212}2.00 s · T \u{2212} 3.00 ns · T²"),
            "{long}"
        );
        assert!(short.starts_with('\u{2212}'), "{short}");
        assert!(floor().within(points(90.0)).len() < floor().within(points(300.0)).len());
    }
}
