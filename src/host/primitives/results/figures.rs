//! Primitives of figures: the data of figures (heat_map, layer_profile, magnitude_histogram) and
//! the figures themselves (svg, save_figure, sparkline, bar_chart).

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, INT, Map};

use super::files;
use crate::error::{Error, Result};
use crate::host::language::growth;
use crate::host::language::json::{record_to_dynamic, to_dynamic, to_json};
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::primitives::statistics::criteria::{PositionOptions, SkipPositions};
use crate::host::run::context::Context;
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions, register_with_options};
use crate::host::values::options::{Options, number};
use crate::plot::{self, Figure};
use crate::record::option::option_set;
use crate::record::option_types::Whole;
use crate::record::{Activations, HeatMap};
use crate::stats;
use crate::words::counted;

/// Columns of a heat map on a page.
const COLUMNS: usize = 256;
/// Columns of an interactive heat map.
const FINE_COLUMNS: usize = 1024;

/// The most characters of the longest bar of a chart.
const MAX_WIDTH: usize = 500;

/// Bytes of a shape in a figure without its texts, and of all shapes.
const SHAPE: usize = 120;
const MAX_FIGURE: usize = 512 << 20;

/// Keys that every figure has, and further keys of each kind.
const COMMON: [&str; 3] = ["kind", "title", "note"];
const KINDS: [(&str, &[&str]); 5] = [
    ("lines", &["x", "y", "series", "mark", "mark_label"]),
    ("points", &["x", "y", "series", "mark", "mark_label"]),
    ("bars", &["x", "y", "categories", "edges", "groups"]),
    ("intervals", &["x", "rows", "mark"]),
    ("heat_map", &["x", "y", "values", "columns", "value_label", "threshold"]),
];

option_set! {
    /// The options of heat_map.
    pub(crate) struct HeatMapOptions {
        /// columns that features are put together in
        columns: Whole = COLUMNS;
        skip_positions: SkipPositions;
    }
}

option_set! {
    /// The options of heat_map_data.
    pub(crate) struct FineHeatMapOptions {
        /// columns that features are put together in
        columns: Whole = FINE_COLUMNS;
        skip_positions: SkipPositions;
    }
}

pub(crate) const HEAT_MAP: Declared<HeatMapOptions> = Declared::new(
    "heat_map",
    &["heat_map(acts: activations, options?: map) -> map", "heat_map(stored: results, options?: map) -> map"],
    "Largest |x| by norm and column of features: values[norm][column], feature_dims, norms, features_per_column.",
    acts!("print(acts.heat_map(#{ columns: 32 }).values.len());"),
);

pub(crate) const HEAT_MAP_DATA: Declared<FineHeatMapOptions> = Declared::new(
    "heat_map_data",
    &["heat_map_data(acts: activations, options?: map) -> map", "heat_map_data(stored: results, options?: map) -> map"],
    "The same, fine and packed as base64 for a page to draw: one byte a cell on a logarithmic scale.",
    acts!("print(acts.heat_map_data().keys());"),
);

pub(crate) const LAYER_PROFILE: Declared<PositionOptions> = Declared::new(
    "layer_profile",
    &[
        "layer_profile(acts: activations, dims: array, options?: map) -> array",
        "layer_profile(stored: results, dims: array, options?: map) -> array",
    ],
    "Largest |x| of features in every norm, one row each.",
    acts!("print(acts.layer_profile([0, 1]).len());"),
);

pub(crate) const MAGNITUDE_HISTOGRAM: Declared<PositionOptions> = Declared::new(
    "magnitude_histogram",
    &[
        "magnitude_histogram(acts: activations, options?: map) -> array",
        "magnitude_histogram(stored: results, options?: map) -> array",
    ],
    "How many values lie between the rungs of the ladder.",
    acts!("print(acts.magnitude_histogram().len() > 0);"),
);

pub(crate) const SVG: Declared<NoOptions> = Declared::new(
    "svg",
    &["svg(figure: map) -> string"],
    "A figure as SVG text.",
    "let text = svg(#{ kind: \"bars\", title: \"Two\", categories: [\"a\", \"b\"], groups: [#{ values: [1.0, 2.0] }] });\nprint(text.len() > 0);",
);

pub(crate) const SAVE_FIGURE: Declared<NoOptions> = Declared::new(
    "save_figure",
    &["save_figure(path: string, figure: map) -> string"],
    "A figure as a file below results/, SVG or PNG by its name.",
    "save_figure(\"results/two.png\", #{\n    kind: \"bars\", title: \"Two\", categories: [\"a\", \"b\"], groups: [#{ values: [1.0, 2.0] }],\n});",
);

pub(crate) const SPARKLINE: Declared<NoOptions> = Declared::new(
    "sparkline",
    &["sparkline(values: array) -> string"],
    "One character per number, for a look in the terminal.",
    "print(sparkline([1.0, 5.0, 3.0]));",
);

pub(crate) const BAR_CHART: Declared<NoOptions> = Declared::new(
    "bar_chart",
    &["bar_chart(names: array, values: array, width: int) -> string"],
    "One bar per line, the longest so many characters wide.",
    "print(bar_chart([\"a\", \"b\"], [1.0, 2.0], 40));",
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    HEAT_MAP.register_on_records(engine, |acts, o| {
        stats::heat_map(acts, o.columns, o.skip_positions).map(|map| record_to_dynamic(&map))
    });
    HEAT_MAP_DATA.register_on_records(engine, |acts, o| {
        stats::heat_map(acts, o.columns, o.skip_positions).map(|map| to_dynamic(&packed(acts, &map)))
    });
    MAGNITUDE_HISTOGRAM.register_on_records(engine, |acts, o| {
        stats::magnitude_histogram(acts, o.skip_positions).map(|bins| record_to_dynamic(&bins))
    });
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
    engine.register_fn(SVG.name(), |figure: Map| thrown(read(figure).and_then(|figure| plot::svg(&figure))));
    let c = context.clone();
    engine.register_fn(SAVE_FIGURE.name(), move |path: &str, figure: Map| thrown(save(&c, path, figure)));
    engine.register_fn(SPARKLINE.name(), |values: Array| plot::sparkline(&numbers(&values)));
    engine.register_fn(BAR_CHART.name(), |names: Array, values: Array, width: INT| -> ScriptResult<String> {
        let names: Vec<String> = names.iter().map(Dynamic::to_string).collect();
        let width = thrown(bars(&names, &values, width))?;
        // Names are padded to the widest, and a part of a bar has three bytes.
        let line = names.iter().map(String::len).max().unwrap_or(0) + 3 * width + 32;
        growth::fits(line.saturating_mul(names.len()))?;
        Ok(plot::bar_chart(&names, &numbers(&values), width))
    });
}

fn register_for<T: RecordHandle>(engine: &mut Engine) {
    register_with_options!(engine, LAYER_PROFILE, |handle: T, dims: Array; options| {
        layer_profile(handle.activations(), &dims, options.skip_positions)
    });
}

/// A value that is not a number is a gap.
/// The width of a chart of bars.
///
/// # Errors
/// If it is none, or if there is not one value for each name.
fn bars(names: &[String], values: &Array, width: INT) -> Result<usize> {
    if names.len() != values.len() {
        let message = format!("bar_chart: {} and {}", counted(names.len(), "name"), counted(values.len(), "value"));
        return Err(Error::bad_argument(message).hint("give one value for each name"));
    }
    if let Some(index) = values.iter().position(|value| number(value).is_none() && !value.is_unit()) {
        let message = format!("bar_chart: values[{index}] is {:?}, expected a number", values[index].to_string());
        return Err(Error::bad_argument(message).hint("() stands for a value that is missing"));
    }
    let most = 1..=MAX_WIDTH;
    usize::try_from(width).ok().filter(|width| most.contains(width)).ok_or_else(|| {
        let message = format!("bar_chart: the width is {width}, expected 1 to {MAX_WIDTH}");
        Error::bad_argument(message).hint("the longest bar is so many characters wide")
    })
}

fn numbers(values: &Array) -> Vec<f64> {
    values.iter().map(|value| number(value).unwrap_or(f64::NAN)).collect()
}

fn read(figure: Map) -> Result<Figure> {
    let kinds = || KINDS.iter().map(|(kind, _)| *kind);
    let given = figure.get("kind").map(Dynamic::to_string).unwrap_or_default();
    let Some((_, own)) = KINDS.iter().find(|(kind, _)| *kind == given) else {
        return Err(Error::bad_argument(format!("svg: no figure of the kind {given:?}"))
            .hint(crate::suggest::hint(&given, kinds())));
    };
    let known: Vec<&'static str> = COMMON.iter().chain(own.iter()).copied().collect();
    Options::new("svg", figure.clone(), &known)?;
    // Missing values are left out of a figure.
    let mut json = to_json(&figure.into())?;
    strip(&mut json);
    let (values, longest) = extent(&json);
    if values.saturating_mul(longest + SHAPE) > MAX_FIGURE {
        let message = format!("svg: a figure of {values} values with texts of up to {longest} bytes");
        return Err(Error::bad_argument(message).hint("show fewer values, or shorter texts"));
    }
    serde_json::from_value(json).map_err(|e| {
        Error::bad_argument(format!("svg: this is no figure of the kind {given:?}: {e}"))
            .hint("docs/figures.md shows every kind with an example")
    })
}

/// Number of values and length of the longest text, which tooltips of shapes repeat.
fn extent(json: &serde_json::Value) -> (usize, usize) {
    let both = |(values, longest): (usize, usize), other: (usize, usize)| (values + other.0, longest.max(other.1));
    match json {
        serde_json::Value::Object(map) => map.values().map(extent).fold((0, 0), both),
        serde_json::Value::Array(items) => items.iter().map(extent).fold((0, 0), both),
        serde_json::Value::String(text) => (1, text.len()),
        _ => (1, 0),
    }
}

/// Removes null: a bound, a label, or a whole point without a value.
fn strip(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip);
        }
        serde_json::Value::Array(items) => {
            let whole = |item: &serde_json::Value| match item {
                serde_json::Value::Null => false,
                serde_json::Value::Object(map) => {
                    !["x", "y", "value"].iter().any(|key| map.get(*key).is_some_and(|v| v.is_null()))
                }
                _ => true,
            };
            items.retain(whole);
            items.iter_mut().for_each(strip);
        }
        _ => (),
    }
}

fn save(context: &Context, path: &str, figure: Map) -> Result<String> {
    let figure = read(figure)?;
    let bytes = match path.rsplit('.').next() {
        Some("svg") => plot::svg(&figure)?.into_bytes(),
        Some("png") => plot::png(&figure)?,
        _ => {
            return Err(Error::bad_argument(format!("save_figure: \"{path}\" is neither .svg nor .png"))
                .hint("name the file results/figures/heat.svg or .png"));
        }
    };
    files::write(context, "save_figure", path, &bytes)
}

/// 255 logarithmic steps from a hundredth of the largest value up. 0 is any smaller value.
const RANGE: f64 = 100.0;

fn packed(acts: &Activations, map: &HeatMap) -> serde_json::Value {
    let largest = map.values.iter().flatten().fold(0f32, |largest, value| largest.max(*value));
    let lowest = f64::from(largest) / RANGE;
    let byte = |value: &f32| match f64::from(*value) > lowest && lowest > 0.0 {
        true => (1.0 + 254.0 * (f64::from(*value) / lowest).ln() / RANGE.ln()).round().clamp(1.0, 255.0) as u8,
        false => 0,
    };
    let values: Vec<u8> = map.values.iter().flatten().map(byte).collect();
    // The offset within its column. A page has at most 256 features per column.
    let offset = |(i, dim): (usize, &u32)| (*dim as usize - i * map.features_per_column).min(255) as u8;
    let offsets: Vec<u8> = map.feature_dims.iter().flat_map(|row| row.iter().enumerate().map(offset)).collect();
    serde_json::json!({
        "norms": map.norms,
        "columns": map.values.first().map_or(0, Vec::len),
        "features_per_column": map.features_per_column,
        "hidden_size": map.hidden_size,
        "lowest": lowest,
        "range": RANGE,
        "model": acts.model.id,
        "values": base64(&values),
        "offsets": if map.features_per_column > 1 { base64(&offsets) } else { String::new() },
    })
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for digit in 0..4 {
            let padding = digit > three.len();
            text.push(if padding { '=' } else { DIGITS[(word >> (18 - 6 * digit) & 63) as usize] as char });
        }
    }
    text
}

fn layer_profile(acts: &Activations, dims: &Array, skip_positions: usize) -> Result<Dynamic> {
    let dim = |dim: &Dynamic| {
        dim.as_int().ok().and_then(|dim| usize::try_from(dim).ok()).ok_or_else(|| {
            Error::bad_argument(format!("layer_profile: {dim} is not a feature")).hint("give an array of numbers")
        })
    };
    let dims = dims.iter().map(dim).collect::<Result<Vec<_>>>()?;
    stats::layer_profile(acts, &dims, skip_positions).map(|rows| record_to_dynamic(&rows))
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (text, want) in cases {
            assert_eq!(base64(text.as_bytes()), want);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
