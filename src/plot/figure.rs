//! What can be drawn, as plain data.

use serde::{Deserialize, Serialize};

use crate::error::Error;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub title: String,
    /// Small print below the title: definitions, sources.
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
    /// Ends of the axis, where it is not to follow the data.
    #[serde(default)]
    pub min: Option<f64>,
    #[serde(default)]
    pub max: Option<f64>,
    /// Counts: ticks are whole numbers.
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
    /// A horizontal line with its name: a threshold, say.
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
    /// Which colour, marker and dash it has; its place among the series where nothing is said.
    #[serde(default)]
    pub style: Option<usize>,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    #[serde(default)]
    pub low: Option<f64>,
    #[serde(default)]
    pub high: Option<f64>,
    #[serde(default)]
    pub label: String,
}

/// Groups of bars side by side: one bar of each group at every category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bars {
    #[serde(default)]
    pub x: Axis,
    #[serde(default)]
    pub y: Axis,
    #[serde(default)]
    pub categories: Vec<String>,
    /// Ends of bins, in place of categories: one more than each group has values. A bar is as wide as its bin.
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
    /// Rows of a group have its colour and marker, and the legend names it.
    #[serde(default)]
    pub group: String,
    /// Which colour and marker its group has; the place of the group where nothing is said.
    #[serde(default)]
    pub style: Option<usize>,
}

/// Values by row and column; rows from top to bottom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    #[serde(default)]
    pub x: Axis,
    #[serde(default)]
    pub y: Axis,
    pub values: Vec<Vec<f64>>,
    /// Number of the first and of one behind the last column, for the ticks.
    #[serde(default)]
    pub columns: Option<[f64; 2]>,
    /// What a value is.
    #[serde(default)]
    pub value_label: String,
    /// Where the colours change from cold to warm.
    #[serde(default)]
    pub threshold: Option<f64>,
}

/// Nothing to draw is a mistake of the caller, and not an empty picture.
pub(super) fn empty(figure: &Figure) -> Error {
    Error::bad_argument(format!("figure \"{}\" has nothing to draw", figure.title))
        .hint("give at least one finite value")
}
