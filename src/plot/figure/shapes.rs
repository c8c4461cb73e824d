//! What a panel shows: series with their spread, plain lines, and cells.

use plotters::prelude::{Circle, DrawingBackend};
use plotters::style::Color;

use super::canvas::{Drawn, Spot, points};
use super::frame::{Area, Cell};
use super::pen::{PENS, Pen};

/// Least distance of two markers of one series, in points.
const MARKS_APART: f64 = 4.2;

/// The left and the right edge of a panel, whatever its axis.
pub const EDGES: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

/// A value with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where it lies along the panel.
    pub x: f64,
    /// What the line goes through.
    pub middle: f64,
    /// Lower end of the spread.
    pub low: f64,
    /// Upper end of the spread.
    pub high: f64,
}

/// Points under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Colour, dash and marker.
    pub pen: Pen,
    /// From left to right.
    pub points: Vec<Point>,
    /// How the spread is shown.
    pub spread: SpreadStyle,
}

/// How the spread of a series is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SpreadStyle {
    /// As a band.
    Band,
    /// As bars, which are moved sideways with their series by so many points.
    Bars(f64),
}

/// Which points of a series are marked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Marks {
    /// Every one.
    All,
    /// As many as stay apart: for series that do not meet.
    Apart,
    /// One series after the other, so that no marker hides another's.
    InTurn,
}

/// Something drawn in a panel, over all before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// All bands, then all lines, then all markers, so that no band hides another series' line.
    Series(Vec<Series>, Marks),
    /// A line without markers, to the panel's edge where it is infinite; a lone point is a disc of this radius in points,
    /// if any.
    Line(Pen, Vec<(f64, f64)>, f64),
    /// Cells, each reaching a little under the next to the right and below, so that no seam shows.
    Cells(Vec<Cell>),
}

impl Point {
    /// A value with the ends of its spread.
    pub fn between(x: f64, middle: f64, (low, high): (f64, f64)) -> Self {
        Self {
            x,
            middle,
            low,
            high,
        }
    }

    /// A value without spread.
    pub fn alone(x: f64, value: f64) -> Self {
        Self::between(x, value, (value, value))
    }
}

impl Series {
    /// A series whose spread is a band.
    pub fn banded(pen: Pen, points: Vec<Point>) -> Self {
        Self {
            pen,
            points,
            spread: SpreadStyle::Band,
        }
    }

    /// Series whose spreads are bands, each with the next pen.
    pub fn each(all: impl IntoIterator<Item = Vec<Point>>) -> Vec<Self> {
        let pens = PENS.into_iter().zip(all);
        pens.map(|(pen, points)| Self::banded(pen, points))
            .collect()
    }

    /// Points of the longest of `all`.
    pub fn longest(all: &[Self]) -> usize {
        all.iter().map(|s| s.points.len()).max().unwrap_or(0)
    }

    /// Whether any point has a spread.
    pub fn is_spread(&self) -> bool {
        self.points.iter().any(|p| p.low < p.high)
    }

    fn spots<DB: DrawingBackend>(&self, panel: &Area<'_, DB>, y: fn(&Point) -> f64) -> Vec<Spot> {
        let aside = match self.spread {
            SpreadStyle::Band => 0,
            SpreadStyle::Bars(aside) => points(aside),
        };
        let spots = self.points.iter().map(|p| panel.at(p.x, y(p)));
        spots.map(|(x, y)| (x + aside, y)).collect()
    }

    fn draw_spread<DB: DrawingBackend>(&self, panel: &Area<'_, DB>) -> Drawn<DB> {
        let [low, high] = [|p: &Point| p.low, |p: &Point| p.high].map(|y| self.spots(panel, y));
        if self.spread == SpreadStyle::Band {
            return self.pen.band(&panel.sheet, &low, &high);
        }
        let bars = self.points.iter().zip(low.into_iter().zip(high));
        bars.filter(|(point, _)| point.low < point.high)
            .try_for_each(|(_, (low, high))| self.pen.bar(&panel.sheet, low, high))
    }
}

impl Shape {
    /// A line without markers.
    pub fn line(pen: Pen, path: Vec<(f64, f64)>) -> Self {
        Self::Line(pen, path, 0.0)
    }

    /// The lines of `path` between the points that have no value, lone points as discs of `radius` points.
    pub fn pieces(pen: Pen, path: Vec<(f64, f64)>, radius: f64) -> impl Iterator<Item = Self> {
        let pieces: Vec<Self> = (path.split(|(_, value)| !value.is_finite()))
            .map(|piece| Self::Line(pen, piece.to_vec(), radius))
            .collect();
        pieces.into_iter()
    }

    pub(super) fn draw<DB: DrawingBackend>(&self, panel: &Area<'_, DB>) -> Drawn<DB> {
        match self {
            Self::Series(series, marks) => draw_series(panel, series, *marks),
            Self::Cells(cells) => cells.iter().try_for_each(|cell| panel.fill(cell)),
            Self::Line(pen, path, radius) => {
                let spots: Vec<Spot> = path.iter().map(|&(x, y)| panel.at(x, y)).collect();
                if let ([spot], true) = (&spots[..], *radius > 0.0) {
                    let disc = Circle::new(*spot, points(*radius), pen.colour.filled());
                    panel.sheet.draw(&disc)?;
                }
                pen.line(&panel.sheet, &spots)
            }
        }
    }
}

fn draw_series<DB: DrawingBackend>(
    panel: &Area<'_, DB>,
    all: &[Series],
    marks: Marks,
) -> Drawn<DB> {
    for series in all.iter().filter(|series| series.is_spread()) {
        series.draw_spread(panel)?;
    }
    let middles: Vec<Vec<Spot>> = all.iter().map(|s| s.spots(panel, |p| p.middle)).collect();
    for (series, spots) in all.iter().zip(&middles) {
        series.pen.line(&panel.sheet, spots)?;
    }
    for (index, (series, spots)) in all.iter().zip(&middles).enumerate() {
        let (step, turn) = match marks {
            Marks::All => (1, (0, 1)),
            Marks::Apart => (marker_step(spots), (0, 1)),
            Marks::InTurn => (marker_step(spots), (index, all.len())),
        };
        for place in marked(spots.len(), step, turn) {
            series.pen.mark(&panel.sheet, spots[place])?;
        }
    }
    Ok(())
}

/// The points that are marked, a multiple of `step` apart: those of series `turn.0` of `turn.1` series, or all where a
/// series would have fewer than two marks.
fn marked(points: usize, step: usize, turn: (usize, usize)) -> impl Iterator<Item = usize> {
    let (index, of) = if points >= 2 * step * turn.1 {
        turn
    } else {
        (0, 1)
    };
    (index * step..points).step_by(step * of)
}

/// Every how manyeth point gets a marker, so that markers of deep models do not merge.
fn marker_step(spots: &[Spot]) -> usize {
    let [first, second, ..] = spots else {
        return 1;
    };
    let distance = (second.0 - first.0).max(1) as usize;
    (points(MARKS_APART) as usize).div_ceil(distance).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_take_turns_at_being_marked() {
        let all: Vec<Vec<usize>> = (0..4).map(|i| marked(30, 1, (i, 4)).collect()).collect();
        assert_eq!(all[0][..3], [0, 4, 8]);
        let mut layers = all.concat();
        layers.sort_unstable();
        assert_eq!(layers, (0..30).collect::<Vec<_>>(), "every layer once");
        assert_eq!(marked(30, 2, (1, 2)).collect::<Vec<_>>()[..3], [2, 6, 10]);
        assert_eq!(marked(5, 1, (3, 4)).count(), 5, "too few to take turns");
        assert_eq!(marked(0, 1, (0, 1)).count(), 0);
    }
}
