//! Steps between ticks that a reader can count in.

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
}
