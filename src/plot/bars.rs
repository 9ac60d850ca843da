//! Bar charts: by category with groups side by side, or by bins, whose width is that of the bars.

use super::axis::{self, Scale};
use super::canvas::{Anchor, Canvas, Frame, HEIGHT, SMALL, legend_width};
use super::colour::{self, INK};
use super::figure::{Axis, Bars, Figure, empty};
use super::font;
use crate::error::{Error, Result};

pub(super) fn layout(figure: &Figure, bars: &Bars) -> Result<Canvas> {
    let names: Vec<String> = bars.groups.iter().map(|group| group.name.clone()).collect();
    let styles: Vec<usize> = (0..names.len()).collect();
    let (mut canvas, top) = Canvas::new(figure, HEIGHT);
    let right = canvas.width - 28.0 - legend_width(&names);
    let frame = Frame { left: 92.0, top, right, bottom: canvas.height - 66.0 };
    let values = || bars.groups.iter().flat_map(|group| group.values.iter().copied());
    // Bars begin at zero, or on a logarithmic axis a little below the smallest value.
    let y_axis = if bars.y.log { bars.y.clone() } else { Axis { min: bars.y.min.or(Some(0.0)), ..bars.y.clone() } };
    let y = Scale::new(&y_axis, values(), frame.bottom, frame.top).ok_or_else(|| empty(figure))?;
    if bars.categories.is_empty() && bars.edges.is_empty() {
        return Err(empty(figure));
    }
    canvas.y_axis(&frame, &y, &bars.y.label);
    if !bars.edges.is_empty() {
        bins(&mut canvas, figure, bars, &frame, &y)?;
        canvas.axes(&frame);
        if legend_width(&names) > 0.0 {
            canvas.legend(&frame, &names, &styles, false);
        }
        return Ok(canvas);
    }
    if let Some(group) = bars.groups.iter().find(|group| group.values.len() > bars.categories.len()) {
        let (values, categories) = (group.values.len(), bars.categories.len());
        let message = format!("bars \"{}\": categories: {categories}, values of a group: {values}", figure.title);
        return Err(Error::bad_argument(message).hint("give a category for each value"));
    }
    let step = (frame.right - frame.left) / bars.categories.len() as f32;
    let width = (step * 0.8 / bars.groups.len().max(1) as f32).max(0.6);
    let mut free = f32::NEG_INFINITY;
    for (i, category) in bars.categories.iter().enumerate() {
        let left = frame.left + step * (i as f32 + 0.1);
        for (g, group) in bars.groups.iter().enumerate() {
            let value = group.values.get(i).copied().unwrap_or(f64::NAN);
            if value.is_finite() && !(bars.y.log && value <= 0.0) {
                let name = if group.name.is_empty() { String::new() } else { format!("{}, ", group.name) };
                let tip = format!("{name}{category}: {}", axis::text(value));
                let at = y.at(value);
                canvas.rect(left + width * g as f32, at, width, frame.bottom - at, colour::series(g), tip);
            }
        }
        let (middle, half) = (frame.left + step * (i as f32 + 0.5), font::width(category, SMALL) / 2.0);
        if middle - half > free {
            canvas.text(middle, frame.bottom + 18.0, category, SMALL, INK, Anchor::Middle);
            free = middle + half + 6.0;
        }
    }
    canvas.x_label(&frame, &bars.x.label);
    canvas.axes(&frame);
    if legend_width(&names) > 0.0 {
        canvas.legend(&frame, &names, &styles, false);
    }
    Ok(canvas)
}

/// Draws bars between the edges of bins, on a numeric scale. The groups share each bin.
fn bins(canvas: &mut Canvas, figure: &Figure, bars: &Bars, frame: &Frame, y: &Scale) -> Result<()> {
    let edges = &bars.edges;
    let rise = edges.windows(2).all(|pair| pair[0] < pair[1]);
    if !rise
        || edges.iter().any(|edge| !edge.is_finite())
        || bars.groups.iter().any(|g| g.values.len() + 1 != edges.len())
    {
        let message = format!("bars \"{}\": edges must rise, one more than each group has values", figure.title);
        return Err(Error::bad_argument(message).hint("edges: [1.0, 2.0, 4.0], groups: [#{ values: [10.0, 5.0] }]"));
    }
    let ends = Axis { min: edges.first().copied(), max: edges.last().copied(), ..bars.x.clone() };
    let x = Scale::new(&ends, edges.iter().copied(), frame.left, frame.right).ok_or_else(|| empty(figure))?;
    canvas.x_axis(frame, &x, &bars.x.label);
    for (i, pair) in edges.windows(2).enumerate() {
        let (left, right) = (x.at(pair[0]), x.at(pair[1]));
        let width = ((right - left) * 0.92 / bars.groups.len().max(1) as f32).max(0.6);
        for (g, group) in bars.groups.iter().enumerate() {
            let value = group.values[i];
            if value.is_finite() && !(bars.y.log && value <= 0.0) {
                let name = if group.name.is_empty() { String::new() } else { format!("{}, ", group.name) };
                let tip = format!("{name}{} to {}: {}", axis::text(pair[0]), axis::text(pair[1]), axis::text(value));
                let at = y.at(value);
                let from = left + (right - left) * 0.04 + width * g as f32;
                canvas.rect(from, at, width, frame.bottom - at, colour::series(g), tip);
            }
        }
    }
    Ok(())
}
