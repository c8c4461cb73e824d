//! A finished figure as SVG and PNG, with its provenance inside both files.

use std::path::{Path, PathBuf};

use plotters::prelude::{DrawingBackend, IntoDrawingArea, SVGBackend, WHITE};

use super::canvas::{Drawn, Sheet, UNITS_PER_INCH};
use super::description::Description;
use super::layout::Layout;
use super::raster::{CHANNELS, Raster, reduce};
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

/// Draws a figure on both outputs, with `title` above it and `record`, its provenance, inside.
///
/// Errors: [`Error::Drawing`].
pub fn render(figure: &Description, title: Option<&str>, record: &str) -> Result<Figure> {
    let layout = Layout::of(figure, title);
    let whole_pixels = |units: i32| units.max(1) as u32 / UNITS_PER_PIXEL * UNITS_PER_PIXEL;
    let size = (whole_pixels(layout.size.0), whole_pixels(layout.size.1));
    Ok(Figure {
        svg: svg(&layout, size, &figure.about, record)?,
        png: png(&layout, size, &figure.about, record)?,
    })
}

fn paint<DB: DrawingBackend>(layout: &Layout<'_>, sheet: &Sheet<DB>) -> Drawn<DB> {
    sheet.fill(&WHITE)?;
    layout.draw(sheet)?;
    sheet.present()
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
        paint(layout, &sheet).map_err(drawing_error)?;
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

fn png(layout: &Layout<'_>, size: (u32, u32), title: &str, record: &str) -> Result<Vec<u8>> {
    let mut fine = vec![u8::MAX; size.0 as usize * size.1 as usize * CHANNELS];
    {
        let sheet = Raster::new(&mut fine, size).into_drawing_area();
        paint(layout, &sheet).map_err(drawing_error)?;
    }
    let pixels = reduce(&fine, size.0 as usize, UNITS_PER_PIXEL as usize);
    let (width, height) = (size.0 / UNITS_PER_PIXEL, size.1 / UNITS_PER_PIXEL);
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
