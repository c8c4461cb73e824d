//! Small panels side by side that share both axes: names of axes only at the outer edges.

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

use super::axis::Axis;
use super::canvas::{Drawn, Sheet, part, points};
use super::frame::{Frame, Panel};
use super::text;

/// Gap between rows and between columns, in points.
const ROW_GAP: f64 = 3.0;
const COLUMN_GAP: f64 = 5.0;

/// Where panels lie, and what stands on their axes.
pub(super) struct PanelGrid {
    /// Horizontal axis of every panel.
    pub(super) x: Axis,
    /// Vertical axis of every panel.
    pub(super) y: Axis,
    /// Name of the horizontal axis.
    pub(super) x_name: String,
    /// Name of the vertical axis.
    pub(super) y_name: String,
    /// Whether grid lines help.
    pub(super) lines: bool,
    /// Number of panels.
    pub(super) count: usize,
    /// Panels in a row.
    pub(super) columns: usize,
    /// Width of all columns, in canvas units.
    pub(super) width: i32,
    /// Height of a panel without its name and labels, in canvas units.
    pub(super) height: i32,
}

impl PanelGrid {
    /// Columns of at least `least` points that `width` units have room for, in rows as even as can be.
    pub(super) fn columns(width: i32, least: f64, count: usize) -> usize {
        let most = ((width - points(20.0)) / points(least)).max(1) as usize;
        let rows = count.div_ceil(most.min(count).max(1)).max(1);
        count.div_ceil(rows).max(1)
    }

    fn frame(&self, index: usize) -> Frame<'_> {
        let below = index + self.columns < self.count;
        let first = index.is_multiple_of(self.columns);
        Frame {
            x: &self.x,
            y: &self.y,
            x_name: (!below).then_some(&self.x_name),
            y_name: if first { &self.y_name } else { "" },
            grid: self.lines,
        }
    }

    /// Room left of a panel: an axis without a name needs less.
    fn left(&self, index: usize) -> i32 {
        let frame = self.frame(index);
        match frame.y_name {
            "" => frame.left_room() - text::em() as i32,
            _ => frame.left_room(),
        }
    }

    /// Left edge of the first panel itself, which headings stand above.
    pub(super) fn heading_left(&self) -> i32 {
        self.left(0)
    }

    fn rows(&self) -> usize {
        self.count.div_ceil(self.columns)
    }

    /// A lone panel has no name.
    fn name_height(&self) -> i32 {
        if self.count > 1 {
            text::line_height()
        } else {
            0
        }
    }

    /// Labels of a panel without one below lie in the empty place there, so only the last row needs room.
    fn row_height(&self, row: usize) -> i32 {
        let labels = match row + 1 == self.rows() {
            true => self.frame(self.count.saturating_sub(1)).bottom_room(),
            false => self.frame(0).bottom_room(),
        };
        self.name_height() + self.height + labels
    }

    /// Height of all rows, in canvas units.
    pub(super) fn total_height(&self) -> i32 {
        let rows: i32 = (0..self.rows()).map(|row| self.row_height(row)).sum();
        rows + points(ROW_GAP) * self.rows().saturating_sub(1) as i32
    }

    /// Width of a panel without its labels.
    pub(super) fn panel_width(&self) -> i32 {
        let others = self.columns as i32 - 1;
        let inner = if others > 0 { self.left(1) } else { 0 };
        let taken = self.left(0) + others * (inner + points(COLUMN_GAP));
        (self.width - taken - self.frame(0).right_room()) / self.columns as i32
    }

    /// Draws frame and name of panel `index` on `sheet`, whose grid begins at `top`.
    pub(super) fn draw<'a, DB: DrawingBackend>(
        &self,
        sheet: &'a Sheet<DB>,
        top: i32,
        index: usize,
        name: &str,
    ) -> Drawn<DB, Panel<'a, DB>> {
        let (row, column) = (index / self.columns, index % self.columns);
        let above: i32 = (0..row).map(|r| self.row_height(r) + points(ROW_GAP)).sum();
        let (width, left) = (self.panel_width(), self.left(index));
        let before: i32 = (0..column)
            .map(|c| self.left(c) + width + points(COLUMN_GAP))
            .sum();
        let y = top + above;
        let words = text::style(HPos::Left, VPos::Center);
        let at = (before + left, y + text::line_height() / 2);
        if self.count > 1 {
            sheet.draw_text(name, &words, at)?;
        }
        let frame = self.frame(index);
        let corner = (before, y + self.name_height());
        let size = (left + width, self.height + frame.bottom_room());
        frame.draw(&part(sheet, corner, size), left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_even_as_can_be() {
        let width = points(245.0);
        assert_eq!(PanelGrid::columns(width, 70.0, 2), 2);
        assert_eq!(PanelGrid::columns(width, 70.0, 3), 3);
        assert_eq!(PanelGrid::columns(width, 70.0, 4), 2);
        assert_eq!(PanelGrid::columns(width, 70.0, 7), 3);
        assert_eq!(PanelGrid::columns(points(30.0), 70.0, 7), 1);
    }
}
