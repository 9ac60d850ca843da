//! Renders figures from data as SVG text or PNG bytes, and charts in plain text for the terminal.
//!
//! A figure is laid out once as a list of shapes (`canvas`), which `svg` writes and `png` paints,
//! so both look the same. Colours are those of Okabe & Ito (2008), which colour-blind people can
//! distinguish. Series differ in marker and dash as well, for print without colour. The font is
//! embedded, so the result does not depend on the machine.

mod axis;
mod bars;
mod canvas;
mod colour;
mod figure;
mod font;
mod heat;
mod intervals;
mod png;
mod svg;
mod terminal;
mod xy;

pub use figure::{Axis, Bars, Figure, Group, HeatMap, Interval, Intervals, Kind, Point, Series, Xy};
pub use terminal::{bar_chart, sparkline};

use crate::error::Result;

/// The pixels of a PNG per unit of a figure, for sharp print at the width of a column.
const SCALE: f32 = 2.0;

/// Renders the figure as SVG.
pub fn svg(figure: &Figure) -> Result<String> {
    Ok(svg::write(&layout(figure)?))
}

/// Renders the figure as PNG.
pub fn png(figure: &Figure) -> Result<Vec<u8>> {
    png::paint(&layout(figure)?, SCALE)
}

fn layout(figure: &Figure) -> Result<canvas::Canvas> {
    match &figure.kind {
        Kind::Lines(xy) => xy::layout(figure, xy, true),
        Kind::Points(xy) => xy::layout(figure, xy, false),
        Kind::Bars(bars) => bars::layout(figure, bars),
        Kind::Intervals(intervals) => intervals::layout(figure, intervals),
        Kind::HeatMap(map) => heat::layout(figure, map),
    }
}

#[cfg(test)]
mod tests;
