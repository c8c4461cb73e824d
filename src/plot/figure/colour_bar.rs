//! The bar beside panels that says which value a colour stands for.

use std::ops::Range;

use plotters::coord::ranged1d::Ranged;
use plotters::prelude::{DrawingBackend, PathElement, RGBColor, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, FontTransform};

use super::axis::Axis;
use super::canvas::{Drawn, Sheet, points};
use super::frame::{AXIS, AXIS_POINTS};
use super::pen::{depth, stroke};
use super::text;

const BAR_POINTS: f64 = 7.0;
const TICK_POINTS: f64 = 2.0;
const GAP_POINTS: f64 = 3.0;

/// Patches of a continuous bar: enough to look like one.
const PATCHES: usize = 200;

/// A colour bar beside some panels.
#[derive(Clone, Debug, PartialEq)]
pub struct ColourBar {
    /// Values along the bar, from its foot, with their name.
    pub axis: Axis,
    /// Colours from its foot: one for every value, or enough to look continuous.
    pub colours: Vec<RGBColor>,
    /// The panels that it stands beside.
    pub panels: Range<usize>,
}

impl ColourBar {
    /// A bar whose colours go over into each other; `colour` is that of a share of its height.
    pub fn continuous(axis: Axis, colour: impl Fn(f64) -> RGBColor, panels: Range<usize>) -> Self {
        let shares = (0..PATCHES).map(|patch| (patch as f64 + 0.5) / PATCHES as f64);
        Self {
            axis,
            colours: shares.map(colour).collect(),
            panels,
        }
    }

    /// A bar of the colours that [`depth`] gives `count` lines, of which at most `most` are labelled.
    pub fn of_lines(name: &str, count: usize, most: usize, panels: Range<usize>) -> Self {
        let lines = 0..count.max(1);
        Self {
            axis: Axis::indices(count, 0.5, most).called(name),
            colours: lines.map(|line| depth(line, count)).collect(),
            panels,
        }
    }

    /// Room right of the panels for the bar with its labels, and with its `name` unless it is "".
    pub(super) fn room(&self, name: &str) -> i32 {
        let labels = self.axis.labels().map(|l| text::width(&l));
        let name = if name.is_empty() {
            0
        } else {
            text::em() as i32 + points(GAP_POINTS)
        };
        points(BAR_POINTS + TICK_POINTS + GAP_POINTS) + labels.max().unwrap_or(0) + name
    }

    /// Draws the bar with its left edge at `left`, from `top` to `bottom`.
    pub(super) fn draw<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        name: &str,
        left: i32,
        (top, bottom): (i32, i32),
    ) -> Drawn<DB> {
        let right = left + points(BAR_POINTS);
        let (height, patches) = (f64::from(bottom - top), self.colours.len() as f64);
        let edge = |i: usize| bottom - (height * i as f64 / patches) as i32;
        for (i, colour) in self.colours.iter().enumerate() {
            let foot = if i == 0 { bottom } else { edge(i) + 3 };
            let patch = [(left, edge(i + 1)), (right, foot)];
            sheet.draw(&Rectangle::new(patch, colour.filled()))?;
        }
        let corners = [(left, top), (right, top), (right, bottom), (left, bottom)];
        let outline = [&corners[..], &corners[..2]].concat();
        sheet.draw(&PathElement::new(outline, stroke(AXIS, AXIS_POINTS)))?;
        self.draw_labels(sheet, name, right, (top, bottom))
    }

    fn draw_labels<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        name: &str,
        right: i32,
        (top, bottom): (i32, i32),
    ) -> Drawn<DB> {
        let tick = |value: f64, length: f64| {
            let y = self.axis.map(&value, (bottom, top));
            PathElement::new(
                vec![(right, y), (right + points(length), y)],
                stroke(AXIS, 0.5),
            )
        };
        for &value in self.axis.minor() {
            sheet.draw(&tick(value, TICK_POINTS * 0.55))?;
        }
        let style = text::style(HPos::Left, VPos::Center);
        let label_left = right + points(TICK_POINTS + GAP_POINTS - 1.0);
        let mut widest = 0;
        for (&value, label) in self.axis.major().iter().zip(self.axis.labels()) {
            sheet.draw(&tick(value, TICK_POINTS))?;
            let y = self.axis.map(&value, (bottom, top));
            let lowered = y + (text::DIGIT_SHIFT * text::em()).round() as i32;
            sheet.draw_text(&label, &style, (label_left, lowered))?;
            widest = widest.max(text::width(&label));
        }
        let upright = text::style(HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        let name_left = label_left + widest + points(GAP_POINTS);
        sheet.draw_text(name, &upright, (name_left, (top + bottom) / 2))
    }
}
