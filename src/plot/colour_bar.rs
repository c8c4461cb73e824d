//! The bar beside a panel that says which value a colour stands for.

use plotters::prelude::{DrawingBackend, PathElement, RGBColor, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, FontTransform};

use super::axis::Axis;
use super::canvas::{Drawn, Sheet, points};
use super::frame::{AXIS, AXIS_POINTS};
use super::pen::stroke;
use super::text;
use plotters::coord::ranged1d::Ranged;

const BAR_POINTS: f64 = 7.0;
const TICK_POINTS: f64 = 2.0;
const GAP_POINTS: f64 = 3.0;

/// A colour bar with its axis and name.
pub(super) struct ColourBar<'t> {
    /// Values along the bar, from its foot.
    pub(super) axis: &'t Axis,
    /// Name and unit of the values; "" where they stand elsewhere.
    pub(super) name: &'t str,
    /// Number of patches; as many as there are values, or enough to look continuous.
    pub(super) patches: usize,
    /// Colour of a patch, from its number.
    pub(super) colour: &'t dyn Fn(usize) -> RGBColor,
}

impl ColourBar<'_> {
    /// Width in canvas units with labels and name.
    pub(super) fn room(&self) -> i32 {
        let widest = self
            .axis
            .labels()
            .map(|l| text::width(&l))
            .max()
            .unwrap_or(0);
        let name = match self.name {
            "" => 0,
            _ => text::em() as i32 + points(GAP_POINTS),
        };
        points(BAR_POINTS + TICK_POINTS + GAP_POINTS) + widest + name
    }

    /// Draws the bar with its left edge at `left`, from `top` to `bottom`.
    pub(super) fn draw<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        left: i32,
        (top, bottom): (i32, i32),
    ) -> Drawn<DB> {
        let right = left + points(BAR_POINTS);
        let patches = self.patches.max(1);
        let edge = |i: usize| bottom - ((bottom - top) as f64 * i as f64 / patches as f64) as i32;
        for i in 0..patches {
            let foot = if i == 0 { bottom } else { edge(i) + 3 };
            let patch = [(left, edge(i + 1)), (right, foot)];
            sheet.draw(&Rectangle::new(patch, (self.colour)(i).filled()))?;
        }
        let outline = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
            (right, top),
        ];
        sheet.draw(&PathElement::new(
            outline.to_vec(),
            stroke(AXIS, AXIS_POINTS),
        ))?;
        self.draw_labels(sheet, right, (top, bottom))
    }

    fn draw_labels<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
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
        let name = text::style(HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        let name_left = label_left + widest + points(GAP_POINTS);
        sheet.draw_text(self.name, &name, (name_left, (top + bottom) / 2))
    }
}
