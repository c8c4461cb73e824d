//! Small panels side by side that share both axes: labels at the outer edges only, and one name for each axis.

use plotters::prelude::DrawingBackend;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, VPos};

use super::axis::Axis;
use super::canvas::{Drawn, Sheet, points};
use super::frame::{Frame, NAME_GAP, NAME_MARGIN, Panel};
use super::text;

/// Gap between rows and between columns, in points.
const ROW_GAP: f64 = 3.0;
const COLUMN_GAP: f64 = 4.0;

/// Least gap between the labels of two panels side by side, in points.
const LABEL_GAP: f64 = 6.0;

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
        Frame {
            x: &self.x,
            y: &self.y,
            x_name: (!below).then_some(""),
            y_name: index.is_multiple_of(self.columns).then_some(""),
            grid: self.lines,
        }
    }

    /// Room left of a panel: labels, and the axis' name beside the first column.
    fn left(&self, index: usize) -> i32 {
        let name = match index.is_multiple_of(self.columns) {
            true => text::em() as i32,
            false => 0,
        };
        name + self.frame(index).left_room()
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

    /// How far row `row` lies below the first.
    fn row_top(&self, row: usize) -> i32 {
        (0..row).map(|r| self.row_height(r) + points(ROW_GAP)).sum()
    }

    /// Height of all rows with their labels and the horizontal axis' name, in canvas units.
    pub(super) fn total_height(&self) -> i32 {
        let last = self.rows().saturating_sub(1);
        self.row_top(last) + self.row_height(last) + points(NAME_GAP) + text::em() as i32
    }

    /// Height from the top edge of the first row's panels to the bottom edge of the last row's.
    pub(super) fn panels_height(&self) -> i32 {
        self.row_top(self.rows().saturating_sub(1)) + self.height
    }

    /// Top and bottom edge of all panels, in a grid that begins at `top`.
    pub(super) fn panels_range(&self, top: i32) -> (i32, i32) {
        let first = top + self.name_height();
        (first, first + self.panels_height())
    }

    /// The same panels, higher where the vertical axis' name would be longer than all rows.
    pub(super) fn tall_enough(self) -> Self {
        let lacking = (text::width(&self.y_name) - self.panels_height()).max(0);
        let rows = self.rows().max(1) as i32;
        Self {
            height: self.height + (lacking + rows - 1) / rows,
            ..self
        }
    }

    /// Gap between two columns, wide enough for the labels that stand at the ends of two axes beside each other.
    fn column_gap(&self) -> i32 {
        let half = |label: Option<String>| label.map_or(0, |label| text::width(&label) / 2);
        let (first, last) = (self.x.labels().next(), self.x.labels().last());
        let ends = [self.x.major().first(), self.x.major().last()];
        let [left, right] = ends.map(|v| v.map_or(0.0, |&v| self.x.fraction(v)));
        // Labels inside an axis reach less far beyond it; labels take a fifth of a row at most.
        let inside = 0.8 * (left + 1.0 - right) * f64::from(self.width / self.columns as i32);
        let needed = half(first) + half(last) + points(LABEL_GAP) - inside as i32;
        points(COLUMN_GAP).max(needed - self.left(1))
    }

    /// Width of a panel without its labels.
    pub(super) fn panel_width(&self) -> i32 {
        let others = self.columns as i32 - 1;
        let inner = if others > 0 { self.left(1) } else { 0 };
        let taken = self.left(0) + others * (inner + self.column_gap());
        (self.width - taken - self.frame(0).right_room()) / self.columns as i32
    }

    /// Draws the names of both axes on `sheet`, whose grid begins at `top`.
    pub(super) fn draw_names<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, top: i32) -> Drawn<DB> {
        let (high, low) = self.panels_range(top);
        let upright = text::style(HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        let beside = (points(NAME_MARGIN), (high + low) / 2);
        sheet.draw_text(&self.y_name, &upright, beside)?;
        let (left, right) = (self.left(0), self.width - self.frame(0).right_room());
        let foot = top + self.total_height() - text::em() as i32;
        let level = text::style(HPos::Center, VPos::Top);
        sheet.draw_text(&self.x_name, &level, ((left + right) / 2, foot))
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
        let (width, left) = (self.panel_width(), self.left(index));
        let before: i32 = (0..column)
            .map(|c| self.left(c) + width + self.column_gap())
            .sum();
        let y = top + self.row_top(row);
        let words = text::style(HPos::Left, VPos::Center);
        let at = (before + left, y + text::line_height() / 2);
        if self.count > 1 {
            sheet.draw_text(name, &words, at)?;
        }
        let frame = self.frame(index);
        let corner = (before, y + self.name_height());
        let size = (left + width, self.height + frame.bottom_room());
        frame.draw(sheet, (corner, size), left)
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

    #[test]
    fn panels_grow_until_the_name_fits_beside_all_rows() {
        let grid = |name: &str, columns| PanelGrid {
            x: Axis::from_zero(1.0, 3),
            y: Axis::from_zero(1.0, 3),
            x_name: "Layer".to_owned(),
            y_name: name.to_owned(),
            lines: true,
            count: 4,
            columns,
            width: points(245.0),
            height: points(40.0),
        };
        let long = "a name that is longer than a row is high (%)";
        assert_eq!(grid("Share", 4).tall_enough().height, points(40.0));
        let (one, two) = (grid(long, 4).tall_enough(), grid(long, 2).tall_enough());
        assert!(one.height == text::width(long) && two.height < one.height);
        assert!(two.panels_height() >= text::width(long));
    }
}
