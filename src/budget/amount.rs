//! How much cache may stay, as the user says it and as a number of tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::readable_number::readable_number;
use crate::error::{Error, Result};

/// The most KV heads (over all layers) a budget can be spread over.
pub const MAX_HEADS: usize = 1 << 20;

/// The longest prompt: positions are 32-bit.
pub const MAX_TOKENS: usize = u32::MAX as usize;

/// How much cache may stay; never a bare "ratio", a word that the field uses both ways.
///
/// Paper: `TokensPerHead` is the `max_capacity_prompt` of arXiv:2404.14469's code, `RetainedFraction` is
/// 1 − `compression_ratio` of kvpress.
///
/// ```
/// use kvprof::budget::Budget;
/// assert_eq!("128".parse::<Budget>().unwrap(), Budget::TokensPerHead(128.0));
/// assert_eq!("12%".parse::<Budget>().unwrap(), Budget::RetainedFraction(0.12));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Fields")]
pub enum Budget {
    /// B: tokens per KV head, averaged over layers and heads.
    TokensPerHead(f64),
    /// Share of the prompt that stays, above 0 and at most 1.
    RetainedFraction(f64),
}

/// The one field of a budget in a file.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a budget, {\"tokens_per_head\": 128} or {\"retained_fraction\": 0.12}"
)]
struct Fields {
    tokens_per_head: Option<f64>,
    retained_fraction: Option<f64>,
}

impl TryFrom<Fields> for Budget {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        match (fields.tokens_per_head, fields.retained_fraction) {
            (Some(tokens), None) => Ok(Self::TokensPerHead(tokens)),
            (None, Some(fraction)) => Ok(Self::RetainedFraction(fraction)),
            _ => Err(
                "a budget has one field: {\"tokens_per_head\": 128} or {\"retained_fraction\": 0.12}",
            ),
        }
    }
}

impl Budget {
    /// The budget that is exactly `total` tokens over `heads` KV heads.
    pub fn of_total(total: usize, heads: usize) -> Self {
        let mut mean = total as f64 / heads.max(1) as f64;
        // A mean such as 2/3 may be written a hair too low: the next number up is not.
        while floor_of_product(mean, heads as u128) < total as u128 {
            mean = mean.next_up();
        }
        Self::TokensPerHead(mean)
    }

    /// Refuses what is no amount of cache.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check(self) -> Result<()> {
        let (value, bound) = match self {
            Self::TokensPerHead(b) if !(1.0..=MAX_TOKENS as f64).contains(&b) => (
                format!("{} tokens per KV head", readable_number(b)),
                format!(
                    "it must be between 1 and {MAX_TOKENS}; a share of the prompt is written with a \
                     percent sign, such as 12%"
                ),
            ),
            Self::RetainedFraction(f) if !(f > 0.0 && f <= 1.0) => (
                self.readable(),
                "a share of the prompt is above 0% and at most 100%".to_owned(),
            ),
            _ => return Ok(()),
        };
        Err(Error::invalid("budget", value, bound))
    }

    /// B in tokens per KV head for a prompt of `tokens`, not capped; 29% of 100 tokens are 29.
    pub fn per_head(self, tokens: usize) -> f64 {
        match self {
            Self::TokensPerHead(b) => b,
            Self::RetainedFraction(f) => product(f, tokens),
        }
    }

    /// As messages print it.
    pub(super) fn readable(self) -> String {
        match self {
            Self::TokensPerHead(b) => readable_number(b),
            Self::RetainedFraction(share) => format!("{}%", readable_number(percentage(share))),
        }
    }

    /// ⌊B·L·H_kv⌋, at most the `most` tokens that the L·H_kv `heads` can hold: T·L·H_kv, or less where layers see a
    /// window only. A share is one of what they can hold.
    ///
    /// The amount is taken as the decimal number that the user wrote: 29% of 100 tokens are 29, although
    /// the nearest binary fraction times 100 is below 29.
    ///
    /// Units: tokens over all layers and KV heads.
    pub fn total(self, heads: usize, most: usize) -> usize {
        let all = most as u128;
        let total = match self {
            Self::TokensPerHead(b) => floor_of_product(b, heads as u128),
            Self::RetainedFraction(f) => floor_of_product(f, all),
        };
        total.min(all) as usize
    }
}

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let bound = "tokens per KV head (128) or a share of the prompt (12%) is expected";
            Error::invalid("budget", format!("'{text}'"), bound)
        };
        let trimmed = text.trim();
        let number = |digits: &str, exponent: &str| -> Result<f64> {
            let plain = |c: char| c.is_ascii_digit() || ".-+".contains(c);
            if digits.is_empty() || !digits.chars().all(plain) {
                return Err(bad());
            }
            // The exponent shifts the decimal point without rounding twice.
            format!("{digits}{exponent}").parse().map_err(|_| bad())
        };
        let budget = match trimmed.strip_suffix('%') {
            Some(percent) => Self::RetainedFraction(number(percent.trim_end(), "e-2")?),
            None => Self::TokensPerHead(number(trimmed, "")?),
        };
        budget.check()?;
        Ok(budget)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokensPerHead(b) => write!(f, "{b}"),
            Self::RetainedFraction(share) => write!(f, "{}%", percentage(*share)),
        }
    }
}

/// A fraction as a percentage, without the rounding of a product.
fn percentage(fraction: f64) -> f64 {
    let shifted = match format!("{fraction:e}").split_once('e') {
        Some((digits, exponent)) => exponent
            .parse::<i32>()
            .ok()
            .and_then(|e| format!("{digits}e{}", e + 2).parse().ok()),
        None => None,
    };
    shifted.unwrap_or(fraction * 100.0)
}

/// The shortest decimal that reads back as `x`, as whole digits times a power of ten; `None` for what is negative
/// or not finite.
fn decimal(x: f64) -> Option<(u128, i32)> {
    let text = format!("{x:e}");
    let (mantissa, exponent) = text.split_once('e')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}").parse().ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    Some((digits, exponent - fraction.len() as i32))
}

/// x·n of the decimal, rounded once.
fn product(x: f64, n: usize) -> f64 {
    let exact = decimal(x).and_then(|(digits, exponent)| {
        let digits = digits.checked_mul(n as u128)?;
        format!("{digits}e{exponent}").parse().ok()
    });
    exact.unwrap_or(x * n as f64)
}

/// ⌊x·n⌋ of the decimal; 0 for what is negative or not finite.
fn floor_of_product(x: f64, n: u128) -> u128 {
    let Some((digits, exponent)) = decimal(x) else {
        return 0;
    };
    let power = 10u128.checked_pow(exponent.unsigned_abs());
    match (exponent < 0, power) {
        // Seventeen digits times n stay far below ten to the 38th.
        (true, None) => 0,
        (true, Some(power)) => digits.saturating_mul(n) / power,
        (false, power) => digits
            .saturating_mul(power.unwrap_or(u128::MAX))
            .saturating_mul(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_as_they_are_written() {
        let read = |text: &str| text.parse::<Budget>().unwrap();
        assert_eq!(read("128"), Budget::TokensPerHead(128.0));
        assert_eq!(read(" 64.5 "), Budget::TokensPerHead(64.5));
        assert_eq!(read("0.7%"), Budget::RetainedFraction(0.007));
        assert_eq!(read("7 %").to_string(), "7%");
        assert_eq!(read("100%"), Budget::RetainedFraction(1.0));
        assert_eq!(read("128").to_string(), "128");
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_way_out() {
        for text in [
            "",
            "%",
            "-5",
            "0",
            "0%",
            "-1%",
            "101%",
            "NaN",
            "inf",
            "1e999",
            "12 tokens",
            "1e3",
        ] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
        let fraction = "0.12".parse::<Budget>().unwrap_err().to_string();
        assert!(fraction.contains("percent sign"), "{fraction}");
        assert!("99999999999".parse::<Budget>().is_err());
        assert!(Budget::TokensPerHead(f64::NAN).check().is_err());
    }

    #[test]
    fn totals_are_those_of_the_decimal_number() {
        // 0.29 · 100 is 28.999999999999996 in binary.
        assert_eq!(Budget::RetainedFraction(0.29).total(1, 100), 29);
        assert_eq!(Budget::RetainedFraction(0.29).per_head(100), 29.0);
        assert_eq!(Budget::RetainedFraction(0.125).per_head(2038), 254.75);
        assert_eq!(Budget::TokensPerHead(64.3).total(90, 90 * 2048), 5787);
        assert_eq!(Budget::TokensPerHead(128.0).total(90, 90 * 2048), 11_520);
        assert_eq!(Budget::TokensPerHead(128.0).total(90, 90 * 100), 9_000);
        assert_eq!(Budget::TokensPerHead(1.999).total(1, 9), 1);
        assert_eq!(
            Budget::RetainedFraction(1e-300).total(MAX_HEADS, MAX_HEADS * MAX_TOKENS),
            0
        );
        let most = Budget::RetainedFraction(1.0).total(MAX_HEADS, MAX_HEADS * MAX_TOKENS);
        assert_eq!(most, MAX_HEADS * MAX_TOKENS);
    }

    #[test]
    fn a_budget_in_a_file_has_one_field() {
        let read = |text: &str| serde_json::from_str::<Budget>(text).map_err(|e| e.to_string());
        for budget in [Budget::TokensPerHead(64.3), Budget::RetainedFraction(0.12)] {
            let text = serde_json::to_string(&budget).unwrap();
            assert_eq!(read(&text).unwrap(), budget);
        }
        let one_field = "{\"tokens_per_head\": 128} or {\"retained_fraction\": 0.12}";
        for text in [
            "{}",
            "128",
            "null",
            r#"{"tokens_per_head": null}"#,
            r#"{"tokens_per_head": 3, "retained_fraction": 0.1}"#,
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(one_field), "{text}: {said}");
        }
        assert!(
            read(r#"{"tokens": 3}"#)
                .unwrap_err()
                .contains("`tokens_per_head`")
        );
    }

    #[test]
    fn no_message_is_filled_with_zeros() {
        for budget in [
            Budget::TokensPerHead(1e308),
            Budget::RetainedFraction(1e300),
        ] {
            let text = budget.check().unwrap_err().to_string();
            assert!(text.len() < 200, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn a_total_is_found_again(heads in 1usize..5000, per_head in 1usize..100_000, more in 0usize..5000) {
            let total = heads * per_head + more % heads;
            prop_assert_eq!(Budget::of_total(total, heads).total(heads, heads * MAX_TOKENS), total);
        }

        #[test]
        fn decimals_are_exact(hundredths in 1u64..10_000, heads in 1usize..3000, tokens in 1usize..200_000) {
            let budget: Budget = format!("{}.{:02}%", hundredths / 100, hundredths % 100).parse().unwrap();
            let want = u128::from(hundredths) * heads as u128 * tokens as u128 / 10_000;
            prop_assert_eq!(budget.total(heads, heads * tokens) as u128, want);
        }
    }
}
