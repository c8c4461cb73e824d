//! The exact sign test.

/// Two-sided p value of `above` positive and `below` negative differences if both were equally likely; 1 for none.
///
/// The probability, under a fair coin, of a split at least as uneven as this one. Ties are not asked about.
///
/// Paper: none: the textbook's exact binomial test with p = 1/2.
pub fn sign_test(above: usize, below: usize) -> f64 {
    let (fewer, n) = (above.min(below), above + below);
    // In logarithms, since 2^-n leaves the range of floats at n = 1,075.
    let mut largest = -(n as f64) * std::f64::consts::LN_2;
    for k in 0..fewer {
        largest += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    // From the largest term of the tail outwards, relative to it.
    let (mut term, mut sum) = (1.0, 1.0);
    for k in (1..=fewer).rev() {
        term *= k as f64 / (n - k + 1) as f64;
        sum += term;
    }
    (2.0 * largest.exp() * sum).min(1.0)
}

/// A p value to three decimals, never a 0 that it is not.
pub fn probability_words(p: f64) -> String {
    if p < 0.0005 {
        "<0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_never_rounded_to_nothing() {
        assert_eq!(probability_words(0.0004), "<0.001");
        assert_eq!(probability_words(0.0006), "0.001");
        assert_eq!(probability_words(1.0), "1.000");
    }

    use approx::assert_relative_eq;

    #[test]
    fn small_tests_are_exact() {
        for (above, below, p) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 0, 2.0 / 32.0),
            (0, 6, 2.0 / 64.0),
            (7, 1, 2.0 * 9.0 / 256.0),
            (8, 2, 2.0 * 56.0 / 1024.0),
            (3, 3, 1.0),
            (4, 3, 1.0),
        ] {
            assert_relative_eq!(sign_test(above, below), p, max_relative = 1e-12);
            assert_eq!(sign_test(above, below), sign_test(below, above));
        }
    }

    /// Reference values: exact integers in Python.
    #[test]
    fn large_tests_neither_overflow_nor_vanish() {
        assert_relative_eq!(sign_test(60, 40), 0.05688793364098079, max_relative = 1e-11);
        assert_relative_eq!(
            sign_test(1100, 900),
            8.457089535503927e-06,
            max_relative = 1e-9
        );
        assert_eq!(sign_test(5000, 5000), 1.0);
        assert_eq!(sign_test(5000, 0), 0.0);
    }
}
