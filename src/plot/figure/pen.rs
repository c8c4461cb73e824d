//! Pens: colours that the colour-blind can tell apart, each with its own dash and marker for print in grey.

use plotters::prelude::{Circle, DrawingBackend, PathElement, Polygon, RGBColor, ViridisRGB};
use plotters::style::{Color, ShapeStyle};

use super::canvas::{Drawn, Sheet, Spot, points};
use super::dashes::dashes;

/// Shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    Disc,
    Square,
    Triangle,
    Diamond,
    Wedge,
    Ring,
    Box,
    Upright,
    Lying,
}

/// How a line is drawn everywhere: with its markers, its band, and in the legend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pen {
    /// Colour of line, markers and (lightened) band.
    pub(super) colour: RGBColor,
    /// Points drawn and left out along the line in turns; none for a full line.
    dash: &'static [f64],
    /// Marker on every value.
    mark: Mark,
    /// Width of the line in points.
    width: f64,
}

/// The pens in the order in which series take them: the Okabe-Ito palette without its yellow,
/// which is too pale for lines on white.
pub const PENS: [Pen; 7] = [
    pen((0, 114, 178), &[], Mark::Disc),
    pen((213, 94, 0), &[4.0, 1.5], Mark::Square),
    pen((0, 158, 115), &[1.5, 1.2], Mark::Triangle),
    pen((204, 121, 167), &[5.0, 1.2, 1.2, 1.2], Mark::Diamond),
    pen((0, 0, 0), &[2.6, 2.6], Mark::Ring),
    pen((230, 159, 0), &[4.0, 1.2, 1.2, 1.2, 1.2, 1.2], Mark::Wedge),
    pen((86, 180, 233), &[0.8, 1.8], Mark::Box),
];

/// The full cache, and any other reference: no method's colour, dash or marker.
pub const REFERENCE: Pen = pen((110, 110, 110), &[1.0, 1.5], Mark::Disc);

/// A fitted curve: dark, dashed, and thinner than the series that it may lie on.
pub const FIT: Pen = Pen {
    width: 0.5,
    ..pen((0, 0, 0), &[2.5, 1.8], Mark::Disc)
};

/// Colour of references that are full lines.
pub const GREY: RGBColor = REFERENCE.colour;

/// Colour of series that only stand behind another for comparison.
pub const OTHERS: RGBColor = RGBColor(178, 178, 178);

/// Colour of the method that others are compared with, where each has a panel of its own.
pub const BASELINE: RGBColor = RGBColor(50, 50, 50);

const WHITE: RGBColor = RGBColor(255, 255, 255);

const fn pen((r, g, b): (u8, u8, u8), dash: &'static [f64], mark: Mark) -> Pen {
    Pen {
        colour: RGBColor(r, g, b),
        dash,
        mark,
        width: 1.0,
    }
}

/// Opacity of a band.
const BAND: f64 = 0.2;

/// Half the extent of a marker in points.
const MARK_POINTS: f64 = 1.7;

/// Width of an error bar's cap in points.
const CAP_POINTS: f64 = 2.4;

/// Dash of lines that are told from full ones of the same colour.
const BROKEN: &[f64] = &[3.0, 1.5];

/// A line `pt` points wide.
pub(super) fn stroke(colour: RGBColor, pt: f64) -> ShapeStyle {
    colour.stroke_width(points(pt).max(1) as u32)
}

impl Pen {
    /// A full line of `colour`, `width` points wide.
    pub const fn plain(colour: RGBColor, width: f64) -> Self {
        Self {
            colour,
            width,
            ..PENS[0]
        }
    }

    /// The same pen with a full line.
    pub const fn solid(self) -> Self {
        Self { dash: &[], ..self }
    }

    /// The same line, broken.
    pub const fn broken(self) -> Self {
        Self {
            dash: BROKEN,
            ..self
        }
    }

    /// The same pen with a filled marker, for figures in which a hollow one has a meaning.
    pub fn filled(self) -> Self {
        let mark = match self.mark {
            Mark::Ring => Mark::Upright,
            Mark::Box => Mark::Lying,
            filled => filled,
        };
        Self { mark, ..self }
    }

    /// Draws the line through `path`.
    pub(super) fn line<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, path: &[Spot]) -> Drawn<DB> {
        let pattern: Vec<i32> = self.dash.iter().map(|&length| points(length)).collect();
        let style = stroke(self.colour, self.width);
        dashes(path, &pattern)
            .into_iter()
            .try_for_each(|piece| sheet.draw(&PathElement::new(piece, style)))
    }

    /// Draws a marker at `spot`.
    pub(super) fn mark<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, spot: Spot) -> Drawn<DB> {
        let filled = self.colour.filled();
        match self.mark {
            Mark::Disc => sheet.draw(&Circle::new(spot, points(MARK_POINTS), filled)),
            Mark::Ring | Mark::Box => self.hollow_mark(sheet, spot),
            _ => sheet.draw(&Polygon::new(self.corners(spot), filled)),
        }
    }

    /// Draws a marker at `spot` of which only the outline has a colour.
    pub(super) fn hollow_mark<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        spot: Spot,
    ) -> Drawn<DB> {
        let corners = self.corners(spot);
        let outline = if matches!(self.mark, Mark::Disc | Mark::Ring) {
            sheet.draw(&Circle::new(spot, points(MARK_POINTS), WHITE.filled()))?;
            corners
        } else {
            sheet.draw(&Polygon::new(corners.clone(), WHITE.filled()))?;
            // The first side once more, so that its corner is joined as the others are.
            [&corners[..], &corners[..2]].concat()
        };
        sheet.draw(&PathElement::new(outline, stroke(self.colour, 0.8)))
    }

    /// The outline of a marker at `spot`; a round one ends where it began.
    fn corners(&self, spot: Spot) -> Vec<Spot> {
        let r = f64::from(points(MARK_POINTS));
        let place = |(x, y): (f64, f64)| {
            let [x, y] = [x, y].map(|d| (d * r).round() as i32);
            (spot.0 + x, spot.1 + y)
        };
        let rectangle = |x: f64, y: f64| vec![(-x, -y), (x, -y), (x, y), (-x, y)];
        let corners = match self.mark {
            Mark::Disc | Mark::Ring => (0..=24)
                .map(|i| (f64::from(i) * std::f64::consts::TAU / 24.0).sin_cos())
                .collect(),
            Mark::Square | Mark::Box => rectangle(0.9, 0.9),
            Mark::Upright => rectangle(0.6, 1.35),
            Mark::Lying => rectangle(1.35, 0.6),
            Mark::Triangle => vec![(0.0, -1.25), (1.1, 0.8), (-1.1, 0.8)],
            Mark::Wedge => vec![(0.0, 1.25), (1.1, -0.8), (-1.1, -0.8)],
            Mark::Diamond => vec![(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        };
        corners.into_iter().map(place).collect()
    }

    /// Draws an error bar with caps from `low` to `high`, which share their x.
    pub(super) fn bar<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        low: Spot,
        high: Spot,
    ) -> Drawn<DB> {
        let half = points(CAP_POINTS) / 2;
        for path in [
            vec![low, high],
            vec![(low.0 - half, low.1), (low.0 + half, low.1)],
            vec![(high.0 - half, high.1), (high.0 + half, high.1)],
        ] {
            sheet.draw(&PathElement::new(path, stroke(self.colour, 0.6)))?;
        }
        Ok(())
    }

    /// Fills between `low` and `high`, two lines over the same x; a single x becomes an error bar.
    pub(super) fn band<DB: DrawingBackend>(
        &self,
        sheet: &Sheet<DB>,
        low: &[Spot],
        high: &[Spot],
    ) -> Drawn<DB> {
        if let ([low], [high]) = (low, high) {
            return sheet.draw(&PathElement::new(
                vec![*low, *high],
                stroke(self.colour, 0.8),
            ));
        }
        let outline: Vec<Spot> = low.iter().chain(high.iter().rev()).copied().collect();
        sheet.draw(&Polygon::new(outline, band_fill(self.colour)))
    }
}

/// Fill of a band of this colour.
pub(super) fn band_fill(colour: RGBColor) -> ShapeStyle {
    colour.mix(BAND).filled()
}

/// Colour of an amount, 0 to 1: viridis, which is perceptually uniform and keeps its order in grey.
pub fn amount(fraction: f64) -> RGBColor {
    ViridisRGB::get_color(if fraction.is_finite() {
        fraction.clamp(0.0, 1.0)
    } else {
        0.0
    })
}

/// Colour of line `index` of `count`: viridis without its yellow end, too pale for lines on white.
pub fn depth(index: usize, count: usize) -> RGBColor {
    amount(index as f64 / count.saturating_sub(1).max(1) as f64 * 0.86)
}

#[cfg(test)]
mod tests {
    use super::super::heading::KEY_POINTS;
    use super::*;

    #[test]
    fn no_two_pens_share_colour_dash_or_mark() {
        for (i, a) in PENS.iter().enumerate() {
            for b in &PENS[..i] {
                assert!(a.colour != b.colour && a.dash != b.dash && a.mark != b.mark);
            }
            assert!(a.dash != REFERENCE.dash);
        }
    }

    #[test]
    fn filled_markers_are_as_many_and_none_is_hollow() {
        for (i, a) in PENS.iter().enumerate() {
            assert!(!matches!(a.filled().mark, Mark::Ring | Mark::Box));
            assert!((a.filled().colour, a.filled().dash) == (a.colour, a.dash));
            assert!(PENS[..i].iter().all(|b| b.filled().mark != a.filled().mark));
        }
        assert!(PENS.iter().all(|pen| pen.dash != BROKEN));
    }

    #[test]
    fn every_dash_shows_in_a_legend_beside_its_marker() {
        let (length, half) = (points(KEY_POINTS), points(MARK_POINTS));
        for pen in &PENS[1..] {
            let pattern: Vec<i32> = pen.dash.iter().map(|&pt| points(pt)).collect();
            let pieces = dashes(&[(0, 0), (length, 0)], &pattern);
            let ends = |piece: &Vec<Spot>| (piece[0].0, piece[piece.len() - 1].0);
            let gaps = pieces.windows(2).map(|w| (ends(&w[0]).1, ends(&w[1]).0));
            let beside =
                |gap: &(i32, i32)| gap.1 <= length / 2 - half || gap.0 >= length / 2 + half;
            assert!(gaps.filter(beside).count() > 0, "{pen:?}");
        }
    }

    #[test]
    fn amounts_get_lighter_from_end_to_end() {
        let light = |f: f64| {
            let RGBColor(r, g, b) = amount(f);
            0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b)
        };
        assert!((0..20).all(|i| light(f64::from(i) / 20.0) < light(f64::from(i + 1) / 20.0)));
        assert_eq!(amount(f64::NAN), amount(0.0));
    }
}
