//! Small panels side by side that share both axes: labels at the outer edges only, and one name for each axis.

use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{FontTransform, TextStyle};

use super::axis::Axis;
use super::canvas::{Spot, name_room, points};
use super::description::Description;
use super::frame::{Frame, NAME_GAP, NAME_MARGIN};
use super::text;

/// Gap between rows and between columns, in points.
const ROW_GAP: f64 = 3.0;
const COLUMN_GAP: f64 = 4.0;

/// Least gap between the labels of two panels side by side, in points.
const LABEL_GAP: f64 = 6.0;

/// Where panels lie, and what stands on their axes.
pub(super) struct Grid<'d> {
    x: &'d Axis,
    y: &'d Axis,
    x_name: String,
    y_name: String,
    /// Whether grid lines help.
    lines: bool,
    /// Number of panels.
    count: usize,
    /// Panels in a row.
    columns: usize,
    /// Height of a panel's name.
    name_height: i32,
    /// Width of all columns, in canvas units.
    pub(super) width: i32,
    /// Height of a panel without its name and labels, in canvas units.
    height: i32,
}

/// Columns of at least `least` points that `width` units have room for, in rows as even as can be.
pub fn grid_columns(width: i32, least: f64, count: usize) -> usize {
    let most = ((width - points(20.0)) / points(least)).max(1) as usize;
    let rows = count.div_ceil(most.min(count).max(1)).max(1);
    count.div_ceil(rows).max(1)
}

impl<'d> Grid<'d> {
    /// The grid of a figure's panels, whose axes are those of the first.
    pub(super) fn of(figure: &'d Description) -> Option<Self> {
        let first = figure.panels.first()?;
        let grid = Self {
            x: &first.x,
            y: &first.y,
            x_name: first.x.named(name_room(figure.width)),
            y_name: String::new(),
            lines: !first.has_cells(),
            count: figure.panels.len(),
            columns: figure.columns,
            name_height: figure.name_height(),
            width: figure.width,
            height: points(first.height),
        };
        let y_name = first.y.named(grid.panels_height());
        Some(Self { y_name, ..grid }.tall_enough())
    }

    /// The frame of panel `index`, with labels at the outer edges.
    pub(super) fn frame(&self, index: usize) -> Frame<'d> {
        let labelled = |outer: bool| outer.then(String::new);
        Frame {
            x: self.x,
            y: self.y,
            x_name: labelled(index + self.columns >= self.count),
            y_name: labelled(index.is_multiple_of(self.columns)),
            grid: self.lines,
        }
    }

    /// Room left of a panel: labels, and the axis' name beside the first column.
    fn left(&self, index: usize) -> i32 {
        let frame = self.frame(index);
        let name = frame.y_name.as_ref().map_or(0, |_| text::em() as i32);
        name + frame.left_room()
    }

    fn rows(&self) -> usize {
        self.count.div_ceil(self.columns)
    }

    /// Labels of a panel without one below lie in the empty place there, so only the last row needs room.
    fn row_height(&self, row: usize) -> i32 {
        let last = row + 1 == self.rows();
        let labelled = if last { self.count - 1 } else { 0 };
        self.name_height + self.height + self.frame(labelled).bottom_room()
    }

    /// How far row `row` lies below the first.
    fn row_top(&self, row: usize) -> i32 {
        (0..row).map(|r| self.row_height(r) + points(ROW_GAP)).sum()
    }

    /// Height of all rows with their labels and the horizontal axis' name, in canvas units.
    pub(super) fn total_height(&self) -> i32 {
        let last = self.rows() - 1;
        self.row_top(last) + self.row_height(last) + points(NAME_GAP) + text::em() as i32
    }

    /// Height from the top edge of the first row's panels to the bottom edge of the last row's.
    pub(super) fn panels_height(&self) -> i32 {
        self.row_top(self.rows() - 1) + self.height
    }

    /// The same panels, higher where the vertical axis' name would be longer than all rows.
    fn tall_enough(self) -> Self {
        let lacking = (text::width(&self.y_name) - self.panels_height()).max(0);
        let rows = self.rows() as i32;
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

    /// The names of both axes, in a grid that begins at `top`.
    pub(super) fn names(&self, top: i32) -> Vec<(String, TextStyle<'static>, Spot)> {
        let level = text::style(HPos::Center, VPos::Top);
        let upright = level.clone().transform(FontTransform::Rotate270);
        let first = top + self.name_height;
        let beside = (points(NAME_MARGIN), (2 * first + self.panels_height()) / 2);
        let (left, right) = (self.left(0), self.width - self.frame(0).right_room());
        let foot = top + self.total_height() - text::em() as i32;
        vec![
            (self.y_name.clone(), upright, beside),
            (self.x_name.clone(), level, ((left + right) / 2, foot)),
        ]
    }

    /// Corner and size of panel `index` with its labels, and the room left of it, in a grid that begins at `top`.
    pub(super) fn place(&self, index: usize, top: i32) -> (Spot, (i32, i32), i32) {
        let (row, column) = (index / self.columns, index % self.columns);
        let (width, left) = (self.panel_width(), self.left(index));
        let before = (0..column).map(|c| self.left(c) + width + self.column_gap());
        let corner = (before.sum(), top + self.row_top(row) + self.name_height);
        let labels = self.frame(index).bottom_room();
        (corner, (left + width, self.height + labels), left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_even_as_can_be() {
        let width = points(245.0);
        assert_eq!(grid_columns(width, 70.0, 2), 2);
        assert_eq!(grid_columns(width, 70.0, 3), 3);
        assert_eq!(grid_columns(width, 70.0, 4), 2);
        assert_eq!(grid_columns(width, 70.0, 7), 3);
        assert_eq!(grid_columns(points(30.0), 70.0, 7), 1);
    }

    #[test]
    fn panels_grow_until_the_name_fits_beside_all_rows() {
        let axis = Axis::from_zero(1.0, 3);
        let grid = |name: &str, columns| Grid {
            x: &axis,
            y: &axis,
            x_name: "Layer".to_owned(),
            y_name: name.to_owned(),
            lines: true,
            count: 4,
            columns,
            name_height: text::line_height(),
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
