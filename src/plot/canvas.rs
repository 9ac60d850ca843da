//! A drawing as a list of shapes, and the parts that all figures share: title, frame, axes and
//! legend.

use super::colour::{Colour, FAINT, GRID, INK};
use super::figure::Figure;
use super::{axis::Scale, font};

/// The size of a figure. One unit is one pixel of an SVG.
pub(super) const WIDTH: f32 = 900.0;
pub(super) const HEIGHT: f32 = 560.0;
pub(super) const TITLE: f32 = 19.0;
pub(super) const LABEL: f32 = 14.0;
pub(super) const SMALL: f32 = 12.0;
const MARGIN: f32 = 24.0;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Dash patterns, one per series: the lengths of strokes and gaps in turn.
pub(super) const DASHES: [&[f32]; 10] = [
    &[],
    &[7.0, 4.0],
    &[2.0, 3.0],
    &[9.0, 3.0, 2.0, 3.0],
    &[12.0, 5.0],
    &[9.0, 3.0, 2.0, 3.0, 2.0, 3.0],
    &[2.0, 6.0],
    &[18.0, 4.0],
    &[4.0, 2.0, 12.0, 2.0],
    &[16.0, 3.0, 6.0, 3.0],
];
/// The number of marker shapes, one per series.
const MARKERS: usize = 12;

pub(super) enum Shape {
    Rect {
        x: f32,
        y: f32,
        w: f32,
        h: f32,
        fill: Colour,
        tip: String,
    },
    Line {
        points: Vec<(f32, f32)>,
        colour: Colour,
        width: f32,
        dash: &'static [f32],
    },
    /// A filled polygon.
    Area {
        points: Vec<(f32, f32)>,
        fill: Colour,
        opacity: f32,
        tip: String,
    },
    Circle {
        x: f32,
        y: f32,
        r: f32,
        fill: Colour,
        tip: String,
    },
    Text {
        x: f32,
        y: f32,
        text: String,
        size: f32,
        colour: Colour,
        anchor: Anchor,
        upright: bool,
    },
}

pub(super) struct Canvas {
    pub width: f32,
    pub height: f32,
    pub title: String,
    pub shapes: Vec<Shape>,
}

/// The rectangle in which the data are drawn.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

impl Canvas {
    /// Creates a canvas with title and note. Returns it with the height at which the free space
    /// begins.
    pub(super) fn new(figure: &Figure, height: f32) -> (Self, f32) {
        let mut canvas = Self { width: WIDTH, height, title: figure.title.clone(), shapes: Vec::new() };
        let room = WIDTH - 2.0 * MARGIN;
        let title = font::fit(&figure.title, TITLE, room);
        canvas.text(MARGIN, 32.0, &title, TITLE, INK, Anchor::Start);
        let mut below = 40.0;
        for line in wrapped(&figure.note, SMALL, room) {
            canvas.text(MARGIN, below + 13.0, &line, SMALL, FAINT, Anchor::Start);
            below += 16.0;
        }
        (canvas, below + 12.0)
    }

    pub(super) fn text(&mut self, x: f32, y: f32, text: &str, size: f32, colour: Colour, anchor: Anchor) {
        self.shapes.push(Shape::Text { x, y, text: text.to_string(), size, colour, anchor, upright: false });
    }

    /// Draws text that reads upwards.
    pub(super) fn upright_text(&mut self, x: f32, y: f32, text: &str, size: f32, colour: Colour) {
        let (text, anchor) = (text.to_string(), Anchor::Middle);
        self.shapes.push(Shape::Text { x, y, text, size, colour, anchor, upright: true });
    }

    pub(super) fn line(&mut self, points: &[(f32, f32)], colour: Colour, width: f32, dash: &'static [f32]) {
        self.shapes.push(Shape::Line { points: points.to_vec(), colour, width, dash });
    }

    pub(super) fn rect(&mut self, x: f32, y: f32, w: f32, h: f32, fill: Colour, tip: String) {
        self.shapes.push(Shape::Rect { x, y, w, h, fill, tip });
    }

    /// Draws one of several marker shapes that differ without colour.
    pub(super) fn marker(&mut self, kind: usize, x: f32, y: f32, r: f32, fill: Colour, tip: String) {
        let corner = |angle: f32, reach: f32| {
            let (sin, cos) = angle.to_radians().sin_cos();
            (x + reach * r * cos, y + reach * r * sin)
        };
        let polygon = |angles: &[f32]| angles.iter().map(|&angle| corner(angle, 1.25)).collect::<Vec<_>>();
        // A cross has four arms: the two outer corners of each, and the inner corner after it.
        let arms = |turn: f32| -> Vec<(f32, f32)> {
            let arm = |i: u8| {
                let angle = turn + 90.0 * f32::from(i);
                [corner(angle - 18.0, 1.3), corner(angle + 18.0, 1.3), corner(angle + 45.0, 0.57)]
            };
            (0..4).flat_map(arm).collect()
        };
        let star = || -> Vec<(f32, f32)> {
            let point = |i: u8| corner(-90.0 + 36.0 * f32::from(i), if i.is_multiple_of(2) { 1.5 } else { 0.6 });
            (0..10).map(point).collect()
        };
        let points = match kind % MARKERS {
            0 => return self.shapes.push(Shape::Circle { x, y, r, fill, tip }),
            1 => polygon(&[45.0, 135.0, 225.0, 315.0]),
            2 => polygon(&[30.0, 150.0, 270.0]),
            3 => polygon(&[0.0, 90.0, 180.0, 270.0]),
            4 => polygon(&[-30.0, 90.0, 210.0]),
            5 => arms(0.0),
            6 => star(),
            7 => arms(45.0),
            8 => polygon(&[0.0, 120.0, 240.0]),
            9 => polygon(&[60.0, 180.0, 300.0]),
            // These are two triangles that touch each other.
            10 => polygon(&[45.0, 225.0, 135.0, 315.0]),
            _ => polygon(&[45.0, 135.0, 315.0, 225.0]),
        };
        self.shapes.push(Shape::Area { points, fill, opacity: 1.0, tip });
    }

    /// Draws gridlines, ticks and the label of the horizontal axis.
    pub(super) fn x_axis(&mut self, frame: &Frame, scale: &Scale, label: &str) {
        let mut free = f32::NEG_INFINITY;
        for (value, text) in scale.ticks() {
            let x = scale.at(value);
            self.line(&[(x, frame.top), (x, frame.bottom)], GRID, 1.0, DASHES[0]);
            let half = font::width(&text, SMALL) / 2.0;
            if x - half > free {
                self.text(x, frame.bottom + 18.0, &text, SMALL, INK, Anchor::Middle);
                free = x + half + 6.0;
            }
        }
        self.x_label(frame, label);
    }

    pub(super) fn x_label(&mut self, frame: &Frame, label: &str) {
        self.text((frame.left + frame.right) / 2.0, frame.bottom + 42.0, label, LABEL, INK, Anchor::Middle);
    }

    pub(super) fn y_axis(&mut self, frame: &Frame, scale: &Scale, label: &str) {
        for (value, text) in scale.ticks() {
            let y = scale.at(value);
            self.line(&[(frame.left, y), (frame.right, y)], GRID, 1.0, DASHES[0]);
            self.text(frame.left - 8.0, y + 4.0, &text, SMALL, INK, Anchor::End);
        }
        self.y_label(frame, label);
    }

    pub(super) fn y_label(&mut self, frame: &Frame, label: &str) {
        self.upright_text(frame.left - 62.0, (frame.top + frame.bottom) / 2.0, label, LABEL, INK);
    }

    /// Draws the two axis lines.
    pub(super) fn axes(&mut self, frame: &Frame) {
        let corner = [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)];
        self.line(&corner, INK, 1.2, DASHES[0]);
    }

    /// Draws the names of series to the right of the frame, each with the index of its colour,
    /// marker and dash.
    pub(super) fn legend(&mut self, frame: &Frame, names: &[String], styles: &[usize], lines: bool) {
        let x = frame.right + 16.0;
        for (i, (name, &style)) in names.iter().zip(styles).enumerate() {
            let colour = super::colour::series(style);
            let y = frame.top + 10.0 + 22.0 * i as f32;
            // This is the last line that fits, and not all names do.
            if y + 22.0 > frame.bottom && i + 1 < names.len() {
                let more = format!("and {} more", names.len() - i);
                self.text(x + 33.0, y + 4.0, &more, SMALL, FAINT, Anchor::Start);
                break;
            }
            if lines {
                self.line(&[(x, y), (x + 26.0, y)], colour, 2.2, DASHES[style % DASHES.len()]);
            }
            self.marker(style, x + 13.0, y, 4.5, colour, String::new());
            let name = font::fit(name, SMALL, self.width - x - 38.0);
            self.text(x + 33.0, y + 4.0, &name, SMALL, INK, Anchor::Start);
        }
    }
}

/// Returns the width that a legend needs beside the frame.
pub(super) fn legend_width(names: &[String]) -> f32 {
    let widest = names.iter().map(|name| font::width(name, SMALL)).fold(0.0, f32::max);
    if names.iter().all(|name| name.is_empty()) { 0.0 } else { (widest + 54.0).min(250.0) }
}

/// Breaks a text into lines of at most the width `room`.
fn wrapped(text: &str, size: f32, room: f32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if font::width(&format!("{line} {word}"), size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}
