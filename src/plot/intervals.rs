//! A chart of values with their intervals, one row each, such as a comparison of models.

use super::axis::{self, Scale};
use super::canvas::{Anchor, Canvas, DASHES, Frame, SMALL, legend_width};
use super::colour::{self, FAINT, INK};
use super::figure::{Figure, Intervals, empty};
use super::font;
use crate::error::Result;

const ROW: f32 = 30.0;
/// More rows than this do not fit on a page. A pass has no more lanes.
const MAX_ROWS: usize = 64;

pub(super) fn layout(figure: &Figure, intervals: &Intervals) -> Result<Canvas> {
    let rows = &intervals.rows[..intervals.rows.len().min(MAX_ROWS)];
    let mut groups: Vec<String> = Vec::new();
    let mut styles: Vec<usize> = Vec::new();
    for row in rows {
        if !groups.contains(&row.group) {
            styles.push(row.style.unwrap_or(groups.len()));
            groups.push(row.group.clone());
        }
    }
    let (mut canvas, top) = Canvas::new(figure, 190.0 + ROW * rows.len() as f32);
    let names = rows.iter().map(|row| font::width(&row.name, SMALL)).fold(60.0, f32::max).min(300.0);
    let right = canvas.width - 28.0 - legend_width(&groups);
    let bottom = top + ROW * rows.len() as f32;
    canvas.height = bottom + 66.0;
    let frame = Frame { left: names + 36.0, top, right, bottom };
    let values = rows.iter().flat_map(|row| [Some(row.value), row.low, row.high]).flatten();
    let values = values.chain(intervals.mark);
    let x = Scale::new(&intervals.x, values, frame.left, frame.right).ok_or_else(|| empty(figure))?;
    canvas.x_axis(&frame, &x, &intervals.x.label);
    if let Some(mark) = intervals.mark {
        let at = x.at(mark);
        canvas.line(&[(at, frame.top), (at, frame.bottom)], FAINT, 1.5, DASHES[1]);
    }
    for (i, row) in rows.iter().enumerate() {
        let y = frame.top + ROW * (i as f32 + 0.5);
        let style = styles[groups.iter().position(|group| *group == row.group).unwrap_or(0)];
        let colour = colour::series(style);
        canvas.text(frame.left - 10.0, y + 4.0, &font::fit(&row.name, SMALL, 300.0), SMALL, INK, Anchor::End);
        let mut tip = format!("{}: {}", row.name, axis::text(row.value));
        if let (Some(low), Some(high)) = (row.low, row.high) {
            let (from, to) = (x.at(low), x.at(high));
            canvas.line(&[(from, y), (to, y)], colour, 2.4, DASHES[0]);
            for end in [from, to] {
                canvas.line(&[(end, y - 5.0), (end, y + 5.0)], colour, 1.8, DASHES[0]);
            }
            tip += &format!(" [{}, {}]", axis::text(low), axis::text(high));
        }
        if row.value.is_finite() {
            canvas.marker(style, x.at(row.value), y, 6.0, colour, tip);
        }
    }
    canvas.axes(&frame);
    if legend_width(&groups) > 0.0 {
        canvas.legend(&frame, &groups, &styles, false);
    }
    Ok(canvas)
}
