//! What stands above the panels: an optional title, and the keys of the series. It never covers data.

use plotters::prelude::{DrawingBackend, PathElement, RGBColor, Rectangle};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{Drawn, Sheet, points};
use super::pen::{Pen, REFERENCE, amount, band_fill, fit_line, stroke};
use super::text;

/// The picture beside a legend's words.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    /// A series' line with its marker.
    Series(Pen),
    /// Bands of spread, in the colours of all series that have one.
    Band(Vec<RGBColor>),
    /// An error bar.
    Bar(Pen),
    /// A plain line of a colour.
    Line(RGBColor),
    /// The line of the full cache, or of another reference, without a marker.
    Reference,
    /// The line of a fitted curve.
    Fit,
    /// The colours of a colour bar, from dark to light.
    Colours,
    /// No picture: words about the whole figure.
    Note,
}

/// Title and keys above the panels, already broken into lines.
#[derive(Debug)]
pub(super) struct Heading {
    title: Option<String>,
    lines: Vec<Vec<(Key, String)>>,
}

/// What labels and names of a vertical axis take at most usually, in points: headings begin beside them.
pub(super) const HEADING_MARGIN: f64 = 36.0;

/// Width of a key's picture, in points.
pub(super) const KEY_POINTS: f64 = 15.0;
const KEY_GAP: f64 = 3.0;
/// Patches of a colour bar's key: enough to look continuous.
const KEY_PATCHES: i32 = 25;
const ENTRY_GAP: f64 = 9.0;

/// Room that a legend's words have in a line of `room` units.
pub(super) fn words_room(room: i32) -> i32 {
    room - points(KEY_POINTS + KEY_GAP)
}

impl Heading {
    /// Breaks `facts` about the whole figure, and below them the entries, into lines that fit `room` units; what is
    /// too long for a line is shortened.
    pub(super) fn new(
        title: Option<&str>,
        facts: Vec<String>,
        entries: Vec<(Key, String)>,
        room: i32,
    ) -> Self {
        let facts = facts.iter().map(|words| text::printable(words));
        let facts = facts.map(|words| (Key::Note, words)).collect();
        let lines = [facts, entries].map(|entries| broken(entries, room));
        let title = title.map(|t| text::fitted(&text::printable(t), room));
        Self {
            title,
            lines: lines.concat(),
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

/// Entries in lines that fit `room` units.
fn broken(entries: Vec<(Key, String)>, room: i32) -> Vec<Vec<(Key, String)>> {
    let mut lines: Vec<Vec<(Key, String)>> = Vec::new();
    let mut used = 0;
    for (key, words) in entries {
        let words = text::fitted(&words, room - key.room());
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
    /// Room of the picture with the gap before its words.
    fn room(&self) -> i32 {
        match self {
            Self::Note => 0,
            _ => points(KEY_POINTS + KEY_GAP),
        }
    }

    fn draw<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, x: (i32, i32), y: i32) -> Drawn<DB> {
        match self {
            Self::Series(pen) => {
                pen.line(sheet, vec![(x.0, y), (x.1, y)])?;
                pen.mark(sheet, ((x.0 + x.1) / 2, y))
            }
            Self::Bar(pen) => {
                let (middle, half) = ((x.0 + x.1) / 2, points(2.8));
                pen.bar(sheet, (middle, y + half), (middle, y - half))
            }
            Self::Line(colour) => {
                let path = vec![(x.0, y), (x.1, y)];
                sheet.draw(&PathElement::new(path, stroke(*colour, 0.6)))
            }
            Self::Reference => REFERENCE.line(sheet, vec![(x.0, y), (x.1, y)]),
            Self::Fit => fit_line(sheet, vec![(x.0, y), (x.1, y)]),
            Self::Colours => draw_colours(sheet, x, y),
            Self::Note => Ok(()),
            Self::Band(colours) => draw_bands(sheet, x, y, colours),
        }
    }
}

/// A patch of every colour beside each other.
fn draw_bands<DB: DrawingBackend>(
    sheet: &Sheet<DB>,
    x: (i32, i32),
    y: i32,
    colours: &[RGBColor],
) -> Drawn<DB> {
    let (half, count) = (points(2.6), colours.len() as i32);
    let edge = |patch: i32| x.0 + (x.1 - x.0) * patch / count;
    for (patch, colour) in (0..).zip(colours) {
        let corners = [(edge(patch), y - half), (edge(patch + 1), y + half)];
        sheet.draw(&Rectangle::new(corners, band_fill(*colour)))?;
    }
    Ok(())
}

fn draw_colours<DB: DrawingBackend>(sheet: &Sheet<DB>, x: (i32, i32), y: i32) -> Drawn<DB> {
    let half = points(2.6);
    for patch in 0..KEY_PATCHES {
        let left = x.0 + (x.1 - x.0) * patch / KEY_PATCHES;
        let colour = amount((f64::from(patch) + 0.5) / f64::from(KEY_PATCHES)).filled();
        sheet.draw(&Rectangle::new([(left, y - half), (x.1, y + half)], colour))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::pen::PENS;

    fn heading(words: &[&str], room: f64) -> Heading {
        let entries = words
            .iter()
            .map(|w| (Key::Series(PENS[0]), (*w).to_owned()))
            .collect();
        Heading::new(None, Vec::new(), entries, points(room))
    }

    #[test]
    fn entries_share_a_line_only_where_they_fit() {
        assert_eq!(heading(&["one", "two", "three"], 300.0).lines.len(), 1);
        assert_eq!(heading(&["one", "two", "three"], 50.0).lines.len(), 3);
        assert!(heading(&["one", "two"], 50.0).height() > heading(&["one"], 50.0).height());
    }

    #[test]
    fn facts_have_lines_of_their_own() {
        let entry = (Key::Line(RGBColor(0, 0, 0)), "an entry".to_owned());
        let facts = ["one", "two"].map(str::to_owned).to_vec();
        let both = Heading::new(None, facts, vec![entry], points(300.0));
        let words = |line: usize| -> Vec<_> { both.lines[line].iter().map(|e| &*e.1).collect() };
        assert_eq!((words(0), words(1)), (vec!["one", "two"], vec!["an entry"]));
        assert!(
            Heading::new(None, Vec::new(), Vec::new(), 0)
                .lines
                .is_empty()
        );
    }

    #[test]
    fn long_entries_are_shortened() {
        let line = heading(&["a model with a name that goes on and on"], 90.0)
            .lines
            .remove(0);
        assert!(line[0].1.contains('…') && text::width(&line[0].1) <= points(72.0));
    }
}
