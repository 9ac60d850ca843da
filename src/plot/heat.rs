//! A heat map: one coloured cell per row and column, on a logarithmic colour scale, with its key.
//!
//! Adjacent cells of one colour become one rectangle, because the record of a large model has
//! hundreds of thousands of cells.

use super::axis::{self, Scale};
use super::canvas::{Anchor, Canvas, DASHES, Frame, HEIGHT, SMALL};
use super::colour::{self, INK};
use super::figure::{Axis, Figure, HeatMap, empty};
use crate::error::{Error, Result};

/// The number of colours from the lowest to the highest value.
const STEPS: f64 = 24.0;
/// Values below this share of the threshold get the lowest colour.
const FLOOR: f64 = 0.25;

pub(super) fn layout(figure: &Figure, map: &HeatMap) -> Result<Canvas> {
    let columns = map.values.first().map_or(0, Vec::len);
    let values = || map.values.iter().flatten().copied().filter(|value| value.is_finite());
    let largest = values().fold(0.0, f64::max);
    if columns == 0 || largest <= 0.0 {
        return Err(empty(figure));
    }
    if map.values.iter().any(|row| row.len() != columns) {
        return Err(Error::bad_argument(format!("heat map \"{}\": its rows differ in length", figure.title)));
    }
    let threshold = map.threshold.filter(|t| t.is_finite() && *t > 0.0).unwrap_or(largest / 8.0);
    let (mut canvas, top) = Canvas::new(figure, HEIGHT);
    let frame = Frame { left: 92.0, top, right: canvas.width - 120.0, bottom: canvas.height - 66.0 };
    let (width, height) = (frame.right - frame.left, frame.bottom - frame.top);
    let place = |value: f64| place(value, threshold, largest);
    let step = |value: f64| (place(value) * STEPS / 2.0).floor().min(STEPS - 1.0) as i64;
    for (r, row) in map.values.iter().enumerate() {
        let (y, next) =
            (height * r as f32 / map.values.len() as f32, height * (r + 1) as f32 / map.values.len() as f32);
        let mut from = 0;
        while from < columns {
            let colour = step(row[from]);
            let to = (from..columns).find(|&c| step(row[c]) != colour).unwrap_or(columns);
            let (left, right) = (width * from as f32 / columns as f32, width * to as f32 / columns as f32);
            let fill = colour::value((colour as f64 + 0.5) * 2.0 / STEPS);
            canvas.rect(frame.left + left, frame.top + y, right - left, next - y, fill, String::new());
            from = to;
        }
    }
    let [first, end] = map.columns.unwrap_or([0.0, columns as f64]);
    let ends = |low: f64, high: f64, axis: &Axis| Axis { min: Some(low), max: Some(high), ..axis.clone() };
    let x = Scale::new(&ends(first, end, &map.x), [first, end].into_iter(), frame.left, frame.right);
    let rows = map.values.len() as f64;
    let y = Scale::new(&ends(0.0, rows, &map.y), [0.0, rows].into_iter(), frame.top, frame.bottom);
    for (value, text) in x.iter().flat_map(Scale::ticks) {
        let at = x.as_ref().map_or(0.0, |x| x.at(value));
        canvas.line(&[(at, frame.bottom), (at, frame.bottom + 5.0)], INK, 1.0, DASHES[0]);
        canvas.text(at, frame.bottom + 19.0, &text, SMALL, INK, Anchor::Middle);
    }
    for (value, text) in y.iter().flat_map(Scale::ticks) {
        let at = y.as_ref().map_or(0.0, |y| y.at(value));
        canvas.line(&[(frame.left - 5.0, at), (frame.left, at)], INK, 1.0, DASHES[0]);
        canvas.text(frame.left - 9.0, at + 4.0, &text, SMALL, INK, Anchor::End);
    }
    canvas.x_label(&frame, &map.x.label);
    canvas.y_label(&frame, &map.y.label);
    canvas.axes(&frame);
    key(&mut canvas, &frame, threshold, largest, &map.value_label);
    Ok(canvas)
}

/// Maps a value to the colour scale: 0 to 1 below the threshold and 1 to 2 above it, both
/// logarithmic.
fn place(value: f64, threshold: f64, largest: f64) -> f64 {
    let value = value.abs();
    if value.is_nan() || value <= threshold * FLOOR {
        0.0
    } else if value < threshold {
        1.0 + (value / threshold).ln() / -FLOOR.ln()
    } else {
        1.0 + ((value / threshold).ln() / (largest / threshold).ln().max(f64::MIN_POSITIVE)).min(1.0)
    }
}

fn key(canvas: &mut Canvas, frame: &Frame, threshold: f64, largest: f64, label: &str) {
    let (x, width, height) = (frame.right + 22.0, 18.0, (frame.bottom - frame.top) * 0.7);
    let top = frame.top + 26.0;
    canvas.text(x, frame.top + 10.0, label, SMALL, INK, Anchor::Start);
    let warm = largest > threshold;
    let steps = if warm { STEPS as usize } else { STEPS as usize / 2 };
    let at = |place: f64| top + height * (1.0 - place as f32 * STEPS as f32 / 2.0 / steps as f32);
    for step in 0..steps {
        let (low, high) = (step as f64 * 2.0 / STEPS, (step + 1) as f64 * 2.0 / STEPS);
        canvas.rect(x, at(high), width, at(low) - at(high) + 0.5, colour::value((low + high) / 2.0), String::new());
    }
    let mut named = vec![(0.0, format!("≤ {}", axis::text(threshold * FLOOR))), (1.0, axis::text(threshold))];
    if warm {
        named.push((1.5, axis::text((threshold * largest).sqrt())));
        named.push((2.0, axis::text(largest)));
    }
    for (place, text) in named {
        canvas.text(x + width + 7.0, at(place) + 4.0, &text, SMALL, INK, Anchor::Start);
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn the_threshold_parts_cold_from_warm() {
        assert_eq!((place(6.0, 6.0, 100.0), place(100.0, 6.0, 100.0), place(1.0, 6.0, 100.0)), (1.0, 2.0, 0.0));
        assert!(place(5.9, 6.0, 100.0) < 1.0 && place(f64::NAN, 6.0, 100.0) == 0.0);
        assert!(place(10.0, 6.0, 100.0) > 1.0);
    }
}
