//! A finished figure as SVG and PNG, with its provenance inside both files.

use std::path::{Path, PathBuf};

use plotters::prelude::{IntoDrawingArea, SVGBackend, WHITE};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;

use super::canvas::UNITS_PER_INCH;
use super::description::Description;
use super::layout::Layout;
use super::text::printable;
use crate::error::{Error, Result};
use crate::files;

/// Canvas units along an edge of one pixel of the PNG: 400 pixels in an inch.
const UNITS_PER_PIXEL: u32 = 3;

/// A chart in both formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The SVG document.
    pub svg: String,
    /// The PNG file's bytes.
    pub png: Vec<u8>,
}

impl Figure {
    /// Writes `base.svg` and `base.png`, each beside its target first, and returns their paths.
    ///
    /// Errors: [`Error::Io`].
    pub fn write(&self, base: &Path) -> Result<[PathBuf; 2]> {
        let with_ending = |ending: &str| {
            let mut name = base.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let [svg, png] = [with_ending(".svg"), with_ending(".png")];
        files::replace_with(&svg, self.svg.as_bytes())?;
        files::replace_with(&png, &self.png)?;
        Ok([svg, png])
    }
}

/// Draws a figure, with `title` above it and `record`, its provenance, inside both files.
///
/// Errors: [`Error::Drawing`].
pub fn render(figure: &Description, title: Option<&str>, record: &str) -> Result<Figure> {
    let layout = Layout::of(figure, title);
    let whole_pixels = |units: i32| units.max(1) as u32 / UNITS_PER_PIXEL * UNITS_PER_PIXEL;
    let size = (whole_pixels(layout.size.0), whole_pixels(layout.size.1));
    let svg = svg(&layout, size, &figure.about, record)?;
    let png = png(&svg, size, &figure.about, record)?;
    Ok(Figure { svg, png })
}

fn drawing_error(problem: impl ToString) -> Error {
    Error::Drawing {
        problem: problem.to_string(),
    }
}

fn svg(layout: &Layout<'_>, size: (u32, u32), title: &str, record: &str) -> Result<String> {
    let mut document = String::new();
    {
        let sheet = SVGBackend::with_string(&mut document, size).into_drawing_area();
        let drawn = sheet.fill(&WHITE).and_then(|()| layout.draw(&sheet));
        drawn
            .and_then(|()| sheet.present())
            .map_err(drawing_error)?;
    }
    let body = document.split_once('>').map_or("", |(_, body)| body);
    let inches = |units: u32| f64::from(units) / f64::from(UNITS_PER_INCH);
    let (width, height) = (inches(size.0), inches(size.1));
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}in\" height=\"{height}in\" \
         viewBox=\"0 0 {} {}\" stroke-linejoin=\"round\" role=\"img\">\n\
         <title>{}</title>\n<metadata>\n{}\n</metadata>{body}",
        size.0,
        size.1,
        escaped(title),
        escaped(record),
    ))
}

/// `text` as XML content, line by line.
fn escaped(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines
        .join("\n")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The picture that `svg` is, with the lettering that it was laid out with.
fn png(svg: &str, size: (u32, u32), title: &str, record: &str) -> Result<Vec<u8>> {
    let mut options = usvg::Options::default();
    let font = dejavu::sans::regular().to_vec();
    options.fontdb_mut().load_font_data(font);
    let tree = usvg::Tree::from_str(svg, &options).map_err(drawing_error)?;
    let (width, height) = (size.0 / UNITS_PER_PIXEL, size.1 / UNITS_PER_PIXEL);
    let mut picture =
        Pixmap::new(width, height).ok_or_else(|| drawing_error("the picture is empty"))?;
    let scale = Transform::from_scale(
        width as f32 / tree.size().width(),
        height as f32 / tree.size().height(),
    );
    resvg::render(&tree, scale, &mut picture.as_mut());
    let pixels = picture.pixels().iter();
    let pixels: Vec<u8> = pixels
        .flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()])
        .collect();
    let mut bytes = Vec::new();
    encode(&mut bytes, &pixels, (width, height), title, record).map_err(drawing_error)?;
    Ok(bytes)
}

fn encode(
    bytes: &mut Vec<u8>,
    pixels: &[u8],
    (width, height): (u32, u32),
    title: &str,
    record: &str,
) -> std::result::Result<(), png::EncodingError> {
    let per_metre = (f64::from(UNITS_PER_INCH / UNITS_PER_PIXEL) / 0.0254).round() as u32;
    let mut encoder = png::Encoder::new(bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: per_metre,
        yppu: per_metre,
        unit: png::Unit::Meter,
    }));
    let software = concat!("kvprof ", env!("CARGO_PKG_VERSION"));
    for (keyword, text) in [
        ("Title", title),
        ("Software", software),
        ("Description", record),
    ] {
        let lines: Vec<String> = text.lines().map(printable).collect();
        encoder.add_itxt_chunk(keyword.to_owned(), lines.join("\n"))?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns of the dark pixels of a picture of `content`, 200 pixels wide and 100 high, in row `y` or in any.
    fn dark(content: &str, row: Option<usize>) -> Vec<usize> {
        let size = (200 * UNITS_PER_PIXEL, 100 * UNITS_PER_PIXEL);
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 600 300\" width=\"600\" height=\"300\" \
             stroke-linejoin=\"round\"><rect width=\"600\" height=\"300\" fill=\"#FFFFFF\"/>{content}</svg>"
        );
        let file = png(&svg, size, "", "").unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let pixels = pixels.chunks_exact(3).enumerate();
        let dark = pixels.filter(|(_, pixel)| pixel.iter().all(|&channel| channel < 64));
        let dark = dark.filter(|(place, _)| row.is_none_or(|row| place / 200 == row));
        dark.map(|(place, _)| place % 200).collect()
    }

    #[test]
    fn the_picture_has_the_lettering_around_its_anchor() {
        let family = "font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"150\"";
        let columns = dark(
            &format!("<text x=\"300\" y=\"200\" text-anchor=\"middle\" {family}>00</text>"),
            None,
        );
        let (low, high) = (
            *columns.iter().min().unwrap(),
            *columns.iter().max().unwrap(),
        );
        assert!(
            (low + high).abs_diff(199) <= 2 && high - low > 50,
            "{low} {high}"
        );
    }

    #[test]
    fn wide_lines_have_no_holes_at_their_joins() {
        let wave = (0..90).map(|i| (30 + 6 * i, 150 + (60.0 * (f64::from(i) / 3.0).sin()) as i32));
        let points: Vec<String> = wave.clone().map(|(x, y)| format!("{x},{y}")).collect();
        let points = points.join(" ");
        let line = "fill=\"none\" stroke=\"#000000\" stroke-width=\"36\"";
        let content = format!("<polyline {line} points=\"{points}\"/>");
        for (x, y) in wave.step_by(9) {
            let (x, y) = ((x / 3) as usize, (y / 3) as usize);
            assert!(dark(&content, Some(y)).contains(&x), "{x},{y}");
        }
    }
}
