//! Points in a plane, joined by lines or with their intervals and names.

use super::axis::Scale;
use super::canvas::{Anchor, Canvas, DASHES, Frame, HEIGHT, SMALL, legend_width};
use super::colour::{self, FAINT, INK, PAPER};
use super::figure::{Figure, Point, Xy};
use super::{axis, empty, font};
use crate::error::Result;

/// More markers than these on one line hide it.
const MARKERS: usize = 40;

pub fn layout(figure: &Figure, xy: &Xy, joined: bool) -> Result<Canvas> {
    let names: Vec<String> = xy.series.iter().map(|series| series.name.clone()).collect();
    let colours: Vec<_> = (0..names.len()).map(colour::series).collect();
    let (mut canvas, top) = Canvas::new(figure, HEIGHT);
    let right = canvas.width - 28.0 - legend_width(&names);
    let frame = Frame { left: 92.0, top, right, bottom: canvas.height - 66.0 };
    let points = || xy.series.iter().flat_map(|series| &series.points);
    let ys = points().flat_map(|p| [Some(p.y), p.low, p.high]).flatten().chain(xy.mark);
    let x = Scale::new(&xy.x, points().map(|p| p.x), frame.left, frame.right).ok_or_else(|| empty(figure))?;
    let y = Scale::new(&xy.y, ys, frame.bottom, frame.top).ok_or_else(|| empty(figure))?;
    canvas.x_axis(&frame, &x, &xy.x.label);
    canvas.y_axis(&frame, &y, &xy.y.label);
    if let Some(mark) = xy.mark {
        let at = y.at(mark);
        canvas.line(&[(frame.left, at), (frame.right, at)], FAINT, 1.5, DASHES[1]);
        canvas.text(frame.right - 4.0, at - 5.0, &xy.mark_label, SMALL, FAINT, Anchor::End);
    }
    for (i, series) in xy.series.iter().enumerate() {
        let shown: Vec<&Point> = series.points.iter().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
        let place = |p: &Point| (x.at(p.x), y.at(p.y));
        if joined {
            band(&mut canvas, &shown, &x, &y, colours[i]);
            let line: Vec<_> = shown.iter().map(|p| place(p)).collect();
            canvas.line(&line, colours[i], 2.2, DASHES[i % DASHES.len()]);
        }
        for p in &shown {
            let (at, value) = place(p);
            if let (false, Some(low), Some(high)) = (joined, p.low, p.high) {
                whiskers(&mut canvas, at, y.at(low), y.at(high), colours[i]);
            }
            if !joined || shown.len() <= MARKERS {
                let r = if joined { 3.6 } else { 6.0 };
                canvas.marker(i, at, value, r, colours[i], tip(&series.name, p));
            }
        }
    }
    if !joined {
        labels(
            &mut canvas,
            &frame,
            points().filter(|p| !p.label.is_empty()).map(|p| (x.at(p.x), y.at(p.y), p.label.as_str())),
        );
    }
    canvas.axes(&frame);
    if legend_width(&names) > 0.0 {
        canvas.legend(&frame, &names, &colours, joined);
    }
    Ok(canvas)
}

/// The interval of a line, as a faint area.
fn band(canvas: &mut Canvas, points: &[&Point], x: &Scale, y: &Scale, fill: colour::Colour) {
    let with: Vec<(f32, f32, f32)> =
        points.iter().filter_map(|p| Some((x.at(p.x), y.at(p.low?), y.at(p.high?)))).collect();
    if with.len() > 1 {
        let upper = with.iter().map(|&(x, _, high)| (x, high));
        let outline = upper.chain(with.iter().rev().map(|&(x, low, _)| (x, low))).collect();
        canvas.shapes.push(super::canvas::Shape::Area { points: outline, fill, opacity: 0.16, tip: String::new() });
    }
}

pub fn whiskers(canvas: &mut Canvas, x: f32, low: f32, high: f32, colour: colour::Colour) {
    canvas.line(&[(x, low), (x, high)], colour, 1.8, DASHES[0]);
    for end in [low, high] {
        canvas.line(&[(x - 5.0, end), (x + 5.0, end)], colour, 1.8, DASHES[0]);
    }
}

fn tip(name: &str, p: &Point) -> String {
    let interval = match (p.low, p.high) {
        (Some(low), Some(high)) => format!(" [{}, {}]", axis::text(low), axis::text(high)),
        _ => String::new(),
    };
    let name = [name, &p.label].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
    format!("{name}: {} at {}{interval}", axis::text(p.y), axis::text(p.x))
}

/// Names beside their points: at the first of a few places where none stands yet.
fn labels<'a>(canvas: &mut Canvas, frame: &Frame, points: impl Iterator<Item = (f32, f32, &'a str)>) {
    let points: Vec<_> = points.collect();
    // Left, top, right, bottom of what is there already.
    let mut taken: Vec<[f32; 4]> = points.iter().map(|(x, y, _)| [x - 7.0, y - 7.0, x + 7.0, y + 7.0]).collect();
    for (x, y, text) in points {
        let text = font::fit(text, SMALL, 230.0);
        let width = font::width(&text, SMALL);
        let rows = [4.0, -10.0, 18.0, -24.0, 32.0, -38.0, 46.0];
        let places = rows.iter().flat_map(|dy| [(11.0, *dy), (-11.0 - width, *dy)]);
        let boxed = |dx: f32, dy: f32| [x + dx, y + dy - 10.0, x + dx + width, y + dy + 3.0];
        let free = |b: &[f32; 4]| {
            let inside = b[0] >= frame.left && b[2] <= frame.right && b[1] >= frame.top && b[3] <= frame.bottom;
            inside && !taken.iter().any(|t| b[0] < t[2] && t[0] < b[2] && b[1] < t[3] && t[1] < b[3])
        };
        let place = places.map(|(dx, dy)| boxed(dx, dy)).find(free).unwrap_or_else(|| boxed(11.0, 4.0));
        canvas.rect(place[0] - 1.0, place[1], width + 2.0, 13.0, PAPER, String::new());
        canvas.text(place[0], place[3] - 3.0, &text, SMALL, INK, Anchor::Start);
        taken.push(place);
    }
}
