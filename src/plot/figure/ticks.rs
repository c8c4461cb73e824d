//! Where ticks lie: steps that a reader can count in, and logarithmic axes that begin and end on labels, of which none
//! touches another.

/// Digits that an axis may end on.
const END_DIGITS: [f64; 8] = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];

/// Decades from which on only powers of ten are labelled between the ends.
const ENOUGH_DECADES: usize = 3;

/// Most powers of ten that are labelled.
const MOST_DECADES: usize = 7;

/// Fewest labels that a scale can be read by.
const FEWEST: usize = 3;

/// Slack for values that are products of floats.
const SLACK: f64 = 1e-9;

/// 10 to the `exponent`, exact for the powers that a float holds exactly.
pub(super) fn power_of_ten(exponent: i32) -> f64 {
    if exponent >= 0 {
        10f64.powi(exponent)
    } else {
        1.0 / 10f64.powi(-exponent)
    }
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that cuts `span` into at most `most` steps.
///
/// 2.5 is left out where it would give decimals: layers and tokens are whole.
pub(super) fn nice_step(span: f64, most: usize) -> f64 {
    let raw = span / most.max(1) as f64;
    if !(raw > 0.0 && raw.is_finite()) {
        return 1.0;
    }
    let decade = power_of_ten(raw.log10().floor() as i32);
    let fits = |m: &f64| m * decade >= raw * (1.0 - 1e-9) && (*m != 2.5 || decade >= 10.0);
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(fits);
    nice.unwrap_or(10.0) * decade
}

/// Whole multiples of `step` from 0, and `last` itself; multiples that would touch its label, where there is room for
/// `most` of them, are left out.
pub(super) fn first_to_last(last: usize, step: usize, most: usize) -> Vec<f64> {
    let apart = (last / most.max(1)).max(step / 2 + 1);
    let multiples = (0..last).step_by(step);
    let kept = multiples.filter(|&i| i == 0 || last - i >= apart);
    kept.chain([last]).map(|i| i as f64).collect()
}

/// Multiples of `step` from `low` to `high`.
pub(super) fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    let slack = step * 1e-9;
    let first = ((low - slack) / step).ceil();
    let count = ((high + slack) / step).floor() - first;
    (0..=count.clamp(-1.0, 100.0) as i64)
        .map(|i| (first + i as f64) * step)
        .collect()
}

/// The ends of an axis that holds `low` to `high` and has room for `most` labels.
///
/// Each is the nearest of 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten that leaves the labels of powers of ten
/// free, or else a power of ten itself.
pub(super) fn ends(low: f64, high: f64, most: usize) -> (f64, f64) {
    let (mut start, mut end) = (at_most(low), at_least(high));
    if start >= end {
        (start, end) = (at_most(start / 1.05), at_least(end * 1.05));
    }
    loop {
        let apart = (end / start).log10() / most.max(1) as f64;
        // The power of ten inside the axis that lies next to either end, where there is one.
        let (above, below) = (decade_above(start), decade_below(end));
        let close = |a: f64, b: f64| (b / a).log10() < apart * (1.0 - SLACK);
        if above < end && start < above * (1.0 - SLACK) && close(start, above) {
            start = at_most(start * (1.0 - 1e-6));
        } else if below > start && end > below * (1.0 + SLACK) && close(below, end) {
            end = at_least(end * (1.0 + 1e-6));
        } else {
            return (start, end);
        }
    }
}

/// Labelled and bare ticks of an axis from `start` to `end`, both of which are labelled.
pub(super) fn ticks(start: f64, end: f64, most: usize) -> (Vec<f64>, Vec<f64>) {
    let apart = (end / start).log10() / most.max(1) as f64;
    let mut major = vec![start, end];
    let mut decades = multiples_of_decades(start, end, &[1.0]);
    if decades.len() > MOST_DECADES {
        let every = decades.len().div_ceil(MOST_DECADES);
        decades = decades.into_iter().step_by(every).collect();
    }
    let enough = decades.len() >= ENOUGH_DECADES;
    add(&mut major, decades, apart);
    if !enough {
        let halves = multiples_of_decades(start, end, &[2.0, 5.0]);
        add(&mut major, halves, apart);
    }
    if major.len() < FEWEST {
        let between = multiples(start, end, nice_step(end - start, 4));
        add(&mut major, between, apart);
    }
    major.sort_by(f64::total_cmp);
    let digits: Vec<f64> = (1..10).map(f64::from).collect();
    let mut minor = multiples_of_decades(start, end, &digits);
    minor.retain(|m| !major.iter().any(|v| same(*v, *m)));
    (major, minor)
}

/// Adds every one of `more` that is at least `apart` decades from all that are there.
fn add(ticks: &mut Vec<f64>, more: Vec<f64>, apart: f64) {
    for value in more {
        let far = |t: &f64| (value / t).log10().abs() >= apart * (1.0 - SLACK);
        if !ticks.iter().any(|t| same(*t, value)) && ticks.iter().all(far) {
            ticks.push(value);
        }
    }
}

fn same(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < SLACK
}

/// Every digit times a power of ten from `start` to `end`.
fn multiples_of_decades(start: f64, end: f64, digits: &[f64]) -> Vec<f64> {
    let inside = |v: &f64| *v >= start * (1.0 - SLACK) && *v <= end * (1.0 + SLACK);
    let decades = exponent(start)..=exponent(end);
    let of_decade = |d: i32| digits.iter().map(move |m| power_of_ten(d) * m);
    decades.flat_map(of_decade).filter(inside).collect()
}

fn exponent(value: f64) -> i32 {
    (value.log10() + SLACK).floor() as i32
}

fn decade_below(value: f64) -> f64 {
    power_of_ten((value.log10() + SLACK).floor() as i32)
}

fn decade_above(value: f64) -> f64 {
    power_of_ten((value.log10() - SLACK).ceil() as i32)
}

/// The greatest value to end on that is not above `value`.
fn at_most(value: f64) -> f64 {
    let decade = decade_below(value);
    let fits = |m: &&f64| **m * decade <= value * (1.0 + SLACK);
    decade * END_DIGITS.iter().rev().find(fits).unwrap_or(&1.0)
}

/// The least value to end on that is not below `value`.
fn at_least(value: f64) -> f64 {
    let decade = decade_below(value);
    let fits = |m: &&f64| **m * decade >= value * (1.0 - SLACK);
    decade * END_DIGITS.iter().find(fits).unwrap_or(&10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        let steps = [29.0, 1151.0, 0.7, 60.0].map(|span| nice_step(span, 6));
        assert_eq!(steps, [5.0, 200.0, 0.2, 10.0]);
        assert_eq!([nice_step(0.0, 6), nice_step(f64::NAN, 6)], [1.0, 1.0]);
        assert_eq!(multiples(-1.0, 1.0, 0.5), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn the_last_index_displaces_what_it_would_touch() {
        assert_eq!(first_to_last(31, 10, 4), [0.0, 10.0, 20.0, 31.0]);
        assert_eq!(first_to_last(29, 10, 3), [0.0, 10.0, 20.0, 29.0]);
        assert_eq!(first_to_last(19, 2, 12)[8..], [16.0, 19.0]);
        assert_eq!(first_to_last(8, 1, 12).len(), 9);
        assert_eq!(first_to_last(0, 1, 3), [0.0]);
    }

    #[test]
    fn ends_hold_the_values_and_leave_powers_of_ten_their_labels() {
        for (values, most, expected) in [
            ((36.0, 680.0), 12, (30.0, 800.0)),
            ((36.0, 680.0), 6, (30.0, 800.0)),
            ((1.0, 1738.0), 12, (1.0, 2000.0)),
            ((1.0, 1738.0), 6, (1.0, 4000.0)),
            ((0.0052, 2.7), 6, (0.003, 4.0)),
            ((0.0052, 2.7), 3, (0.001, 10.0)),
            ((100.0, 100.0), 6, (80.0, 150.0)),
            ((1.0, 1000.0), 4, (1.0, 1000.0)),
        ] {
            let (start, end) = ends(values.0, values.1, most);
            assert!(
                same(start, expected.0) && same(end, expected.1),
                "{start} {end}"
            );
        }
    }

    #[test]
    fn both_ends_are_labelled_and_labels_stay_apart() {
        let mut low = 1e-4;
        while low < 5000.0 {
            for ratio in [1.0, 1.3, 2.5, 7.0, 19.0, 88.0, 3000.0, 1e9] {
                for most in [3, 5, 7, 12] {
                    let (start, end) = ends(low, low * ratio, most);
                    assert!(start <= low * (1.0 + SLACK) && end >= low * ratio * (1.0 - SLACK));
                    let (major, minor) = ticks(start, end, most);
                    assert_eq!((major[0], major[major.len() - 1]), (start, end));
                    let apart = (end / start).log10() / most as f64;
                    let gaps = || major.windows(2).map(|pair| (pair[1] / pair[0]).log10());
                    assert!(gaps().all(|gap| gap >= apart * (1.0 - 1e-6)), "{major:?}");
                    assert!(minor.iter().all(|m| !major.contains(m)));
                }
            }
            low *= 1.7;
        }
    }
}
