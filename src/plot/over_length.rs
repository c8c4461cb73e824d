//! Series over prompt length, as every chart of costs draws them: logarithmic, with the range of their repeats.

use super::figure::{Description, Entry, Gaps, Key, Marks, Panel, Series, Shape, Words};
use super::figure::{is_page, number};

const GAPS: Gaps = Gaps {
    top: 2.0,
    row: 8.0,
    column: Some(8.0),
};

/// Panels beside each other on a page, below each other in a column.
pub(super) fn describe(
    about: &str,
    width: i32,
    facts: Vec<Words>,
    entries: Vec<Entry>,
    panels: Vec<Panel>,
) -> Description {
    Description {
        facts,
        entries,
        columns: if is_page(width) { panels.len() } else { 1 },
        panels,
        gaps: Some(GAPS),
        ..Description::new(about, width)
    }
}

/// Series with a marker at every length.
pub(super) fn marked(series: Vec<Series>) -> Shape {
    Shape::Series(series, Marks::All)
}

/// The legend's entry for the range of so many repeats, where there is one.
pub(super) fn repeats_entry(repeats: usize, series: &[Series]) -> Option<Entry> {
    let words = format!("min\u{2013}max of {repeats} repeats");
    (repeats > 1).then(|| (Key::bands(series), words.into()))
}

/// A number of threads.
pub(super) fn threads(count: usize) -> String {
    match count {
        1 => "1 thread".to_owned(),
        n => format!("{} threads", number(n as f64)),
    }
}
