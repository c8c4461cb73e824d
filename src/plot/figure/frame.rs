//! A panel: two axes with their names, and values placed on them.

use plotters::chart::{ChartBuilder, ChartContext, LabelAreaPosition};
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::{DrawingBackend, PathElement, RGBColor, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::axis::Axis;
use super::canvas::{Drawn, Sheet, Spot, points};
use super::pen::stroke;
use super::text;

/// Colour of axes and ticks.
pub(super) const AXIS: RGBColor = RGBColor(60, 60, 60);

/// Colour of grid lines.
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Width of axes and ticks, in points.
pub(super) const AXIS_POINTS: f64 = 0.6;

/// Length of a major tick, in points; plotters leaves as much again before the label.
const TICK_POINTS: f64 = 2.2;

/// Gap between the tick labels and the axis' name, in points.
pub(super) const NAME_GAP: f64 = 3.0;

/// How far a cell reaches under the next, in points: a pixel of a screen.
const SEAM_POINTS: f64 = 0.75;

/// Margin left of the vertical axis' name, in points.
pub(super) const NAME_MARGIN: f64 = 1.0;

/// What a panel shows on its axes.
pub(super) struct Frame<'d> {
    /// Horizontal axis.
    pub(super) x: &'d Axis,
    /// Vertical axis.
    pub(super) y: &'d Axis,
    /// Name and unit of the horizontal axis, "" for labels alone; `None` leaves its labels out too, for a
    /// panel above another.
    pub(super) x_name: Option<String>,
    /// Name and unit of the vertical axis, "" for labels alone; `None` leaves its labels out too, for a panel
    /// beside another.
    pub(super) y_name: Option<String>,
    /// Whether grid lines help to read values off.
    pub(super) grid: bool,
}

/// The rectangle between two corners, in values of the axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// One corner.
    pub from: (f64, f64),
    /// The other.
    pub to: (f64, f64),
    /// What fills it.
    pub colour: RGBColor,
}

impl Cell {
    /// Half a step beyond `x` and `y` on either side.
    pub fn around(x: f64, y: f64, colour: RGBColor) -> Self {
        Self {
            from: (x - 0.5, y - 0.5),
            to: (x + 0.5, y + 0.5),
            colour,
        }
    }
}

/// A drawn panel that values can be placed on.
pub(super) struct Area<'a, DB: DrawingBackend> {
    chart: ChartContext<'a, DB, Cartesian2d<Axis, Axis>>,
    /// The whole sheet.
    pub(super) sheet: Sheet<DB>,
}

impl Frame<'_> {
    /// Room that labels and name of the vertical axis take.
    pub(super) fn left_room(&self) -> i32 {
        let widest = self.y.labels().map(|l| text::width(&l)).max().unwrap_or(0);
        let name = match self.y_name.as_deref() {
            None => return points(NAME_MARGIN + 2.0 * TICK_POINTS),
            Some("") => 0,
            Some(_) => text::em() as i32,
        };
        name + points(NAME_MARGIN + NAME_GAP + 2.0 * TICK_POINTS) + widest
    }

    /// Room that labels and name of the horizontal axis take.
    pub(super) fn bottom_room(&self) -> i32 {
        match self.x_name.as_deref() {
            None => points(TICK_POINTS),
            Some("") => text::em() as i32 + points(2.0 * TICK_POINTS),
            Some(_) => 2 * text::em() as i32 + points(NAME_GAP + 2.0 * TICK_POINTS),
        }
    }

    /// Room that the last label of the horizontal axis needs beyond the panel's right edge.
    pub(super) fn right_room(&self) -> i32 {
        let half = self.x.labels().last().map_or(0, |l| text::width(&l) / 2);
        points(2.0).max(half.min(points(14.0)))
    }

    /// Draws axes, ticks, labels and names on the part of `sheet` of `size` units whose corner is `corner`, keeping `left`
    /// units for the vertical axis.
    pub(super) fn draw<'a, DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        (corner, size): (Spot, (i32, i32)),
        left: i32,
    ) -> Drawn<DB, Area<'a, DB>> {
        let margin = points(NAME_MARGIN);
        let chart = ChartBuilder::on(&sheet.clone().shrink(corner, size))
            .margin_left(margin)
            .set_label_area_size(LabelAreaPosition::Left, left - margin)
            .set_label_area_size(LabelAreaPosition::Bottom, self.bottom_room())
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        // Not the part's own sheet: plotters moves what lies outside an area to its edge, which would flatten
        // markers on the rim and drop ticks.
        let sheet = sheet.use_screen_coord();
        let mut panel = Area { chart, sheet };
        self.draw_mesh(&mut panel.chart)?;
        self.draw_minor_ticks(&panel)?;
        Ok(panel)
    }

    fn draw_mesh<DB: DrawingBackend>(
        &self,
        chart: &mut ChartContext<'_, DB, Cartesian2d<Axis, Axis>>,
    ) -> Drawn<DB> {
        let lettering = text::style(HPos::Left, VPos::Top);
        let no_label = |_: &f64| String::new();
        let grid = if self.grid {
            stroke(GRID, 0.5)
        } else {
            TRANSPARENT.stroke_width(0)
        };
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(grid)
            .light_line_style(TRANSPARENT)
            .axis_style(stroke(AXIS, AXIS_POINTS))
            .label_style(lettering.clone())
            .axis_desc_style(lettering)
            .y_label_offset((text::DIGIT_SHIFT * text::em()).round() as i32)
            .set_all_tick_mark_size(points(TICK_POINTS));
        match &self.y_name {
            Some(name) => mesh.y_desc(name),
            None => mesh.y_label_formatter(&no_label),
        };
        match &self.x_name {
            Some(name) => mesh.x_desc(name),
            None => mesh.x_label_formatter(&no_label),
        };
        mesh.draw()
    }

    fn draw_minor_ticks<DB: DrawingBackend>(&self, panel: &Area<'_, DB>) -> Drawn<DB> {
        let (style, length) = (stroke(AXIS, 0.4), points(TICK_POINTS * 0.55));
        let (left, bottom) = (panel.x_range().0, panel.y_range().1);
        let across = self.x.minor().iter().map(|&x| panel.at(x, 0.0).0);
        let across = across.map(|x| [(x, bottom), (x, bottom + length)]);
        let up = self.y.minor().iter().map(|&y| panel.at(0.0, y).1);
        let up = up.map(|y| [(left, y), (left - length, y)]);
        (across.chain(up))
            .try_for_each(|tick| panel.sheet.draw(&PathElement::new(tick.to_vec(), style)))
    }
}

impl<DB: DrawingBackend> Area<'_, DB> {
    /// Where the values `x`, `y` lie on the sheet; what is infinite lies on the panel's edge.
    pub(super) fn at(&self, x: f64, y: f64) -> Spot {
        let inside = self.chart.plotting_area().map_coordinate(&(x, y));
        let or_edge = |value: f64, inside: i32, (low, high): (i32, i32)| {
            let edge = if value > 0.0 { high } else { low };
            if value.is_infinite() { edge } else { inside }
        };
        let (top, bottom) = self.y_range();
        (
            or_edge(x, inside.0, self.x_range()),
            or_edge(y, inside.1, (bottom, top)),
        )
    }

    /// Left and right edge.
    pub(super) fn x_range(&self) -> (i32, i32) {
        let range = self.chart.plotting_area().get_pixel_range().0;
        (range.start, range.end)
    }

    /// Top and bottom edge.
    pub(super) fn y_range(&self) -> (i32, i32) {
        let range = self.chart.plotting_area().get_pixel_range().1;
        (range.start, range.end)
    }

    /// Fills a cell, which reaches under the next to the right and below, drawn later, by a pixel of a screen.
    pub(super) fn fill(&self, cell: &Cell) -> Drawn<DB> {
        let (a, b) = (
            self.at(cell.from.0, cell.from.1),
            self.at(cell.to.0, cell.to.1),
        );
        let (low, high) = ((a.0.min(b.0), a.1.min(b.1)), (a.0.max(b.0), a.1.max(b.1)));
        let (right, bottom) = (self.x_range().1, self.y_range().1);
        let under = points(SEAM_POINTS);
        let corner = ((high.0 + under).min(right), (high.1 + under).min(bottom));
        self.sheet
            .draw(&Rectangle::new([low, corner], cell.colour.filled()))
    }
}
