//! A calendar date and the part of `strftime` that chat templates use.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Days since 1970-01-01.
    days: i64,
}

impl Date {
    /// Today in UTC.
    pub fn today() -> Self {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        Self {
            days: i64::try_from(seconds / 86_400).unwrap_or(0),
        }
    }

    /// A date by year, month (1 to 12) and day (1 to 31); `None` if the calendar has no such day.
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let (y, m, d) = (i64::from(year), i64::from(month), i64::from(day));
        // Years that begin in March put the leap day last.
        let shifted = y - i64::from(m < 3);
        let day_of_year = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
        let leaps = shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400);
        let date = Self {
            days: 365 * shifted + leaps + day_of_year - 719_468,
        };
        (date.civil() == (y, m, d)).then_some(date)
    }

    /// Year, month and day.
    fn civil(self) -> (i64, i64, i64) {
        let days = self.days + 719_468;
        let era = days.div_euclid(146_097);
        let day = days.rem_euclid(146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (era * 400 + year + i64::from(month < 3), month, day)
    }

    /// Formats as C's `strftime` does in English, at midnight; unknown directives stay as they are.
    pub fn format(self, pattern: &str) -> String {
        let mut out = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match (c, if c == '%' { chars.next() } else { None }) {
                ('%', Some('-')) => {
                    let directive = chars.next().unwrap_or('-');
                    let number = self.directive(directive);
                    let short = number.trim_start_matches('0');
                    out.push_str(if short.is_empty() { &number } else { short });
                }
                ('%', Some(directive)) => out.push_str(&self.directive(directive)),
                (other, _) => out.push(other),
            }
        }
        out
    }

    fn directive(self, directive: char) -> String {
        let (year, month, day) = self.civil();
        let month_name = usize::try_from(month - 1)
            .ok()
            .and_then(|m| MONTHS.get(m))
            .unwrap_or(&"");
        let weekday = usize::try_from((self.days + 4).rem_euclid(7)).unwrap_or(0);
        let weekday = WEEKDAYS.get(weekday).unwrap_or(&"");
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = match directive {
            'Y' => write!(out, "{year}"),
            'y' => write!(out, "{:02}", year.rem_euclid(100)),
            'm' => write!(out, "{month:02}"),
            'd' => write!(out, "{day:02}"),
            'e' => write!(out, "{day:2}"),
            'B' => write!(out, "{month_name}"),
            'b' | 'h' => write!(out, "{}", month_name.get(..3).unwrap_or_default()),
            'A' => write!(out, "{weekday}"),
            'a' => write!(out, "{}", weekday.get(..3).unwrap_or_default()),
            'F' => write!(out, "{year}-{month:02}-{day:02}"),
            'H' | 'M' | 'S' => write!(out, "00"),
            '%' => write!(out, "%"),
            other => write!(out, "%{other}"),
        };
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let date = |y, m, d| Date::new(y, m, d).unwrap();
        assert_eq!(date(1970, 1, 1).days, 0);
        assert_eq!(date(2000, 3, 1).days, 11_017);
        assert_eq!(date(2024, 7, 26).format("%d %b %Y"), "26 Jul 2024");
        assert_eq!(
            date(2024, 2, 29).format("%A, %B %-d, %y %a %H:%M"),
            "Thursday, February 29, 24 Thu 00:00"
        );
        assert_eq!(
            date(1999, 12, 31).format("%F %e 100%% %q %"),
            "1999-12-31 31 100% %q %"
        );
        assert_eq!(date(2025, 3, 5).format("%-d/%-m|%e"), "5/3| 5");
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
    fn every_day_survives_a_round_trip() {
        for days in -800_000..800_000 {
            let (year, month, day) = Date { days }.civil();
            let back = Date::new(i32::try_from(year).unwrap(), month as u32, day as u32).unwrap();
            assert_eq!(back.days, days);
        }
    }
}
