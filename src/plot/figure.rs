//! The figures that can be drawn, as plain data.

use serde::{Deserialize, Serialize};

use crate::error::Error;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub title: String,
    /// Small print below the title, such as definitions and sources.
    #[serde(default)]
    pub note: String,
    #[serde(flatten)]
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Series of points joined by lines.
    Lines(Xy),
    /// Points, with intervals and names.
    Points(Xy),
    Bars(Bars),
    /// Values with intervals, one row each.
    Intervals(Intervals),
    HeatMap(HeatMap),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    #[serde(default)]
    pub label: String,
    #[serde(default)]
    pub log: bool,
    /// The ends of the axis. Without them, the axis follows the data.
    #[serde(default)]
    pub min: Option<f64>,
    #[serde(default)]
    pub max: Option<f64>,
    /// The values are counts, so ticks are whole numbers.
    #[serde(default)]
    pub whole: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Xy {
    #[serde(default)]
    pub x: Axis,
    #[serde(default)]
    pub y: Axis,
    pub series: Vec<Series>,
    /// The height of a horizontal line, such as a threshold. Its name is `mark_label`.
    #[serde(default)]
    pub mark: Option<f64>,
    #[serde(default)]
    pub mark_label: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    #[serde(default)]
    pub name: String,
    /// The index of its colour, marker and dash. By default this is its index among the series.
    #[serde(default)]
    pub style: Option<usize>,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    pub x: f64,
    /// NaN, which is null in JSON and `()` in a script, leaves a gap in a line.
    #[serde(deserialize_with = "or_gap")]
    pub y: f64,
    #[serde(default)]
    pub low: Option<f64>,
    #[serde(default)]
    pub high: Option<f64>,
    #[serde(default)]
    pub label: String,
}

fn or_gap<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

/// Groups of bars side by side, with one bar of each group at every category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bars {
    #[serde(default)]
    pub x: Axis,
    #[serde(default)]
    pub y: Axis,
    #[serde(default)]
    pub categories: Vec<String>,
    /// Edges of bins, in place of categories: one more than each group has values. A bar is as wide
    /// as its bin.
    #[serde(default)]
    pub edges: Vec<f64>,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[serde(default)]
    pub name: String,
    pub values: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    #[serde(default)]
    pub x: Axis,
    pub rows: Vec<Interval>,
    /// The place of a vertical line, such as 1 where ratios are drawn.
    #[serde(default)]
    pub mark: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub name: String,
    pub value: f64,
    #[serde(default)]
    pub low: Option<f64>,
    #[serde(default)]
    pub high: Option<f64>,
    /// Rows of a group share a colour and marker, and the legend names the group.
    #[serde(default)]
    pub group: String,
    /// The index of the colour and marker of its group. By default this is the index of the group.
    #[serde(default)]
    pub style: Option<usize>,
}

/// Values by row and column. The first row is at the top.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    #[serde(default)]
    pub x: Axis,
    #[serde(default)]
    pub y: Axis,
    pub values: Vec<Vec<f64>>,
    /// The number of the first column, and that after the last one, for the ticks.
    #[serde(default)]
    pub columns: Option<[f64; 2]>,
    /// The label of the colour scale.
    #[serde(default)]
    pub value_label: String,
    /// The value at which the colours change from cold to warm.
    #[serde(default)]
    pub threshold: Option<f64>,
}

/// The error for a figure without data. An empty picture would hide the caller's mistake.
pub(super) fn empty(figure: &Figure) -> Error {
    Error::bad_argument(format!("figure \"{}\" has nothing to draw", figure.title))
        .hint("give at least one finite value")
}
