//! Paints shapes into pixels and encodes them as PNG.

use ab_glyph::{Font, ScaleFont, point};
use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform};

use super::canvas::{Anchor, Canvas, Shape};
use super::colour::{Colour, PAPER};
use super::font::{self, FONT};
use crate::error::{Error, Result};

/// A pixel takes four bytes. A figure of 8,000 rows has this many pixels.
const MAX_PIXELS: u64 = 64 << 20;

pub(super) fn paint(canvas: &Canvas, scale: f32) -> Result<Vec<u8>> {
    let failed = |what: &str| Error::bad_argument(format!("figure \"{}\": {what}", canvas.title));
    let size = |length: f32| (length * scale).round() as u32;
    let (width, height) = (size(canvas.width), size(canvas.height));
    let pixmap = (u64::from(width) * u64::from(height) <= MAX_PIXELS).then(|| Pixmap::new(width, height)).flatten();
    let mut pixmap = pixmap.ok_or_else(|| failed("too large for pixels"))?;
    pixmap.fill(opaque(PAPER));
    for shape in &canvas.shapes {
        draw(&mut pixmap, shape, scale);
    }
    pixmap.encode_png().map_err(|e| failed(&e.to_string()))
}

fn opaque(colour: Colour) -> Color {
    let [_, r, g, b] = colour.to_be_bytes();
    Color::from_rgba8(r, g, b, 255)
}

fn ink(colour: Colour, opacity: f32) -> Paint<'static> {
    let mut paint = Paint::default();
    let mut colour = opaque(colour);
    colour.apply_opacity(opacity);
    paint.set_color(colour);
    paint.anti_alias = true;
    paint
}

fn draw(pixmap: &mut Pixmap, shape: &Shape, scale: f32) {
    let transform = Transform::from_scale(scale, scale);
    match shape {
        Shape::Rect { x, y, w, h, fill, .. } => {
            // Edges lie on whole pixels, so that adjacent cells leave no seam.
            let edge = |at: f32| (at * scale).round();
            let (left, top) = (edge(*x), edge(*y));
            let (right, bottom) = (edge(x + w).max(left + 1.0), edge(y + h).max(top + 1.0));
            if let Some(rect) = Rect::from_ltrb(left, top, right, bottom) {
                pixmap.fill_rect(rect, &ink(*fill, 1.0), Transform::identity(), None);
            }
        }
        Shape::Line { points, colour, width, dash } => {
            let mut path = PathBuilder::new();
            trace(&mut path, points);
            let Some(path) = path.finish() else { return };
            let dash = (!dash.is_empty()).then(|| StrokeDash::new(even(dash), 0.0)).flatten();
            let stroke = Stroke {
                width: *width,
                dash,
                line_cap: LineCap::Butt,
                line_join: LineJoin::Round,
                ..Stroke::default()
            };
            pixmap.stroke_path(&path, &ink(*colour, 1.0), &stroke, transform, None);
        }
        Shape::Area { points, fill, opacity, .. } => {
            let mut path = PathBuilder::new();
            trace(&mut path, points);
            path.close();
            if let Some(path) = path.finish() {
                pixmap.fill_path(&path, &ink(*fill, *opacity), FillRule::Winding, transform, None);
            }
        }
        Shape::Circle { x, y, r, fill, .. } => {
            if let Some(path) = PathBuilder::from_circle(*x, *y, *r) {
                pixmap.fill_path(&path, &ink(*fill, 1.0), FillRule::Winding, transform, None);
            }
        }
        Shape::Text { x, y, text, size, colour, anchor, upright } => {
            let width = font::width(text, *size);
            let before = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => width / 2.0,
                Anchor::End => width,
            };
            write(pixmap, text, (x * scale, y * scale), before * scale, size * scale, *colour, *upright);
        }
    }
}

fn trace(path: &mut PathBuilder, points: &[(f32, f32)]) {
    for (i, &(x, y)) in points.iter().enumerate() {
        if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
}

/// Makes the number of lengths in a dash pattern even, as the painter requires.
fn even(dash: &[f32]) -> Vec<f32> {
    if dash.len().is_multiple_of(2) { dash.to_vec() } else { [dash, dash].concat() }
}

/// Draws text whose baseline goes through `at` and which begins `before` pixels ahead of it. It
/// reads upwards if `upright`.
fn write(pixmap: &mut Pixmap, text: &str, at: (f32, f32), before: f32, size: f32, colour: Colour, upright: bool) {
    let px = font::scale(size);
    let scaled = FONT.as_scaled(px);
    let mut along = -before;
    for c in text.chars() {
        let id = FONT.glyph_id(c);
        // The text is laid out along a baseline at the origin, and then rotated and moved.
        let offset = if upright { (along, 0.0) } else { (at.0 + along, at.1) };
        if let Some(outline) = FONT.outline_glyph(id.with_scale_and_position(px, point(offset.0, offset.1))) {
            let bounds = outline.px_bounds();
            outline.draw(|gx, gy, coverage| {
                let (x, y) = (bounds.min.x + gx as f32, bounds.min.y + gy as f32);
                let (x, y) = if upright { (at.0 + y, at.1 - x) } else { (x, y) };
                blend(pixmap, x.round() as i64, y.round() as i64, colour, coverage);
            });
        }
        along += scaled.h_advance(id);
    }
}

fn blend(pixmap: &mut Pixmap, x: i64, y: i64, colour: Colour, coverage: f32) {
    let (width, height) = (i64::from(pixmap.width()), i64::from(pixmap.height()));
    if x < 0 || y < 0 || x >= width || y >= height {
        return;
    }
    // The page is opaque, so a pixel equals its colour.
    let at = ((y * width + x) * 4) as usize;
    let [_, r, g, b] = colour.to_be_bytes();
    for (channel, ink) in pixmap.data_mut()[at..at + 3].iter_mut().zip([r, g, b]) {
        let mixed = f32::from(*channel) + (f32::from(ink) - f32::from(*channel)) * coverage.clamp(0.0, 1.0);
        *channel = mixed.round() as u8;
    }
}
