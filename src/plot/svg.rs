//! Writes shapes as SVG text. The tooltip of a shape is its `<title>`.

use std::fmt::Write;

use super::canvas::{Anchor, Canvas, Shape};
use super::colour::{Colour, PAPER};
use crate::words::rounded;

pub(super) fn write(canvas: &Canvas) -> String {
    let (width, height) = (canvas.width, canvas.height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{}\" font-family=\"DejaVu Sans, Verdana, Arial, sans-serif\">\n",
        escape(&canvas.title)
    );
    let _ = writeln!(svg, "<rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>", hex(PAPER));
    for shape in &canvas.shapes {
        add(&mut svg, shape);
        svg.push('\n');
    }
    svg.push_str("</svg>\n");
    svg
}

fn add(svg: &mut String, shape: &Shape) {
    let _ = match shape {
        Shape::Rect { x, y, w, h, fill, tip } => {
            let (x, y, w, h) = (short(*x), short(*y), short(*w), short(*h));
            close(
                svg,
                format!("<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{}\"", hex(*fill)),
                "rect",
                tip,
            )
        }
        Shape::Line { points, colour, width, dash } => {
            let dash = match dash.is_empty() {
                true => String::new(),
                false => {
                    format!(" stroke-dasharray=\"{}\"", dash.iter().map(f32::to_string).collect::<Vec<_>>().join(" "))
                }
            };
            let points = coordinates(points);
            write!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{dash}/>",
                hex(*colour)
            )
        }
        Shape::Area { points, fill, opacity, tip } => {
            let opacity = if *opacity < 1.0 { format!(" fill-opacity=\"{opacity}\"") } else { String::new() };
            close(
                svg,
                format!("<polygon points=\"{}\" fill=\"{}\"{opacity}", coordinates(points), hex(*fill)),
                "polygon",
                tip,
            )
        }
        Shape::Circle { x, y, r, fill, tip } => {
            let (x, y) = (short(*x), short(*y));
            close(svg, format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{}\"", hex(*fill)), "circle", tip)
        }
        Shape::Text { x, y, text, size, colour, anchor, upright } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let (x, y) = (short(*x), short(*y));
            let turned = if *upright { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            write!(
                svg,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\" text-anchor=\"{anchor}\"{turned}>{}</text>",
                hex(*colour),
                escape(text)
            )
        }
    };
}

/// Closes an element, with its tooltip if there is one.
fn close(svg: &mut String, open: String, name: &str, tip: &str) -> std::fmt::Result {
    match tip.is_empty() {
        true => write!(svg, "{open}/>"),
        false => write!(svg, "{open}><title>{}</title></{name}>", escape(tip)),
    }
}

fn coordinates(points: &[(f32, f32)]) -> String {
    points.iter().map(|(x, y)| format!("{},{}", short(*x), short(*y))).collect::<Vec<_>>().join(" ")
}

/// Two decimals are a fiftieth of a printed dot.
fn short(value: f32) -> String {
    let text = rounded(value.into(), 2);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn hex(colour: Colour) -> String {
    format!("#{colour:06x}")
}

fn escape(text: &str) -> String {
    // XML cannot contain other control characters, not even as numeric references.
    let is_none = |c: char| (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    let text = text.replace(is_none, "\u{fffd}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
