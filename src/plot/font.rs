//! The embedded font: the Latin glyphs of DejaVu Sans (`dejavu_license.txt`).

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};

pub(super) static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(include_bytes!("dejavu_sans_latin.ttf")).expect("the font is sound"));

/// The scale at which an em is `size` units, as SVG defines font sizes.
pub(super) fn scale(size: f32) -> PxScale {
    let em = FONT.units_per_em().unwrap_or(2048.0);
    PxScale::from(size * FONT.height_unscaled() / em)
}

/// The width of one line of text.
pub(super) fn width(text: &str, size: f32) -> f32 {
    let font = FONT.as_scaled(scale(size));
    text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum()
}

/// Shortens a text to the width `room`, with an ellipsis if something is left out.
pub(super) fn fit(text: &str, size: f32, room: f32) -> String {
    if width(text, size) <= room {
        return text.to_string();
    }
    let mut kept: String = text.to_string();
    while kept.pop().is_some() {
        let shown = format!("{kept}…");
        if width(&shown, size) <= room {
            return shown;
        }
    }
    String::new()
}
