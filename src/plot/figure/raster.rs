//! The bitmap output: plotters' backend with exact lettering and unbroken line joins.
//!
//! plotters' own bitmap text drops the side bearing of every glyph and sits above its anchor, and its wide
//! polylines are single polygons whose self-overlaps come out as holes. Both are replaced here; all else is
//! delegated.

use plotters::backend::BitMapBackend;
use plotters::prelude::DrawingBackend;
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind,
};

use super::text;

/// Bytes of an RGB pixel.
pub(super) const CHANNELS: usize = 3;

type Fault<'a> = DrawingErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>;

/// An RGB buffer that plotters draws on.
pub(super) struct Raster<'a> {
    pixels: BitMapBackend<'a>,
}

impl<'a> Raster<'a> {
    /// Draws into `buffer`, which holds `size.0 * size.1` RGB pixels.
    pub(super) fn new(buffer: &'a mut [u8], size: (u32, u32)) -> Self {
        Self {
            pixels: BitMapBackend::with_buffer(buffer, size),
        }
    }
}

impl<'a> DrawingBackend for Raster<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.pixels.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), Fault<'a>> {
        self.pixels.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), Fault<'a>> {
        self.pixels.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Result<(), Fault<'a>> {
        self.pixels.draw_pixel(point, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), Fault<'a>> {
        self.pixels.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), Fault<'a>> {
        self.pixels.draw_rect(upper_left, bottom_right, style, fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Result<(), Fault<'a>> {
        let mut points: Vec<BackendCoord> = path.into_iter().collect();
        points.dedup();
        for joint in points.iter().skip(1).rev().skip(1) {
            self.draw_circle(*joint, style.stroke_width() / 2, &style.color(), true)?;
        }
        for segment in points.windows(2) {
            self.pixels.draw_path(segment.iter().copied(), style)?;
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        pos: BackendCoord,
    ) -> Result<(), Fault<'a>> {
        let turn = style.transform();
        text::rasterise(text, style.size(), style.anchor(), |x, y, coverage| {
            let (x, y) = turn.transform(x, y);
            let ink = style.color().mix(f64::from(coverage.min(1.0)));
            self.pixels.draw_pixel((pos.0 + x, pos.1 + y), ink)
        })
    }
}

/// Averages squares of `factor` x `factor` pixels into one, which smooths every edge.
///
/// `width` and the buffer's height must be multiples of `factor`.
pub(super) fn reduce(buffer: &[u8], width: usize, factor: usize) -> Vec<u8> {
    let row = width * CHANNELS;
    let mut reduced = Vec::with_capacity(buffer.len() / (factor * factor));
    for band in buffer.chunks_exact(row * factor) {
        for x in 0..width / factor {
            for channel in 0..CHANNELS {
                let sum: u32 = (0..factor * factor)
                    .map(|i| {
                        let (dx, dy) = (i % factor, i / factor);
                        u32::from(band[dy * row + (x * factor + dx) * CHANNELS + channel])
                    })
                    .sum();
                let count = (factor * factor) as u32;
                reduced.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    reduced
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::prelude::{IntoDrawingArea, PathElement, RED, WHITE};
    use plotters::style::Color;

    #[test]
    fn reducing_averages_squares() {
        // 4 x 2 pixels, red channel only.
        let red = [0, 4, 8, 8, 4, 8, 8, 8];
        let buffer: Vec<u8> = red.iter().flat_map(|&r| [r, 0, 255]).collect();
        assert_eq!(reduce(&buffer, 4, 2), [4, 0, 255, 8, 0, 255]);
    }

    #[test]
    fn wide_lines_have_no_holes_at_their_joins() {
        let (w, h) = (200, 100);
        let mut buffer = vec![255; w * h * CHANNELS];
        {
            let sheet = Raster::new(&mut buffer, (w as u32, h as u32)).into_drawing_area();
            sheet.fill(&WHITE).unwrap();
            let wave: Vec<(i32, i32)> = (0..90)
                .map(|i| (10 + 2 * i, 50 + (20.0 * (f64::from(i) / 3.0).sin()) as i32))
                .collect();
            sheet
                .draw(&PathElement::new(
                    wave.clone(),
                    Color::stroke_width(&RED, 12),
                ))
                .unwrap();
            sheet.present().unwrap();
            drop(sheet);
            for (x, y) in wave {
                let at = (y as usize * w + x as usize) * CHANNELS;
                assert_eq!(buffer[at..at + CHANNELS], [255, 0, 0], "{x},{y}");
            }
        }
    }
}
