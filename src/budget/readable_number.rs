//! Numbers in messages: no line is filled with digits.

/// A number as messages print it: in full where that is short, else to four places or with an exponent.
pub(super) fn readable_number(x: f64) -> String {
    const SHORT: usize = 10;
    if x == 0.0 {
        return "0".to_owned();
    }
    let full = x.to_string();
    match x.abs() {
        _ if full.len() <= SHORT => full,
        size if (1e-2..1e12).contains(&size) => format!("{x:.4}"),
        _ if format!("{x:e}").len() <= SHORT => format!("{x:e}"),
        _ => format!("{x:.4e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_long() {
        let text = [0.0, -0.0, 128.0, 0.12, -1e308, 5e-324, f64::NAN].map(readable_number);
        assert_eq!(text, ["0", "0", "128", "0.12", "-1e308", "5e-324", "NaN"]);
        let text = [1834.0 / 90.0, -1.0 / 3000.0, 1e12 / 7.0, f64::MAX].map(readable_number);
        assert_eq!(
            text,
            ["20.3778", "-3.3333e-4", "142857142857.1429", "1.7977e308"]
        );
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
