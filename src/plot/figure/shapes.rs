//! What a panel shows: series with their spread, plain lines, and cells.

use plotters::prelude::{Circle, DrawingBackend, PathElement};
use plotters::style::Color;

use super::canvas::{Drawn, Spot, points};
use super::frame::{AXIS, AXIS_POINTS, Area, Cell};
use super::pen::{PENS, Pen, stroke};

/// Least distance of two markers of one series, in points.
const MARKS_APART: f64 = 4.2;

/// Gap between a panel and the brackets beside it, and their breadth, in points.
const BRACKET_POINTS: [f64; 2] = [1.2, 2.0];

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
    /// Which kind it is of.
    pub look: Look,
}

/// How a point of one kind is told from those of another in the same series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Look {
    /// By a filled marker, where its pen has one.
    #[default]
    Filled,
    /// By a hollow marker.
    Hollow,
    /// By a hollow marker that line and band pass by.
    Aside,
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
    /// Brackets right of the panel, each along the values between two of the vertical axis.
    Brackets(Vec<(f64, f64)>),
}

impl Point {
    /// A value with the ends of its spread.
    pub fn between(x: f64, middle: f64, (low, high): (f64, f64)) -> Self {
        Self {
            x,
            middle,
            low,
            high,
            look: Look::default(),
        }
    }

    /// The same point, looking otherwise.
    pub fn looking(self, look: Look) -> Self {
        Self { look, ..self }
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

    /// The points that line and band go through.
    fn joined(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|p| p.look != Look::Aside)
    }

    /// Where the value `y` of `point` lies.
    fn spot<DB: DrawingBackend>(&self, panel: &Area<'_, DB>, point: &Point, y: f64) -> Spot {
        let aside = match self.spread {
            SpreadStyle::Band => 0,
            SpreadStyle::Bars(aside) => points(aside),
        };
        let (x, y) = panel.at(point.x, y);
        (x + aside, y)
    }

    fn draw_spread<DB: DrawingBackend>(&self, panel: &Area<'_, DB>) -> Drawn<DB> {
        let ends = |p: &Point| (self.spot(panel, p, p.low), self.spot(panel, p, p.high));
        if self.spread == SpreadStyle::Band {
            let (low, high): (Vec<Spot>, Vec<Spot>) = self.joined().map(ends).unzip();
            return self.pen.band(&panel.sheet, &low, &high);
        }
        let mut bars = self.points.iter().filter(|point| point.low < point.high);
        bars.try_for_each(|point| {
            let (low, high) = ends(point);
            self.pen.bar(&panel.sheet, low, high)
        })
    }

    fn draw_mark<DB: DrawingBackend>(
        &self,
        panel: &Area<'_, DB>,
        spot: Spot,
        look: Look,
    ) -> Drawn<DB> {
        match look {
            Look::Filled => self.pen.mark(&panel.sheet, spot),
            Look::Hollow | Look::Aside => self.pen.hollow_mark(&panel.sheet, spot),
        }
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
            Self::Brackets(spans) => spans.iter().try_for_each(|span| bracket(panel, *span)),
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
    for series in all {
        let path = series.joined().map(|p| series.spot(panel, p, p.middle));
        series.pen.line(&panel.sheet, &path.collect::<Vec<_>>())?;
    }
    for (index, series) in all.iter().enumerate() {
        let spots = series.points.iter();
        let spots: Vec<Spot> = spots.map(|p| series.spot(panel, p, p.middle)).collect();
        let (step, turn) = match marks {
            Marks::All => (1, (0, 1)),
            Marks::Apart => (marker_step(&spots), (0, 1)),
            Marks::InTurn => (marker_step(&spots), (index, all.len())),
        };
        let places = marked_by_look(&series.points, step);
        for place in places.unwrap_or_else(|| marked(spots.len(), step, turn).collect()) {
            series.draw_mark(panel, spots[place], series.points[place].look)?;
        }
    }
    Ok(())
}

/// Draws a bracket along the values of `span`, right of the panel.
fn bracket<DB: DrawingBackend>(panel: &Area<'_, DB>, (from, to): (f64, f64)) -> Drawn<DB> {
    let [gap, breadth] = BRACKET_POINTS.map(points);
    let (inner, right) = (panel.x_range().1 + gap, panel.x_range().1 + gap + breadth);
    let [from, to] = [from, to].map(|value| panel.at(0.0, value).1);
    let corners = vec![(inner, from), (right, from), (right, to), (inner, to)];
    let style = stroke(AXIS, AXIS_POINTS);
    panel.sheet.draw(&PathElement::new(corners, style))
}

/// The points that are marked where they look differently: all of the rarer look, and those of the other that lie `step`
/// from every marked one.
fn marked_by_look(points: &[Point], step: usize) -> Option<Vec<usize>> {
    let filled = |point: &Point| point.look == Look::Filled;
    let count = points.iter().filter(|p| filled(p)).count();
    if count == 0 || count == points.len() {
        return None;
    }
    let rare = |point: &Point| filled(point) == (2 * count <= points.len());
    let mut places: Vec<usize> = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let clear = places.last().is_none_or(|last| last + step <= place)
            && !points.iter().skip(place).take(step).any(rare);
        if rare(point) || clear {
            places.push(place);
        }
    }
    Some(places)
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
    fn points_of_the_rarer_look_are_all_marked() {
        let look = |hollow: bool| if hollow { Look::Hollow } else { Look::Filled };
        let points = |hollow: fn(usize) -> bool| -> Vec<Point> {
            let point = |i: usize| Point::alone(i as f64, 1.0).looking(look(hollow(i)));
            (0..12).map(point).collect()
        };
        // Every sixth layer sees all, as in Gemma 3.
        let local = points(|i| i % 6 != 5);
        let all: Vec<usize> = (0..12).collect();
        assert_eq!(marked_by_look(&local, 1).unwrap(), all);
        assert_eq!(marked_by_look(&local, 2).unwrap(), [0, 2, 5, 7, 9, 11]);
        assert_eq!(marked_by_look(&local, 9).unwrap(), [5, 11]);
        assert_eq!(marked_by_look(&points(|i| i % 6 == 5), 9).unwrap(), [5, 11]);
        assert!(marked_by_look(&points(|_| true), 2).is_none());
        assert!(marked_by_look(&points(|_| false), 2).is_none());
    }

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
