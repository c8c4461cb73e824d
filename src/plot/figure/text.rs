//! Lettering: one font, measured as it is drawn.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, FontDesc, FontFamily, FontStyle, TextStyle};

use super::canvas::{TEXT_POINTS, points};

/// CSS font list of the SVG: where DejaVu is not installed, Verdana has the same metrics.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// plotters' font size of text one em high: its SVG backend divides by this.
const SIZE_OF_ONE_EM: f64 = 1.24;

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
    let Some(font) = font() else { return 0 };
    // ab_glyph scales by ascent plus descent; text sizes are em.
    let units = font.units_per_em().unwrap_or(1.0);
    let scale = PxScale::from(em() as f32 * font.height_unscaled() / units);
    let scaled = font.as_scaled(scale);
    let (mut advance, mut previous) = (0.0, None);
    for id in text.chars().map(|c| scaled.glyph_id(c)) {
        advance += previous.map_or(0.0, |p| scaled.kern(p, id));
        advance += scaled.h_advance(id);
        previous = Some(id);
    }
    advance.ceil() as i32
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
}
