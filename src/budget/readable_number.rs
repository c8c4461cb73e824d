//! Numbers in messages: no line is filled with zeros.

/// A number as messages print it: plain where that is short, with an exponent where it is not.
pub(super) fn readable_number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if (1e-6..1e12).contains(&size) => x.to_string(),
        _ => format!("{x:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_long() {
        let text = [0.0, -0.0, 128.0, 0.12, -1e308, 5e-324, f64::NAN].map(readable_number);
        assert_eq!(text, ["0", "0", "128", "0.12", "-1e308", "5e-324", "NaN"]);
        for x in [
            f64::MAX,
            f64::MIN_POSITIVE,
            1.0 / 3.0,
            1e12 - 0.1,
            1e-6 / 3.0,
        ] {
            assert!(readable_number(x).len() <= 24, "{x}");
        }
    }
}
