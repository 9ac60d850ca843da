//! A drawing as a list of shapes, and what all figures share: title, frame, axes, legend.

use super::colour::{Colour, FAINT, GRID, INK};
use super::figure::Figure;
use super::{axis::Scale, font};

/// Size of a figure, in units of which an SVG has one per pixel.
pub const WIDTH: f32 = 900.0;
pub const HEIGHT: f32 = 560.0;
pub const TITLE: f32 = 19.0;
pub const LABEL: f32 = 14.0;
pub const SMALL: f32 = 12.0;
const MARGIN: f32 = 24.0;

#[derive(Clone, Copy, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Patterns of drawn and open lengths, one per series.
pub const DASHES: [&[f32]; 10] = [
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
/// Forms of markers, one per series.
const MARKERS: usize = 12;

pub enum Shape {
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
    /// A closed outline, filled.
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

pub struct Canvas {
    pub width: f32,
    pub height: f32,
    pub title: String,
    pub shapes: Vec<Shape>,
}

/// Where the data are drawn.
#[derive(Clone, Copy)]
pub struct Frame {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

impl Canvas {
    /// With title and note; returns the height below which there is room.
    pub fn new(figure: &Figure, height: f32) -> (Self, f32) {
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

    pub fn text(&mut self, x: f32, y: f32, text: &str, size: f32, colour: Colour, anchor: Anchor) {
        self.shapes.push(Shape::Text { x, y, text: text.to_string(), size, colour, anchor, upright: false });
    }

    /// Reading upwards.
    pub fn upright_text(&mut self, x: f32, y: f32, text: &str, size: f32, colour: Colour) {
        let (text, anchor) = (text.to_string(), Anchor::Middle);
        self.shapes.push(Shape::Text { x, y, text, size, colour, anchor, upright: true });
    }

    pub fn line(&mut self, points: &[(f32, f32)], colour: Colour, width: f32, dash: &'static [f32]) {
        self.shapes.push(Shape::Line { points: points.to_vec(), colour, width, dash });
    }

    pub fn rect(&mut self, x: f32, y: f32, w: f32, h: f32, fill: Colour, tip: String) {
        self.shapes.push(Shape::Rect { x, y, w, h, fill, tip });
    }

    /// One of a few forms that differ without colour.
    pub fn marker(&mut self, kind: usize, x: f32, y: f32, r: f32, fill: Colour, tip: String) {
        let corner = |angle: f32, reach: f32| {
            let (sin, cos) = angle.to_radians().sin_cos();
            (x + reach * r * cos, y + reach * r * sin)
        };
        let polygon = |angles: &[f32]| angles.iter().map(|&angle| corner(angle, 1.25)).collect::<Vec<_>>();
        // Four arms: the two outer corners of each, and the inner one behind it.
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
            // Two triangles that touch, beside and above each other.
            10 => polygon(&[45.0, 225.0, 135.0, 315.0]),
            _ => polygon(&[45.0, 135.0, 315.0, 225.0]),
        };
        self.shapes.push(Shape::Area { points, fill, opacity: 1.0, tip });
    }

    /// Gridlines, ticks and label of the horizontal axis.
    pub fn x_axis(&mut self, frame: &Frame, scale: &Scale, label: &str) {
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

    pub fn x_label(&mut self, frame: &Frame, label: &str) {
        self.text((frame.left + frame.right) / 2.0, frame.bottom + 42.0, label, LABEL, INK, Anchor::Middle);
    }

    pub fn y_axis(&mut self, frame: &Frame, scale: &Scale, label: &str) {
        for (value, text) in scale.ticks() {
            let y = scale.at(value);
            self.line(&[(frame.left, y), (frame.right, y)], GRID, 1.0, DASHES[0]);
            self.text(frame.left - 8.0, y + 4.0, &text, SMALL, INK, Anchor::End);
        }
        self.y_label(frame, label);
    }

    pub fn y_label(&mut self, frame: &Frame, label: &str) {
        self.upright_text(frame.left - 62.0, (frame.top + frame.bottom) / 2.0, label, LABEL, INK);
    }

    /// The two axes themselves.
    pub fn axes(&mut self, frame: &Frame) {
        let corner = [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)];
        self.line(&corner, INK, 1.2, DASHES[0]);
    }

    /// Names of series, to the right of the frame, each with the number of its colour, marker and dash.
    pub fn legend(&mut self, frame: &Frame, names: &[String], styles: &[usize], lines: bool) {
        let x = frame.right + 16.0;
        for (i, (name, &style)) in names.iter().zip(styles).enumerate() {
            let colour = super::colour::series(style);
            let y = frame.top + 10.0 + 22.0 * i as f32;
            // The last line that fits, where not all do.
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

/// How much room a legend takes beside the frame.
pub fn legend_width(names: &[String]) -> f32 {
    let widest = names.iter().map(|name| font::width(name, SMALL)).fold(0.0, f32::max);
    if names.iter().all(|name| name.is_empty()) { 0.0 } else { (widest + 54.0).min(250.0) }
}

/// A text in lines of at most `room`.
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
