//! The date that a chat template may ask for.

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
    pub fn format(self, pattern: &str) -> String {
        let items = StrftimeItems::new_lenient(pattern);
        self.0.format_with_items(items).to_string()
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
    fn today_is_a_day_of_this_century() {
        assert!(Date::today().format("%Y").starts_with("20"));
    }
}
