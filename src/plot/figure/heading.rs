//! What stands above the panels: an optional title, facts, and the keys of the series. It never covers data.

use plotters::prelude::{DrawingBackend, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, ShapeStyle};

use super::canvas::{Drawn, Sheet, Spot, points};
use super::frame::{AXIS, AXIS_POINTS};
use super::pen::{PENS, Pen, amount, band_fill, stroke};
use super::shapes::Series;
use super::text;
use super::words::Words;

/// The picture beside a legend's words.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// A series' line with its marker.
    Series(Pen),
    /// A series' line with a hollow marker.
    Hollow(Pen),
    /// A hollow marker that no line leads to.
    Aside(Pen),
    /// Bands of spread, in the colours of all series that have one.
    Bands(Vec<Pen>),
    /// An error bar.
    Bar(Pen),
    /// A line without a marker.
    Line(Pen),
    /// A bracket beside a panel.
    Bracket,
    /// The colours of a colour bar, from dark to light.
    Colours,
    /// No picture: words about the whole figure.
    Note,
}

/// A legend's picture and its words.
pub type Entry = (Key, Words);

/// An entry for every series, each with the next pen.
pub fn keys<W: Into<Words>>(names: impl IntoIterator<Item = W>) -> Vec<Entry> {
    let pens = PENS.into_iter().map(Key::Series);
    pens.zip(names.into_iter().map(Into::into)).collect()
}

/// An entry for each of `series`.
pub fn keys_of<W: Into<Words>>(
    series: &[Series],
    names: impl IntoIterator<Item = W>,
) -> Vec<Entry> {
    let pens = series.iter().map(|series| Key::Series(series.pen));
    pens.zip(names.into_iter().map(Into::into)).collect()
}

/// Title, facts and keys above the panels, already broken into lines.
#[derive(Debug)]
pub(super) struct Heading {
    title: Option<String>,
    lines: Vec<Vec<(Key, String)>>,
}

/// Width of a key's picture, in points.
pub(super) const KEY_POINTS: f64 = 15.0;
const KEY_GAP: f64 = 3.0;
/// Half the height of a key's patches, in points.
const HALF_PATCH: f64 = 2.6;
/// Patches of a colour bar's key: enough to look continuous.
const KEY_PATCHES: usize = 25;
const ENTRY_GAP: f64 = 9.0;

impl Heading {
    /// Breaks `facts` about the whole figure, and below them the entries, into lines that fit `room` units; what is
    /// too long for a line is shortened.
    pub(super) fn new(title: Option<&str>, facts: &[Words], entries: &[Entry], room: i32) -> Self {
        let note = |words: &Words| (Key::Note, words.within(room));
        let facts = broken(facts.iter().map(note), room);
        let keys = broken(told_apart(entries, room), room);
        Self {
            title: title.map(|title| Words::from(title).within(room)),
            lines: [facts, keys].concat(),
        }
    }

    /// Height in canvas units, with the gap below.
    pub(super) fn height(&self) -> i32 {
        let lines = self.lines.len() + usize::from(self.title.is_some());
        let gap = if lines > 0 { points(5.0) } else { 0 };
        points(2.0) + lines as i32 * text::line_height() + gap
    }

    /// Draws at the top of `sheet`, `left` units from its edge.
    pub(super) fn draw<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, left: i32) -> Drawn<DB> {
        let style = text::style(HPos::Left, VPos::Center);
        let mut y = points(2.0) + text::line_height() / 2;
        if let Some(title) = &self.title {
            sheet.draw_text(title, &style, (left, y))?;
            y += text::line_height();
        }
        for line in &self.lines {
            let mut x = left;
            for (key, words) in line {
                key.draw(sheet, (x, x + points(KEY_POINTS)), y)?;
                let words_at = x + key.room();
                let lowered = y + (text::DIGIT_SHIFT * text::em()) as i32;
                sheet.draw_text(words, &style, (words_at, lowered))?;
                x = words_at + text::width(words) + points(ENTRY_GAP);
            }
            y += text::line_height();
        }
        Ok(())
    }
}

/// Every entry with words that a line of `room` units holds.
fn told_apart(entries: &[Entry], room: i32) -> Vec<(Key, String)> {
    let words: Vec<Words> = entries.iter().map(|(_, words)| words.clone()).collect();
    let beside = Words::told_apart(&words, room - Key::Colours.room());
    let shown = |((key, words), beside): (&Entry, String)| match key {
        Key::Note => (Key::Note, words.within(room)),
        key => (key.clone(), beside),
    };
    entries.iter().zip(beside).map(shown).collect()
}

/// Entries in lines that fit `room` units.
fn broken(entries: impl IntoIterator<Item = (Key, String)>, room: i32) -> Vec<Vec<(Key, String)>> {
    let mut lines: Vec<Vec<(Key, String)>> = Vec::new();
    let mut used = 0;
    for (key, words) in entries {
        let width = key.room() + text::width(&words);
        match lines.last_mut() {
            Some(line) if used + points(ENTRY_GAP) + width <= room => {
                used += points(ENTRY_GAP) + width;
                line.push((key, words));
            }
            _ => {
                used = width;
                lines.push(vec![(key, words)]);
            }
        }
    }
    lines
}

impl Key {
    /// The bands of all series that have one.
    pub fn bands(series: &[Series]) -> Self {
        let banded = series.iter().filter(|series| series.is_spread());
        Self::Bands(banded.map(|series| series.pen).collect())
    }

    /// Room of the picture with the gap before its words.
    fn room(&self) -> i32 {
        match self {
            Self::Note => 0,
            _ => points(KEY_POINTS + KEY_GAP),
        }
    }

    fn draw<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, x: (i32, i32), y: i32) -> Drawn<DB> {
        let middle = (x.0 + x.1) / 2;
        match self {
            Self::Note => Ok(()),
            Self::Line(pen) => pen.line(sheet, &[(x.0, y), (x.1, y)]),
            Self::Series(pen) => {
                pen.line(sheet, &[(x.0, y), (x.1, y)])?;
                pen.mark(sheet, (middle, y))
            }
            Self::Hollow(pen) => {
                pen.line(sheet, &[(x.0, y), (x.1, y)])?;
                pen.hollow_mark(sheet, (middle, y))
            }
            Self::Aside(pen) => pen.hollow_mark(sheet, (middle, y)),
            Self::Bracket => {
                let [half, breadth] = [points(2.8), points(1.0)];
                let (left, right) = (middle - breadth, middle + breadth);
                let (top, foot) = (y - half, y + half);
                let corners = vec![(left, top), (right, top), (right, foot), (left, foot)];
                sheet.draw(&PathElement::new(corners, stroke(AXIS, AXIS_POINTS)))
            }
            Self::Bar(pen) => {
                let half = points(2.8);
                pen.bar(sheet, (middle, y + half), (middle, y - half))
            }
            Self::Bands(pens) => {
                let count = pens.len() as i32;
                let edge = |patch: i32| x.0 + (x.1 - x.0) * patch / count;
                (0..).zip(pens).try_for_each(|(patch, pen)| {
                    let (left, right) = (edge(patch), edge(patch + 1));
                    sheet.draw(&patch_between(left, right, y, band_fill(pen.colour)))
                })
            }
            Self::Colours => (0..KEY_PATCHES).try_for_each(|patch| {
                let left = x.0 + (x.1 - x.0) * patch as i32 / KEY_PATCHES as i32;
                let colour = amount((patch as f64 + 0.5) / KEY_PATCHES as f64);
                sheet.draw(&patch_between(left, x.1, y, colour.filled()))
            }),
        }
    }
}

fn patch_between(left: i32, right: i32, y: i32, fill: ShapeStyle) -> Rectangle<Spot> {
    let half = points(HALF_PATCH);
    Rectangle::new([(left, y - half), (right, y + half)], fill)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(words: &[&str], room: f64) -> Heading {
        let entries: Vec<Entry> = words
            .iter()
            .map(|&w| (Key::Series(PENS[0]), w.into()))
            .collect();
        Heading::new(None, &[], &entries, points(room))
    }

    #[test]
    fn entries_share_a_line_only_where_they_fit() {
        assert_eq!(heading(&["one", "two", "three"], 300.0).lines.len(), 1);
        assert_eq!(heading(&["one", "two", "three"], 50.0).lines.len(), 3);
        assert!(heading(&["one", "two"], 50.0).height() > heading(&["one"], 50.0).height());
    }

    #[test]
    fn facts_have_lines_of_their_own() {
        let entry = (Key::Line(PENS[0]), "an entry".into());
        let facts = ["one", "two"].map(Words::from);
        let both = Heading::new(None, &facts, &[entry], points(300.0));
        let words = |line: usize| -> Vec<_> { both.lines[line].iter().map(|e| &*e.1).collect() };
        assert_eq!((words(0), words(1)), (vec!["one", "two"], vec!["an entry"]));
        assert!(Heading::new(None, &[], &[], 0).lines.is_empty());
    }

    #[test]
    fn long_entries_are_shortened() {
        let line = heading(&["a model with a name that goes on and on"], 90.0)
            .lines
            .remove(0);
        assert!(line[0].1.contains('…') && text::width(&line[0].1) <= points(72.0));
    }
}
