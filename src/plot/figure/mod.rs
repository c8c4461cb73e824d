//! Figures: a chart describes one, and everything about ink is decided here: layout, axes, ticks, legend, lettering,
//! colours, SVG and PNG.

mod axis;
mod canvas;
mod colour_bar;
mod dashes;
mod description;
mod files;
mod frame;
mod grid;
mod heading;
mod layout;
mod pen;
mod raster;
mod series_axes;
mod shapes;
mod sharing;
mod text;
mod ticks;
mod words;

pub use axis::{Axis, number};
pub use canvas::{COLUMN, PAGE, figure_width, heading_room, is_page};
pub use canvas::{label_count, name_room, panel_columns, points};
pub use colour_bar::ColourBar;
pub use description::{Description, Gaps, Panel};
pub use files::{Figure, render};
pub use frame::Cell;
pub use grid::grid_columns;
pub use heading::{Entry, Key, keys, keys_of};
pub use pen::{BASELINE, FIT, GREY, OTHERS, PENS, Pen, REFERENCE, amount, depth};
pub use series_axes::{ends, from_zero_or_log, labels_up, length_axis, log_axis, spread_ends};
pub use shapes::{EDGES, Look, Marks, Point, Series, Shape, SpreadStyle};
pub use sharing::Sharing;
pub use text::width as text_width;
pub use words::Words;

/// A colour by its red, green and blue.
pub use plotters::style::RGBColor as Colour;
