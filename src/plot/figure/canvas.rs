//! The sheet both outputs are drawn on: its units and its sizes.

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{DrawingArea, DrawingBackend};

use crate::error::{Error, Result};

/// Canvas units in an inch: fine enough for SVG coordinates, which plotters keeps integral.
pub(super) const UNITS_PER_INCH: u32 = 1200;

/// Size of all lettering in points, at the figure's printed width.
pub(super) const TEXT_POINTS: f64 = 7.0;

/// Most room for the name of a horizontal axis, in points: as wide as a panel in a column.
const NAME_POINTS: f64 = 180.0;

/// Width of a text column in inches.
pub const COLUMN: f64 = 3.4;

/// Width of a page of two columns in inches.
pub const PAGE: f64 = 7.0;

/// A position on the sheet in canvas units.
pub(super) type Spot = (i32, i32);

/// A rectangle of the sheet, measured from its own corner.
pub(super) type Sheet<DB> = DrawingArea<DB, Shift>;

/// Result of a drawing operation on either output.
pub(super) type Drawn<DB, T = ()> =
    std::result::Result<T, DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Canvas units of `pt` points.
pub fn points(pt: f64) -> i32 {
    inches(pt / 72.0)
}

/// Canvas units of `inches` inches.
pub(super) fn inches(inches: f64) -> i32 {
    (inches * f64::from(UNITS_PER_INCH)).round() as i32
}

/// A figure's width in canvas units.
///
/// Errors: [`Error::Invalid`] outside 2 to 12 inches.
pub fn figure_width(width: f64) -> Result<i32> {
    if (2.0..=12.0).contains(&width) {
        return Ok(inches(width));
    }
    Err(Error::invalid(
        "figure width in inches",
        width,
        "it must lie between 2 and 12",
    ))
}

/// Most tick labels that stay apart on an axis `length` units long when each needs `pt` points.
pub fn label_count(length: i32, pt: f64) -> usize {
    (length / points(pt)).clamp(1, 12) as usize
}

/// Room for the name of a horizontal axis in a figure `width` units wide.
pub fn name_room(width: i32) -> i32 {
    (width * 18 / 25).min(points(NAME_POINTS))
}

/// Room that a heading has in a figure `width` units wide, beside the labels and the name of a vertical axis.
pub fn heading_room(width: i32) -> i32 {
    width - points(36.0)
}

/// Whether panels can stand side by side in a figure `width` units wide, each with axes of its own.
pub fn is_page(width: i32) -> bool {
    width >= inches(5.0)
}

/// Columns of panels that a figure `width` units wide has room for.
pub fn panel_columns(width: i32, panels: usize) -> usize {
    let columns = (width / inches(2.3)).max(1) as usize;
    columns.min(panels).max(1)
}
