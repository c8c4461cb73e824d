//! Where everything lies: heading, panels with axes of their own or in a grid that shares them, and colour bars.

use plotters::prelude::DrawingBackend;
use plotters::style::TextStyle;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{Drawn, Sheet, Spot, heading_room, name_room, points};
use super::colour_bar::ColourBar;
use super::description::{Description, Gaps, Panel};
use super::frame::Frame;
use super::grid::Grid;
use super::heading::{Entry, Heading, Key};
use super::text;

/// Gap between the panels and a colour bar, in points.
const BAR_GAP: f64 = 6.0;

/// Margin at the foot of a figure, in points.
const BOTTOM_POINTS: f64 = 1.5;

/// A panel, its place, and its name where it has one.
struct Place<'d> {
    panel: &'d Panel,
    frame: Frame<'d>,
    name: Option<String>,
    corner: Spot,
    size: (i32, i32),
    /// Room for labels and name of the vertical axis.
    left: i32,
}

/// A whole figure, ready to be drawn on either output.
pub(super) struct Layout<'d> {
    /// Width and height in canvas units.
    pub(super) size: (i32, i32),
    heading: Heading,
    /// Names that several panels share.
    names: Vec<(String, TextStyle<'static>, Spot)>,
    places: Vec<Place<'d>>,
    /// Colour bars with their names, "" where that stands in the heading, and their left edge.
    bars: Vec<(&'d ColourBar, String)>,
    bars_left: i32,
}

impl<'d> Layout<'d> {
    pub(super) fn of(figure: &'d Description, title: Option<&str>) -> Self {
        let gaps = figure.gaps.unwrap_or_default();
        match Grid::of(figure).filter(|_| figure.gaps.is_none()) {
            Some(grid) => Self::sharing(figure, grid, title),
            None => Self::apart(figure, gaps, title),
        }
    }

    /// Panels with axes of their own, beside and below each other; those that are meant to be equally high are.
    fn apart(figure: &'d Description, gaps: Gaps, title: Option<&str>) -> Self {
        let heading = heading(figure, title, &[]);
        let least = figure
            .panels
            .first()
            .map_or(0, |panel| points(panel.height));
        let bars: Vec<_> = (figure.bars.iter())
            .map(|bar| (bar, bar.axis.named(least)))
            .collect();
        let width = figure.width - bars_room(&bars);
        let frames: Vec<Frame<'_>> = (0..figure.panels.len())
            .map(|index| own_frame(figure, index))
            .collect();
        let widest = |of: fn(&Frame<'_>) -> i32| frames.iter().map(of).max().unwrap_or(0);
        let left = widest(|frame| frame.left_room());
        // Bars leave room enough for the last label.
        let right = if bars.is_empty() {
            widest(|frame| frame.right_room())
        } else {
            0
        };
        let columns = figure.columns as i32;
        let (pitch, gap) = match gaps.column {
            Some(gap) => ((width - right + points(gap)) / columns, points(gap)),
            None => (width / columns, right),
        };
        let longest = bars.iter().map(|(_, name)| text::width(name)).max();
        let height = |panel: &Panel| {
            let name = text::width(&panel.y.named(points(panel.height)));
            points(panel.height).max(name).max(longest.unwrap_or(0))
        };
        let mut names = figure.panel_names(pitch - gap - left).into_iter();
        let mut top = heading.height() + points(gaps.top);
        let mut places: Vec<Place<'_>> = Vec::new();
        let mut frames = frames.into_iter();
        for own in figure.panels.chunks(figure.columns) {
            let row_frames: Vec<Frame<'_>> = frames.by_ref().take(own.len()).collect();
            let alike = |p: &&Panel| own.iter().any(|o| o.height == p.height);
            let high = figure.panels.iter().filter(alike).map(height).max();
            let labels = row_frames.iter().map(|frame| frame.bottom_room()).max();
            let (high, labels) = (high.unwrap_or(0), labels.unwrap_or(0));
            top += figure.name_height();
            for (column, (panel, frame)) in (0..).zip(own.iter().zip(row_frames)) {
                places.push(Place {
                    name: names.next(),
                    corner: (column * pitch, top),
                    size: (pitch - gap, high + frame.bottom_room()),
                    panel,
                    frame,
                    left,
                });
            }
            top += high + labels + points(gaps.row);
        }
        Self {
            size: (figure.width, top - points(gaps.row) + points(BOTTOM_POINTS)),
            heading,
            names: Vec::new(),
            places,
            bars,
            bars_left: width + points(BAR_GAP),
        }
    }

    /// Panels in a grid that share both axes. A bar's name that is longer than the grid is high stands in the heading.
    fn sharing(figure: &'d Description, mut grid: Grid<'d>, title: Option<&str>) -> Self {
        let mut above = Vec::new();
        let mut named = |bar: &'d ColourBar| {
            let name = bar.axis.named(grid.panels_height());
            if text::width(&name) <= grid.panels_height() {
                return (bar, name);
            }
            above.push((Key::Colours, name.into()));
            (bar, String::new())
        };
        let bars: Vec<_> = figure.bars.iter().map(&mut named).collect();
        let heading = heading(figure, title, &above);
        grid.width -= bars_room(&bars);
        let top = heading.height();
        let mut names = figure.panel_names(grid.panel_width()).into_iter();
        let places = figure.panels.iter().enumerate().map(|(index, panel)| {
            let (corner, size, left) = grid.place(index, top);
            Place {
                frame: grid.frame(index),
                name: names.next(),
                panel,
                corner,
                size,
                left,
            }
        });
        Self {
            size: (
                figure.width,
                top + grid.total_height() + points(BOTTOM_POINTS),
            ),
            places: places.collect(),
            names: grid.names(top),
            heading,
            bars,
            bars_left: grid.width + points(BAR_GAP),
        }
    }

    /// Draws all of it.
    pub(super) fn draw<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let left = self.places.first().map_or(0, |place| place.left);
        self.heading.draw(sheet, left)?;
        for (name, style, at) in &self.names {
            sheet.draw_text(name, style, *at)?;
        }
        let mut ranges = Vec::new();
        for place in &self.places {
            if let Some(name) = &place.name {
                let above = text::line_height() - text::line_height() / 2;
                let at = (place.corner.0 + place.left, place.corner.1 - above);
                sheet.draw_text(name, &text::style(HPos::Left, VPos::Center), at)?;
            }
            let area = (place.corner, place.size);
            let area = place.frame.draw(sheet, area, place.left)?;
            for shape in &place.panel.shapes {
                shape.draw(&area)?;
            }
            ranges.push(area.y_range());
        }
        for (bar, name) in &self.bars {
            let beside = ranges.get(bar.panels.clone()).unwrap_or_default();
            if let (Some((top, _)), Some((_, bottom))) = (beside.first(), beside.last()) {
                bar.draw(sheet, name, self.bars_left, (*top, *bottom))?;
            }
        }
        Ok(())
    }
}

fn heading(figure: &Description, title: Option<&str>, above: &[Entry]) -> Heading {
    let entries = [above, &figure.entries].concat();
    Heading::new(title, &figure.facts, &entries, heading_room(figure.width))
}

fn bars_room(bars: &[(&ColourBar, String)]) -> i32 {
    let rooms = bars.iter().map(|(bar, name)| bar.room(name));
    rooms.max().map_or(0, |room| room + points(BAR_GAP))
}

/// The frame of a panel; the labels of its horizontal axis are left to the panel below where all of its row can leave them.
fn own_frame(figure: &Description, index: usize) -> Frame<'_> {
    let panel = &figure.panels[index];
    let below = |index: usize| figure.panels.get(index + figure.columns);
    let first = index - index % figure.columns;
    let row = figure
        .panels
        .iter()
        .enumerate()
        .skip(first)
        .take(figure.columns);
    let mut others = row.filter_map(|(place, panel)| Some((panel, below(place)?)));
    let labelled = below(index).is_none() || others.any(|(panel, below)| below.x != panel.x);
    Frame {
        x: &panel.x,
        y: &panel.y,
        x_name: labelled.then(|| panel.x.named(name_room(figure.width))),
        y_name: Some(panel.y.named(points(panel.height))),
        grid: !panel.has_cells(),
    }
}
