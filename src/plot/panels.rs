//! Panels over one horizontal axis: beside each other on a page, below each other in a column.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawn, Sheet, inches, points};
use super::frame::{Frame, Panel};
use super::text;

/// Gap between two panels, in points.
const PANEL_GAP: f64 = 8.0;

/// Margin below the last one, in points.
const BOTTOM_POINTS: f64 = 1.5;

/// Gap between the heading and the panels, in points.
const TOP_POINTS: f64 = 2.0;

/// Least width of a figure whose panels stand side by side, in inches.
const SIDE_BY_SIDE: f64 = 5.0;

/// What one panel has for itself.
pub(super) struct Upright<'t> {
    /// Vertical axis.
    pub(super) y: &'t Axis,
    /// Its name and unit.
    pub(super) name: &'t str,
    /// Height in points, more where the name is longer.
    pub(super) height: f64,
}

/// All panels of a figure.
pub(super) struct Panels<'t> {
    /// Width of the figure in canvas units.
    pub(super) width: i32,
    /// The horizontal axis.
    pub(super) x: &'t Axis,
    /// Its name and unit.
    pub(super) x_name: &'t str,
    /// The panels, one at least.
    pub(super) uprights: Vec<Upright<'t>>,
}

impl Panels<'_> {
    fn side_by_side(&self) -> bool {
        self.uprights.len() > 1 && self.width >= inches(SIDE_BY_SIDE)
    }

    /// In a column only the last panel has labels below.
    fn frame(&self, index: usize) -> Frame<'_> {
        let labelled = self.side_by_side() || index + 1 == self.uprights.len();
        let upright = &self.uprights[index];
        Frame {
            x: self.x,
            y: upright.y,
            x_name: labelled.then_some(self.x_name),
            y_name: Some(upright.name),
            grid: true,
        }
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        (0..self.uprights.len()).map(|index| self.frame(index))
    }

    /// Room left of every panel for labels and name.
    pub(super) fn left(&self) -> i32 {
        self.frames().map(|f| f.left_room()).max().unwrap_or(0)
    }

    /// Height of panel `index` without its labels; panels side by side are as high as the highest.
    fn height(&self, index: usize) -> i32 {
        let own = |u: &Upright<'_>| points(u.height).max(text::width(u.name));
        match self.side_by_side() {
            true => self.uprights.iter().map(own).max().unwrap_or(0),
            false => own(&self.uprights[index]),
        }
    }

    /// Height of panel `index` with its labels.
    fn full_height(&self, index: usize) -> i32 {
        self.height(index) + self.frame(index).bottom_room()
    }

    /// Height of all panels with what stands around them, in canvas units.
    pub(super) fn total_height(&self) -> i32 {
        let last = self.uprights.len().saturating_sub(1);
        let (_, top) = self.corner(last);
        points(TOP_POINTS) + top + self.full_height(last) + points(BOTTOM_POINTS)
    }

    /// Width of a panel with its labels.
    fn panel_width(&self) -> i32 {
        let width = self.width - self.frames().map(|f| f.right_room()).max().unwrap_or(0);
        match (self.side_by_side(), self.uprights.len() as i32) {
            (true, count) => (width - (count - 1) * points(PANEL_GAP)) / count,
            (false, _) => width,
        }
    }

    /// Corner of panel `index`, from that of the first.
    fn corner(&self, index: usize) -> (i32, i32) {
        let gap = points(PANEL_GAP);
        match self.side_by_side() {
            true => (index as i32 * (self.panel_width() + gap), 0),
            false => (0, (0..index).map(|i| self.full_height(i) + gap).sum()),
        }
    }

    /// Draws the frame of panel `index` on `sheet`, whose heading ends at `top`.
    pub(super) fn draw<'a, DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        top: i32,
        index: usize,
    ) -> Drawn<DB, Panel<'a, DB>> {
        let (x, y) = self.corner(index);
        let size = (self.panel_width(), self.full_height(index));
        let corner = (x, y + top + points(TOP_POINTS));
        self.frame(index).draw(sheet, (corner, size), self.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn height(width: f64, heights: &[f64], name: &str) -> i32 {
        let axis = Axis::log(1.0, 1000.0, 9);
        let upright = |&height: &f64| Upright {
            y: &axis,
            name,
            height,
        };
        let panels = Panels {
            width: inches(width),
            x: &axis,
            x_name: "Length",
            uprights: heights.iter().map(upright).collect(),
        };
        panels.total_height()
    }

    #[test]
    fn panels_share_a_row_only_on_a_page() {
        let (column, page) = (
            height(3.4, &[90.0, 60.0], ""),
            height(7.0, &[90.0, 60.0], ""),
        );
        assert_eq!(column - page, points(60.0) + points(8.0) + points(2.2));
        assert_eq!(page, height(7.0, &[60.0, 90.0], ""), "the highest decides");
        assert_eq!(
            page,
            height(3.4, &[90.0], ""),
            "a lone one has a row anyway"
        );
        let name = "a name that is longer than sixty points";
        assert!(height(7.0, &[60.0], name) > height(7.0, &[60.0], ""));
    }
}
