//! A chart of points, joined by lines or with their intervals and names.

use super::axis::Scale;
use super::canvas::{Anchor, Canvas, DASHES, Frame, HEIGHT, SMALL, legend_width};
use super::colour::{self, FAINT, INK, PAPER};
use super::figure::{Figure, Point, Xy, empty};
use super::{axis, font};
use crate::error::Result;

/// A line with more markers than this would be hidden by them.
const MARKERS: usize = 40;

pub(super) fn layout(figure: &Figure, xy: &Xy, joined: bool) -> Result<Canvas> {
    let names: Vec<String> = xy.series.iter().map(|series| series.name.clone()).collect();
    let styles: Vec<usize> = xy.series.iter().enumerate().map(|(i, series)| series.style.unwrap_or(i)).collect();
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
    }
    for (series, &style) in xy.series.iter().zip(&styles) {
        let colour = colour::series(style);
        let is_shown = |p: &Point| p.x.is_finite() && p.y.is_finite();
        // A point without a value leaves a gap in the line.
        let parts: Vec<&[Point]> = series.points.split(|p| !is_shown(p)).filter(|part| !part.is_empty()).collect();
        let shown: usize = parts.iter().map(|part| part.len()).sum();
        let place = |p: &Point| (x.at(p.x), y.at(p.y));
        for part in parts.iter().filter(|_| joined) {
            band(&mut canvas, part, &x, &y, colour);
            let line: Vec<_> = part.iter().map(place).collect();
            canvas.line(&line, colour, 2.2, DASHES[style % DASHES.len()]);
        }
        for (p, alone) in parts.iter().flat_map(|part| part.iter().map(|p| (p, part.len() == 1))) {
            let (at, value) = place(p);
            if let (false, Some(low), Some(high)) = (joined, p.low, p.high) {
                whiskers(&mut canvas, at, y.at(low), y.at(high), colour);
            }
            if !joined || alone || shown <= MARKERS {
                let r = if joined { 3.6 } else { 6.0 };
                canvas.marker(style, at, value, r, colour, tip(&series.name, p));
            }
        }
    }
    let places: Vec<(f32, f32)> = points().map(|p| (x.at(p.x), y.at(p.y))).collect();
    if let Some(mark) = xy.mark {
        mark_label(&mut canvas, &frame, &places, y.at(mark), &xy.mark_label);
    }
    if !joined {
        let ends = |p: &Point| (y.at(p.high.unwrap_or(p.y)), y.at(p.low.unwrap_or(p.y)));
        let named = points().map(|p| (x.at(p.x), y.at(p.y), ends(p), p.label.as_str()));
        labels(&mut canvas, &frame, &named.collect::<Vec<_>>());
    }
    canvas.axes(&frame);
    if legend_width(&names) > 0.0 {
        canvas.legend(&frame, &names, &styles, joined);
    }
    Ok(canvas)
}

/// Draws the interval of a line as a translucent area.
fn band(canvas: &mut Canvas, points: &[Point], x: &Scale, y: &Scale, fill: colour::Colour) {
    let with: Vec<(f32, f32, f32)> =
        points.iter().filter_map(|p| Some((x.at(p.x), y.at(p.low?), y.at(p.high?)))).collect();
    if with.len() > 1 {
        let upper = with.iter().map(|&(x, _, high)| (x, high));
        let outline = upper.chain(with.iter().rev().map(|&(x, low, _)| (x, low))).collect();
        canvas.shapes.push(super::canvas::Shape::Area { points: outline, fill, opacity: 0.16, tip: String::new() });
    }
}

pub(super) fn whiskers(canvas: &mut Canvas, x: f32, low: f32, high: f32, colour: colour::Colour) {
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

/// Draws the name of the marked line on a background of its own, at the end of the line that has
/// fewer points near it.
fn mark_label(canvas: &mut Canvas, frame: &Frame, points: &[(f32, f32)], at: f32, label: &str) {
    if label.is_empty() {
        return;
    }
    let width = font::width(label, SMALL);
    let boxes = [frame.right - 6.0 - width, frame.left + 6.0]
        .into_iter()
        .flat_map(|left| [at - 19.0, at + 4.0].map(|top| [left, top, left + width, top + 15.0]));
    let inside = boxes.filter(|b| b[1] >= frame.top && b[3] <= frame.bottom);
    let near = |b: &[f32; 4]| {
        let within =
            |(x, y): &&(f32, f32)| *x > b[0] - 40.0 && *x < b[2] + 40.0 && *y > b[1] - 14.0 && *y < b[3] + 14.0;
        points.iter().filter(within).count()
    };
    let right_above = [frame.right - 6.0 - width, at - 19.0, frame.right - 6.0, at - 4.0];
    let place = inside.min_by_key(near).unwrap_or(right_above);
    canvas.rect(place[0] - 2.0, place[1], width + 4.0, 15.0, PAPER, String::new());
    canvas.text(place[0], place[3] - 4.0, label, SMALL, FAINT, Anchor::Start);
}

/// The coordinates of a point, the upper and lower end of its interval, and its name.
type Named<'a> = (f32, f32, (f32, f32), &'a str);

/// A name that is farther above or below its point than this is joined to it by a line.
const BESIDE: f32 = 16.0;

/// Draws names beside their points, each at the first of several positions that no point, interval
/// or name covers.
fn labels(canvas: &mut Canvas, frame: &Frame, points: &[Named]) {
    // The left, top, right and bottom of everything drawn so far.
    let marker = |&(x, y, ..): &Named| [x - 7.0, y - 7.0, x + 7.0, y + 7.0];
    let whisker = |&(x, _, (high, low), _): &Named| [x - 6.0, high - 1.0, x + 6.0, low + 1.0];
    let mut taken: Vec<[f32; 4]> = points.iter().flat_map(|point| [marker(point), whisker(point)]).collect();
    for &(x, y, _, text) in points.iter().filter(|(.., text)| !text.is_empty()) {
        let text = font::fit(text, SMALL, 230.0);
        let width = font::width(&text, SMALL);
        let rows = [4.0, -10.0, 18.0, -24.0, 32.0, -38.0, 46.0, -52.0, 60.0, -66.0, 74.0, 88.0, 102.0];
        let places = rows.iter().flat_map(|dy| [(11.0, *dy), (-11.0 - width, *dy)]);
        let boxed = |dx: f32, dy: f32| [x + dx, y + dy - 10.0, x + dx + width, y + dy + 3.0];
        let free = |b: &[f32; 4]| {
            let inside = b[0] >= frame.left && b[2] <= frame.right && b[1] >= frame.top && b[3] <= frame.bottom;
            inside && !taken.iter().any(|t| b[0] < t[2] && t[0] < b[2] && b[1] < t[3] && t[1] < b[3])
        };
        let place = places.map(|(dx, dy)| boxed(dx, dy)).find(free).unwrap_or_else(|| boxed(11.0, 4.0));
        let middle = (place[1] + place[3]) / 2.0;
        if (middle - y).abs() > BESIDE {
            let near = if place[0] > x { place[0] - 2.0 } else { place[2] + 2.0 };
            canvas.line(&[(x, y + 8.0 * (middle - y).signum()), (near, middle)], FAINT, 0.8, DASHES[0]);
        }
        canvas.rect(place[0] - 1.0, place[1], width + 2.0, 13.0, PAPER, String::new());
        canvas.text(place[0], place[3] - 3.0, &text, SMALL, INK, Anchor::Start);
        taken.push(place);
    }
}
