//! A budget in tokens or in bytes.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::amount::Budget;
use crate::error::{Error, Result};

/// How much cache may stay, in tokens of every KV head or in bytes of all of them.
///
/// Differs: bytes are those of what is held, whatever it is held in, so that fewer tokens, fewer bits and fewer resident
/// rows can be asked for the same amount. Written `128`, `12%` (of the prompt's tokens), `5MB`, `12%bytes` (of the bytes
/// of the full cache as it is prefilled).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheBudget {
    /// Tokens per KV head, or a share of the prompt.
    Tokens(Budget),
    /// Bytes of the whole cache.
    Bytes(f64),
    /// Share of the full cache's bytes, above 0 and at most 1.
    BytesFraction(f64),
}

/// Units of bytes; longer names come first.
const UNITS: [(&str, f64); 7] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
];

impl CacheBudget {
    /// The most bytes that may be held, where they are what is asked for; `full` are those of the full cache.
    pub fn bytes(self, full: usize) -> Option<usize> {
        match self {
            Self::Tokens(_) => None,
            Self::Bytes(bytes) => Some(bytes as usize),
            // A share is taken as the decimal number that it was written as, as `Budget` does.
            Self::BytesFraction(share) => Some(Budget::RetainedFraction(share).total(1, full)),
        }
    }

    /// The bytes that it comes to: its own, or those of its share of a full cache of `full` bytes, `tokens` in each of
    /// `heads` KV heads.
    pub fn comes_to(self, full: usize, tokens: usize, heads: usize) -> usize {
        match self {
            Self::Tokens(budget) => {
                let all = tokens.saturating_mul(heads);
                let kept = budget.total(heads, all);
                (kept as u128 * full as u128 / all.max(1) as u128) as usize
            }
            bytes => bytes.bytes(full).unwrap_or(full),
        }
    }

    /// The tokens that it is said in; `None` for bytes.
    pub fn tokens(self) -> Option<Budget> {
        match self {
            Self::Tokens(budget) => Some(budget),
            _ => None,
        }
    }

    /// One field that says it, for files.
    pub fn described(self) -> Value {
        match self {
            Self::Tokens(budget) => json!(budget),
            Self::Bytes(bytes) => json!({"bytes": bytes}),
            Self::BytesFraction(share) => json!({"retained_bytes_fraction": share}),
        }
    }

    /// Refuses what is no amount of cache.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check(self) -> Result<()> {
        let (value, bound) = match self {
            Self::Tokens(budget) => return budget.check(),
            Self::Bytes(bytes) if !(1.0..=1e18).contains(&bytes) => (
                format!("{bytes} bytes"),
                "it must be between 1 B and 1e9 GB",
            ),
            Self::BytesFraction(share) if !(share > 0.0 && share <= 1.0) => (
                self.to_string(),
                "a share of the full cache's bytes is above 0% and at most 100%",
            ),
            _ => return Ok(()),
        };
        Err(Error::invalid("budget", value, bound))
    }
}

impl From<Budget> for CacheBudget {
    fn from(budget: Budget) -> Self {
        Self::Tokens(budget)
    }
}

impl FromStr for CacheBudget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let bad = || {
            let bound = "tokens per KV head (128), a share of the prompt (12%), bytes (5MB, 4MiB, 900kB) or a share of \
                         the full cache's bytes (12%bytes) are expected";
            Error::invalid("budget", format!("'{text}'"), bound)
        };
        if let Some(share) = trimmed.strip_suffix("bytes") {
            let Some(percent) = share.trim_end().strip_suffix('%') else {
                return Err(bad());
            };
            return match format!("{}%", percent.trim_end()).parse::<Budget>() {
                Ok(Budget::RetainedFraction(share)) => Ok(Self::BytesFraction(share)),
                Ok(_) => Err(bad()),
                Err(_) => {
                    let bound = "a share of the full cache's bytes is above 0% and at most 100%";
                    Err(Error::invalid("budget", format!("'{text}'"), bound))
                }
            };
        }
        let unit = UNITS.iter().find_map(|(unit, factor)| {
            let number = trimmed.strip_suffix(unit)?;
            Some((number.trim_end(), factor))
        });
        let budget = match unit {
            Some((number, factor)) => {
                let plain = |c: char| c.is_ascii_digit() || c == '.';
                if number.is_empty() || !number.chars().all(plain) {
                    return Err(bad());
                }
                let number: f64 = number.parse().map_err(|_| bad())?;
                Self::Bytes((number * factor).round())
            }
            None => match trimmed.parse::<Budget>() {
                Ok(budget) => Self::Tokens(budget),
                // What is no number at all may have been meant as bytes.
                Err(_)
                    if !trimmed.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) =>
                {
                    return Err(bad());
                }
                Err(_) if trimmed.ends_with(|c: char| c.is_ascii_alphabetic()) => return Err(bad()),
                Err(problem) => return Err(problem),
            },
        };
        budget.check()?;
        Ok(budget)
    }
}

impl fmt::Display for CacheBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(budget) => budget.fmt(f),
            Self::BytesFraction(share) => write!(f, "{}bytes", Budget::RetainedFraction(*share)),
            Self::Bytes(bytes) => {
                let exact = |factor: &f64| *bytes >= *factor && bytes % factor == 0.0;
                let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
                // Fractions that read back as they were are shorter than bytes.
                let short = units
                    .iter()
                    .find(|(_, factor)| exact(&(factor / 100.0)) && bytes >= factor);
                match short {
                    Some((unit, factor)) => write!(f, "{}{unit}", bytes / factor),
                    None => write!(f, "{bytes}B"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_they_are_written() {
        let read = |text: &str| text.parse::<CacheBudget>().unwrap();
        assert_eq!(
            read("128"),
            CacheBudget::Tokens(Budget::TokensPerHead(128.0))
        );
        assert_eq!(
            read("12%"),
            CacheBudget::Tokens(Budget::RetainedFraction(0.12))
        );
        assert_eq!(read("5MB"), CacheBudget::Bytes(5e6));
        assert_eq!(read("1.5 MiB"), CacheBudget::Bytes(1_572_864.0));
        assert_eq!(read("4096B"), CacheBudget::Bytes(4096.0));
        assert_eq!(read("12.5%bytes"), CacheBudget::BytesFraction(0.125));
        assert_eq!(read("12 % bytes"), CacheBudget::BytesFraction(0.12));
        for text in [
            "128",
            "12%",
            "5MB",
            "4.25MB",
            "900kB",
            "4097B",
            "12%bytes",
            "0.7%bytes",
            "2GB",
        ] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(
            read("1.5MiB").to_string().parse::<CacheBudget>().unwrap(),
            read("1.5MiB")
        );
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_way_out() {
        for text in [
            "",
            "MB",
            "-5MB",
            "0B",
            "0%bytes",
            "101%bytes",
            "5TB",
            "5 M",
            "bytes",
            "5bytes",
            "1e3MB",
            "many",
        ] {
            let said = text.parse::<CacheBudget>().unwrap_err().to_string();
            assert!(
                said.contains("bytes") || said.contains("between 1 B"),
                "{text}: {said}"
            );
        }
        let fraction = "0.12".parse::<CacheBudget>().unwrap_err().to_string();
        assert!(fraction.contains("percent sign"), "{fraction}");
    }

    #[test]
    fn bytes_are_those_of_the_share() {
        let full = 2000 * 90 * 512;
        assert_eq!(
            "5MB".parse::<CacheBudget>().unwrap().bytes(full),
            Some(5_000_000)
        );
        assert_eq!(
            "12.5%bytes".parse::<CacheBudget>().unwrap().bytes(full),
            Some(full / 8)
        );
        let tokens: CacheBudget = "128".parse().unwrap();
        assert_eq!(
            (tokens.bytes(full), tokens.comes_to(full, 2000, 90)),
            (None, 128 * 90 * 512)
        );
        assert_eq!(
            "10%"
                .parse::<CacheBudget>()
                .unwrap()
                .comes_to(full, 2000, 90),
            200 * 90 * 512
        );
        assert_eq!(
            "5MB"
                .parse::<CacheBudget>()
                .unwrap()
                .comes_to(full, 2000, 90),
            5_000_000
        );
    }
}
