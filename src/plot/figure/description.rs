//! What a chart says of its figure: words, panels, what they show, and how they stand.

use super::axis::Axis;
use super::colour_bar::ColourBar;
use super::heading::Entry;
use super::shapes::Shape;
use super::text;
use super::words::Words;

/// A figure before it is laid out.
#[derive(Debug, Default)]
pub struct Description {
    /// What it shows, for screen readers.
    pub about: String,
    /// Width in canvas units.
    pub width: i32,
    /// What it says of its source as a whole.
    pub facts: Vec<Words>,
    /// The legend.
    pub entries: Vec<Entry>,
    /// From left to right, row by row.
    pub panels: Vec<Panel>,
    /// Panels in a row.
    pub columns: usize,
    /// Gaps between panels with axes of their own; in a grid, where all share those of the first, `None`.
    pub gaps: Option<Gaps>,
    /// Bars of colours, right of the panels.
    pub bars: Vec<ColourBar>,
}

/// Gaps around panels that have axes of their own, in points.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    /// Between heading and panels.
    pub top: f64,
    /// Between rows.
    pub row: f64,
    /// Between columns; as much as a panel's last label needs without it.
    pub column: Option<f64>,
}

/// Two axes and what is drawn on them.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What stands above it where there are several.
    pub name: Words,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Least height in points; names of axes may need more.
    pub height: f64,
    /// From the back to the front.
    pub shapes: Vec<Shape>,
}

impl Description {
    /// A figure in one column without anything on it yet.
    pub fn new(about: impl Into<String>, width: i32) -> Self {
        Self {
            about: about.into(),
            width,
            columns: 1,
            ..Self::default()
        }
    }

    /// Height of a panel's name; a lone panel has none.
    pub(super) fn name_height(&self) -> i32 {
        let named = self.panels.iter().any(|panel| !panel.name.is_empty());
        if named && self.panels.len() > 1 {
            text::line_height()
        } else {
            0
        }
    }

    /// The panels' names in `room` units, where they have any.
    pub(super) fn panel_names(&self, room: i32) -> Vec<String> {
        if self.name_height() == 0 {
            return Vec::new();
        }
        let names: Vec<Words> = self.panels.iter().map(|panel| panel.name.clone()).collect();
        Words::told_apart(&names, room)
    }
}

impl Panel {
    /// Panels that share both axes and are equally high, with their names and what they show.
    pub fn each(
        (x, y): (&Axis, &Axis),
        height: f64,
        shown: impl IntoIterator<Item = (Words, Vec<Shape>)>,
    ) -> Vec<Self> {
        let panel = |(name, shapes)| Self::named(name, (x, y), height, shapes);
        shown.into_iter().map(panel).collect()
    }

    /// A panel called `name`.
    pub fn named(
        name: impl Into<Words>,
        (x, y): (&Axis, &Axis),
        height: f64,
        shapes: Vec<Shape>,
    ) -> Self {
        Self {
            name: name.into(),
            x: x.clone(),
            y: y.clone(),
            height,
            shapes,
        }
    }

    /// A panel without a name.
    pub fn alone(axes: (&Axis, &Axis), height: f64, shapes: Vec<Shape>) -> Vec<Self> {
        Self::each(axes, height, [(Words::default(), shapes)])
    }

    /// Whether it shows cells, which grid lines would hide.
    pub(super) fn has_cells(&self) -> bool {
        let mut shapes = self.shapes.iter();
        shapes.any(|shape| matches!(shape, Shape::Cells(_)))
    }
}
