//! The sheet both outputs are drawn on: its units, its sizes, and what a drawing is.

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

/// A rectangle of the sheet, measured from its own corner.
pub(super) type Sheet<DB> = DrawingArea<DB, Shift>;

/// Result of a drawing operation on either output.
pub(super) type Drawn<DB, T = ()> =
    std::result::Result<T, DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// A chart with its data, laid out and ready to be drawn on either output.
pub(super) trait Drawing {
    /// Width and height in canvas units.
    fn size(&self) -> (i32, i32);

    /// Draws on a white sheet of [`Drawing::size`].
    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB>;
}

/// Canvas units of `pt` points.
pub(super) fn points(pt: f64) -> i32 {
    inches(pt / 72.0)
}

/// Canvas units of `inches` inches.
pub(super) fn inches(inches: f64) -> i32 {
    (inches * f64::from(UNITS_PER_INCH)).round() as i32
}

/// A figure's width in canvas units.
///
/// Errors: [`Error::Invalid`] outside 2 to 12 inches.
pub(super) fn figure_width(width: f64) -> Result<i32> {
    if (2.0..=12.0).contains(&width) {
        return Ok(inches(width));
    }
    Err(Error::invalid(
        "figure width in inches",
        width,
        "it must lie between 2 and 12",
    ))
}

/// The part of `sheet` of `size` units whose corner is `corner`.
pub(super) fn part<DB: DrawingBackend>(
    sheet: &Sheet<DB>,
    corner: (i32, i32),
    size: (i32, i32),
) -> Sheet<DB> {
    sheet.clone().shrink(corner, size)
}

/// Most tick labels that stay apart on an axis `length` units long when each needs `pt` points.
pub(super) fn label_count(length: i32, pt: f64) -> usize {
    (length / points(pt)).clamp(1, 12) as usize
}

/// Room for the name of a horizontal axis in a figure `width` units wide.
pub(super) fn name_room(width: i32) -> i32 {
    (width * 18 / 25).min(points(NAME_POINTS))
}

/// Columns of panels that a figure `width` units wide has room for.
pub(super) fn panel_columns(width: i32, panels: usize) -> usize {
    let columns = (width / inches(2.3)).max(1) as usize;
    columns.min(panels).max(1)
}
