//! Pens: colours that the colour-blind can tell apart, each with its own dash and marker for print in grey.

use plotters::prelude::{Circle, DrawingBackend, PathElement, Polygon, RGBColor, ViridisRGB};
use plotters::style::{Color, ShapeStyle};

use super::canvas::{Drawn, Sheet, points};
use super::dashes::dashes;

/// A position on the sheet in canvas units.
pub(super) type Spot = (i32, i32);

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
}

/// How a series is drawn everywhere: line, markers, band and legend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pen {
    /// Colour of line, markers and (lightened) band.
    pub(super) colour: RGBColor,
    /// Points drawn and left out along the line in turns; none for a full line.
    dash: &'static [f64],
    /// Marker on every value.
    mark: Mark,
}

/// The pens in the order in which series take them: the Okabe-Ito palette without its yellow,
/// which is too pale for lines on white.
pub(super) const PENS: [Pen; 7] = [
    Pen {
        colour: RGBColor(0, 114, 178),
        dash: &[],
        mark: Mark::Disc,
    },
    Pen {
        colour: RGBColor(213, 94, 0),
        dash: &[4.0, 1.5],
        mark: Mark::Square,
    },
    Pen {
        colour: RGBColor(0, 158, 115),
        dash: &[1.5, 1.2],
        mark: Mark::Triangle,
    },
    Pen {
        colour: RGBColor(204, 121, 167),
        dash: &[5.0, 1.2, 1.2, 1.2],
        mark: Mark::Diamond,
    },
    Pen {
        colour: RGBColor(0, 0, 0),
        dash: &[2.6, 2.6],
        mark: Mark::Ring,
    },
    Pen {
        colour: RGBColor(230, 159, 0),
        dash: &[4.0, 1.2, 1.2, 1.2, 1.2, 1.2],
        mark: Mark::Wedge,
    },
    Pen {
        colour: RGBColor(86, 180, 233),
        dash: &[0.8, 1.8],
        mark: Mark::Box,
    },
];

/// Opacity of a band.
const BAND: f64 = 0.2;

/// Width of a series' line in points.
const LINE_POINTS: f64 = 1.0;

/// Width of a fitted curve's line in points.
const FIT_POINTS: f64 = 0.5;

/// Half the extent of a marker in points.
const MARK_POINTS: f64 = 1.7;

/// Width of an error bar's cap in points.
const CAP_POINTS: f64 = 2.4;

/// A line `pt` points wide.
pub(super) fn stroke(colour: RGBColor, pt: f64) -> ShapeStyle {
    colour.stroke_width(points(pt).max(1) as u32)
}

impl Pen {
    /// Draws the line through `path`.
    pub(super) fn line<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, path: Vec<Spot>) -> Drawn<DB> {
        dashed_line(sheet, &path, self.dash, stroke(self.colour, LINE_POINTS))
    }

    /// Draws a marker at `spot`.
    pub(super) fn mark<DB: DrawingBackend>(&self, sheet: &Sheet<DB>, spot: Spot) -> Drawn<DB> {
        let r = points(MARK_POINTS);
        let hollow = stroke(self.colour, 0.8);
        let polygon = |corners: &[(f64, f64)]| -> Vec<Spot> {
            let place = |d: f64| (d * f64::from(r)).round() as i32;
            corners
                .iter()
                .map(|&(x, y)| (spot.0 + place(x), spot.1 + place(y)))
                .collect()
        };
        let square = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)];
        let corners = match self.mark {
            Mark::Disc => return sheet.draw(&Circle::new(spot, r, self.colour.filled())),
            Mark::Ring => {
                sheet.draw(&Circle::new(spot, r, RGBColor(255, 255, 255).filled()))?;
                let ring: Vec<(f64, f64)> = (0..=24)
                    .map(|i| (f64::from(i) * std::f64::consts::TAU / 24.0).sin_cos())
                    .collect();
                return sheet.draw(&PathElement::new(polygon(&ring), hollow));
            }
            Mark::Box => {
                let white = RGBColor(255, 255, 255).filled();
                sheet.draw(&Polygon::new(polygon(&square), white))?;
                let closed = [&square[..], &square[..2]].concat();
                return sheet.draw(&PathElement::new(polygon(&closed), hollow));
            }
            Mark::Square => polygon(&square),
            Mark::Triangle => polygon(&[(0.0, -1.25), (1.1, 0.8), (-1.1, 0.8)]),
            Mark::Wedge => polygon(&[(0.0, 1.25), (1.1, -0.8), (-1.1, -0.8)]),
            Mark::Diamond => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
        };
        sheet.draw(&Polygon::new(corners, self.colour.filled()))
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

/// Colour of references and of keys that stand for every series.
pub(super) const GREY: RGBColor = RGBColor(110, 110, 110);

/// Colour of series that only stand behind another for comparison.
pub(super) const OTHERS: RGBColor = RGBColor(178, 178, 178);

/// Colour of the method that others are compared with, where each has a panel of its own.
pub(super) const BASELINE: RGBColor = RGBColor(50, 50, 50);

/// How the full cache, and any other reference, is drawn: no method's colour, dash or marker.
pub(super) const REFERENCE: Pen = Pen {
    colour: GREY,
    dash: &[1.0, 1.5],
    mark: Mark::Disc,
};

/// Draws a fitted curve: dark, dashed, and thinner than the series that it may lie on.
pub(super) fn fit_line<DB: DrawingBackend>(sheet: &Sheet<DB>, path: Vec<Spot>) -> Drawn<DB> {
    let style = stroke(RGBColor(0, 0, 0), FIT_POINTS);
    dashed_line(sheet, &path, &[2.5, 1.8], style)
}

fn dashed_line<DB: DrawingBackend>(
    sheet: &Sheet<DB>,
    path: &[Spot],
    dash: &[f64],
    style: ShapeStyle,
) -> Drawn<DB> {
    let pattern: Vec<i32> = dash.iter().map(|&length| points(length)).collect();
    for piece in dashes(path, &pattern) {
        sheet.draw(&PathElement::new(piece, style))?;
    }
    Ok(())
}

/// Fill of a band of this colour.
pub(super) fn band_fill(colour: RGBColor) -> ShapeStyle {
    colour.mix(BAND).filled()
}

/// Colour of an amount, 0 to 1: viridis, which is perceptually uniform and keeps its order in grey.
pub(super) fn amount(fraction: f64) -> RGBColor {
    ViridisRGB::get_color(if fraction.is_finite() {
        fraction.clamp(0.0, 1.0)
    } else {
        0.0
    })
}

/// Colour of a line at depth 0 to 1: viridis without its yellow end, too pale for lines on white.
pub(super) fn depth(fraction: f64) -> RGBColor {
    amount(fraction * 0.86)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::legend::KEY_POINTS;

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
