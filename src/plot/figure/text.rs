//! Lettering: one font for both outputs, measured and placed the same way in each.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, Point, PxScale, ScaleFont};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, FontDesc, FontFamily, FontStyle, TextStyle};

use super::canvas::{TEXT_POINTS, points};

/// CSS font list of the SVG: where DejaVu is not installed, Verdana has the same metrics.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// plotters' font size of text one em high: its SVG backend divides by this.
const SIZE_OF_ONE_EM: f64 = 1.24;

/// Distance from the anchor down to the baseline, in em; equal to what the SVG backend writes.
const TOP_TO_BASELINE: f64 = 0.76;
const CENTRE_TO_BASELINE: f64 = 0.2735;
const BOTTOM_TO_BASELINE: f64 = -0.2735;

/// How far below a tick its label must be anchored for the digits to be centred on it, in em.
pub(super) const DIGIT_SHIFT: f64 = 0.09;

fn font() -> Option<&'static FontRef<'static>> {
    static FONT: OnceLock<Option<FontRef<'static>>> = OnceLock::new();
    FONT.get_or_init(|| FontRef::try_from_slice(dejavu::sans::regular()).ok())
        .as_ref()
}

/// The registered font family; plotters refuses to lay out text in any other.
fn family() -> FontFamily<'static> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        plotters::style::register_font(FAMILY, FontStyle::Normal, dejavu::sans::regular()).is_ok()
    });
    FontFamily::Name(FAMILY)
}

/// Black text of the figure's size, anchored at `h`, `v`.
pub(super) fn style(h: HPos, v: VPos) -> TextStyle<'static> {
    let size = em() * SIZE_OF_ONE_EM;
    FontDesc::new(family(), size, FontStyle::Normal)
        .color(&BLACK)
        .pos(Pos::new(h, v))
}

/// One em of the figure's text, in canvas units.
pub(super) fn em() -> f64 {
    f64::from(points(TEXT_POINTS))
}

/// Height of a line of text with its leading, in canvas units.
pub(super) fn line_height() -> i32 {
    (em() * 1.35).round() as i32
}

/// Width of `text` in canvas units.
pub fn width(text: &str) -> i32 {
    glyphs(text, em()).1.ceil() as i32
}

/// `text` cut in its middle to fit `room` canvas units.
pub(super) fn fitted(text: &str, room: i32) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    (0..chars.len())
        .rev()
        .map(|kept| {
            let (head, tail) = (kept.div_ceil(2), kept / 2);
            let tail = &chars[chars.len() - tail..];
            chars[..head]
                .iter()
                .chain(&['…'])
                .chain(tail)
                .collect::<String>()
        })
        .find(|cut| width(cut) <= room)
        .unwrap_or_default()
}

/// Glyphs of `text` with their pens' x, and the whole advance, for text of `em` units.
fn glyphs(text: &str, em: f64) -> (Vec<(char, f32)>, f32) {
    let Some(font) = font() else {
        return (Vec::new(), 0.0);
    };
    let scaled = font.as_scaled(scale(font, em));
    let (mut pen, mut previous, mut placed) = (0.0, None, Vec::new());
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        pen += previous.map_or(0.0, |p| scaled.kern(p, id));
        placed.push((c, pen));
        pen += scaled.h_advance(id);
        previous = Some(id);
    }
    (placed, pen)
}

/// ab_glyph scales by ascent plus descent; text sizes are em.
fn scale(font: &FontRef<'_>, em: f64) -> PxScale {
    let units = font.units_per_em().unwrap_or(1.0);
    PxScale::from(em as f32 * font.height_unscaled() / units)
}

/// Calls `ink` with every pixel of `text` and its coverage, relative to the anchor.
///
/// `size` is plotters' font size.
pub(super) fn rasterise<E>(
    text: &str,
    size: f64,
    anchor: Pos,
    mut ink: impl FnMut(i32, i32, f32) -> Result<(), E>,
) -> Result<(), E> {
    let Some(font) = font() else { return Ok(()) };
    let em = size / SIZE_OF_ONE_EM;
    let (placed, advance) = glyphs(text, em);
    let left = match anchor.h_pos {
        HPos::Left => 0.0,
        HPos::Center => -advance / 2.0,
        HPos::Right => -advance,
    };
    let baseline = em
        * match anchor.v_pos {
            VPos::Top => TOP_TO_BASELINE,
            VPos::Center => CENTRE_TO_BASELINE,
            VPos::Bottom => BOTTOM_TO_BASELINE,
        };
    for (c, pen) in placed {
        let position = Point {
            x: left + pen,
            y: baseline as f32,
        };
        let glyph = font
            .glyph_id(c)
            .with_scale_and_position(scale(font, em), position);
        let Some(outline) = font.outline_glyph(glyph) else {
            continue;
        };
        let corner = outline.px_bounds().min;
        let mut result = Ok(());
        outline.draw(|x, y, coverage| {
            if result.is_ok() && coverage > 0.0 {
                result = ink(
                    corner.x as i32 + x as i32,
                    corner.y as i32 + y as i32,
                    coverage,
                );
            }
        });
        result?;
    }
    Ok(())
}

/// `text` without characters that XML or a picture cannot show.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}');
    text.chars()
        .map(|c| if shown(c) { c } else { ' ' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_measured_in_em() {
        // A digit of DejaVu Sans advances 1303 of 2048 units.
        assert_eq!(width("0"), (em() * 1303.0 / 2048.0).ceil() as i32);
        assert_eq!(width(""), 0);
    }

    #[test]
    fn long_text_is_cut_in_the_middle() {
        let name = "a-model-with-a-very-long-name-indeed-q4_1.gguf";
        let cut = fitted(name, width("twelve chars"));
        assert!(
            cut.starts_with("a-") && cut.contains('…') && cut.ends_with('f'),
            "{cut}"
        );
        assert_eq!(fitted("short", width("shorter")), "short");
        assert_eq!(fitted("text", 0), "");
    }

    #[test]
    fn ink_stays_around_the_anchor() {
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        rasterise(
            "00",
            100.0 * SIZE_OF_ONE_EM,
            Pos::new(HPos::Center, VPos::Center),
            |x, _, _| {
                (low, high) = (low.min(x), high.max(x));
                Ok::<(), ()>(())
            },
        )
        .unwrap();
        assert!((low + high).abs() <= 2 && high > 50, "{low} {high}");
    }
}
