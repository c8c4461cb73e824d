//! The date that a chat template may ask for.

use std::fmt::Write;
use std::time::SystemTime;

use chrono::format::StrftimeItems;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(DateTime<Utc>);

impl Date {
    /// Today in UTC.
    pub fn today() -> Self {
        Self::midnight(DateTime::<Utc>::from(SystemTime::now()).date_naive())
    }

    /// A date by year, month (1 to 12) and day (1 to 31); `None` if the calendar has no such day.
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        NaiveDate::from_ymd_opt(year, month, day).map(Self::midnight)
    }

    fn midnight(day: NaiveDate) -> Self {
        Self(day.and_time(NaiveTime::MIN).and_utc())
    }

    /// Formats as C's `strftime` does in English, at midnight; unknown directives stay as they are.
    ///
    /// Differs: the marks `-`, `_` and `0`, which change how a number is padded, leave words and whole dates alone.
    pub fn format(self, pattern: &str) -> String {
        let mut out = String::new();
        let mut rest = pattern;
        while let Some(at) = rest.find('%') {
            let (text, directive) = rest.split_at(at);
            let mut length = 1;
            let mut letters = directive.chars().skip(1).peekable();
            if letters.next_if(|c| "-_0".contains(*c)).is_some() {
                length += 1;
            }
            length += letters.next().map_or(0, char::len_utf8);
            let (directive, after) = directive.split_at(length);
            out.push_str(text);
            match self.directive(directive) {
                Some(value) => out.push_str(&value),
                None => out.push_str(directive),
            }
            rest = after;
        }
        out + rest
    }

    /// What stands for one directive, with its mark or else without; `None` for an unknown one.
    fn directive(self, directive: &str) -> Option<String> {
        let unmarked = directive.replacen(['-', '_', '0'], "", 1);
        [directive, &unmarked].into_iter().find_map(|directive| {
            let items = StrftimeItems::new(directive).parse().ok()?;
            let mut value = String::new();
            // Some directives can be parsed as a pattern and only refuse to be written.
            let written = write!(value, "{}", self.0.format_with_items(items.iter()));
            written.ok().map(|()| value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let date = |y, m, d| Date::new(y, m, d).unwrap();
        assert_eq!(date(1970, 1, 1).format("%s"), "0");
        assert_eq!(date(2000, 3, 1).format("%s"), (11_017 * 86_400).to_string());
        assert_eq!(date(2024, 7, 26).format("%d %b %Y"), "26 Jul 2024");
        assert_eq!(
            date(2024, 2, 29).format("%A, %B %-d, %y %a %H:%M"),
            "Thursday, February 29, 24 Thu 00:00"
        );
        assert_eq!(
            date(1999, 12, 31).format("%F %e 100%% %Q %"),
            "1999-12-31 31 100% %Q %"
        );
        assert_eq!(date(2025, 3, 5).format("%-d/%-m|%e"), "5/3| 5");
        assert_eq!(date(2025, 3, 5).format("%z %h"), "+0000 Mar");
        for (y, m, d) in [
            (2023, 2, 29),
            (1900, 2, 29),
            (2024, 13, 1),
            (2024, 4, 31),
            (2024, 0, 1),
            (2024, 1, 0),
        ] {
            assert_eq!(Date::new(y, m, d), None);
        }
    }

    #[test]
    fn any_directive_is_written_or_stays_as_it_is() {
        let date = Date::new(2026, 3, 8).unwrap();
        for (pattern, want) in [
            ("%-F|%_B|%0A", "2026-03-08|March|Sunday"),
            ("%-d %_d %0e", "8  8 08"),
            ("%#z %:z %.3f %3f", "%#z %:z %.3f %3f"),
            ("%-", "%-"),
            ("%é%", "%é%"),
            ("%-é", "%-é"),
        ] {
            assert_eq!(date.format(pattern), want, "{pattern}");
        }
        for mark in ["", "-", "_", "0", "#", ":", ".", "+", "^"] {
            for letter in (0u8..128).map(char::from) {
                let pattern = format!("a%{mark}{letter}!");
                let text = date.format(&pattern);
                assert!(
                    text.starts_with('a') && text.ends_with('!'),
                    "{pattern}: {text}"
                );
            }
        }
    }

    #[test]
    fn today_is_a_day_of_this_century() {
        assert!(Date::today().format("%Y").starts_with("20"));
    }
}
