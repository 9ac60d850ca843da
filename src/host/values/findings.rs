//! What `detect_outliers` and `bootstrap_ci` give to a script: handles that read like maps, and
//! that say in a sentence and a table what was found.

use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::grid::Grid;
use super::option_types::ReadOption;
use super::options::Options;
use super::readable::{Readable, register_as_map, register_handle};
use crate::error::{Error, Result};
use crate::host::language::json::to_json;
use crate::record::option::OptionType;
use crate::record::{
    Activations, Answer, Bootstrap, Criterion, Detection, Interval, LayerUnit, Method, Site, field, plain,
};
use crate::stats::Found;
use crate::words::{counted, in_lines, rounded};

/// The largest number of features in a printed table.
const MOST_FEATURES: usize = 20;

#[derive(Clone)]
pub(crate) struct DetectionHandle(Arc<Found>);

impl DetectionHandle {
    pub(crate) fn new(found: Arc<Detection>) -> Self {
        Self::of(Found::Whole(found))
    }

    pub(crate) fn of(found: Found) -> Self {
        Self(Arc::new(found))
    }

    pub(crate) fn whole(&self) -> &Arc<Detection> {
        self.0.whole()
    }
}

#[derive(Clone)]
pub(crate) struct BootstrapHandle {
    intervals: Arc<Bootstrap>,
    /// The site of the record, whose layers were counted.
    site: Option<Site>,
}

impl BootstrapHandle {
    /// The intervals of features of `acts`.
    pub(crate) fn new(intervals: Arc<Bootstrap>, acts: &Activations) -> Self {
        Self { intervals, site: acts.norms.first().map(|norm| norm.site) }
    }
}

pub(crate) fn register(engine: &mut Engine) {
    register_handle::<DetectionHandle>(engine);
    register_as_map::<DetectionHandle>(engine);
    register_handle::<BootstrapHandle>(engine);
    register_as_map::<BootstrapHandle>(engine);
}

/// An option that is a detection: its handle, or a map with its fields, as a script may have read
/// it from a file.
pub(crate) struct FoundOption;

impl OptionType for FoundOption {
    type Value = Arc<Detection>;

    fn kind() -> String {
        DetectionHandle::NAME.to_string()
    }

    fn literal(_: &Arc<Detection>) -> String {
        String::new()
    }
}

impl ReadOption for FoundOption {
    fn read(o: &Options, key: &str) -> Result<Option<Arc<Detection>>> {
        o.any(key, detection)
    }
}

/// An option that is what `bootstrap_ci` returned, or a map with its fields.
pub(crate) struct IntervalsOption;

impl OptionType for IntervalsOption {
    type Value = Arc<Bootstrap>;

    fn kind() -> String {
        BootstrapHandle::NAME.to_string()
    }

    fn literal(_: &Arc<Bootstrap>) -> String {
        String::new()
    }
}

impl ReadOption for IntervalsOption {
    fn read(o: &Options, key: &str) -> Result<Option<Arc<Bootstrap>>> {
        o.any(key, |given, what| match given.read_lock::<BootstrapHandle>() {
            Some(handle) => Ok(handle.intervals.clone()),
            None => of_map(given, what, "what bootstrap_ci returned"),
        })
    }
}

/// A detection that a script passes to a primitive: a handle, or a map with its fields.
///
/// # Errors
/// `bad_argument` if it is neither; `what` names the argument.
pub(crate) fn detection(value: &Dynamic, what: &str) -> Result<Arc<Detection>> {
    match value.read_lock::<DetectionHandle>() {
        Some(handle) => Ok(handle.whole().clone()),
        None => of_map(value, what, "what detect_outliers returned"),
    }
}

fn of_map<T: DeserializeOwned>(value: &Dynamic, what: &str, expected: &str) -> Result<Arc<T>> {
    let wrong = |why: String| Error::bad_argument(format!("{what} is not {expected}: {why}")).hint("pass it unchanged");
    if !value.is::<Map>() {
        return Err(wrong(format!("it is {}", value.type_name())));
    }
    of_json(&to_json(value)?).map(Arc::new).map_err(wrong)
}

/// A record from a map. The error names the field that is wrong.
fn of_json<T: DeserializeOwned>(json: &Value) -> std::result::Result<T, String> {
    let fields = json.as_object().into_iter().flatten();
    // Each field has a line, and an error of the parser has the number of its line.
    let lines: Vec<String> = fields.clone().map(|(name, value)| format!("{}: {value}", Value::from(&**name))).collect();
    serde_json::from_str(&format!("{{\n{}\n}}", lines.join(",\n"))).map_err(|error| {
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or_default();
        match error.line().checked_sub(2).and_then(|line| fields.clone().nth(line)) {
            Some((name, _)) => format!("its `{name}`: {why}"),
            _ => why.to_string(),
        }
    })
}

/// The fields that the bounds of an answer may leave open. Together they are the field `certain`:
/// what holds in any case.
const CERTAIN: [&str; 3] = ["num_features", "features", "classification"];

/// True if the bounds of an answer leave open which features pass.
fn is_open(found: &Detection) -> bool {
    found.bracket.as_ref().is_some_and(|bracket| bracket.num_features_high > found.num_features)
}

impl Readable for DetectionHandle {
    const NAME: &'static str = "detection";

    fn json(&self) -> Value {
        plain(&**self.whole())
    }

    fn field(&self, name: &str) -> Option<Value> {
        if let Some(known) = self.0.brief().and_then(|brief| field(brief, name)) {
            return Some(known);
        }
        let found = &**self.whole();
        match (field(found, name), name) {
            // An exact answer has none.
            (None, "bracket") => Some(Value::Null),
            (None, "certain") => CERTAIN.iter().map(|key| Some((key.to_string(), field(found, key)?))).collect(),
            (field, _) => field,
        }
    }

    fn refused(&self, name: &str) -> Option<Error> {
        if self.0.brief().is_some() {
            return None;
        }
        let found = &**self.whole();
        let bracket = found.bracket.as_ref().filter(|_| CERTAIN.contains(&name) && is_open(found))?;
        let (threshold, least) = (found.criterion.magnitude_threshold, found.num_features);
        let lies = match (bracket.rung_below, bracket.rung_above) {
            (Some(below), Some(above)) => format!("between the rungs {below:?} and {above:?}"),
            (Some(highest), None) => format!("above the highest rung, {highest:?},"),
            (None, lowest) => format!("below the lowest rung, {:?},", lowest.unwrap_or_default()),
        };
        let most = counted(bracket.num_features_high, "feature");
        let message = format!(
            "`{name}` is not known: `magnitude_threshold` {threshold:?} lies {lies} of this record, where at least {least} and at \
             most {most} can pass"
        );
        Some(Error::bad_argument(message).hint(format!(
            "found.certain.{name} is what holds in any case, and found.bracket what is possible; or take a rung, or extract again \
             with `thresholds: [{threshold:?}]`"
        )))
    }

    fn line(&self) -> String {
        let found = &**self.whole();
        let most = found.bracket.as_ref().map(|bracket| bracket.num_features_high);
        let count = match (found.answer, most) {
            (Answer::Bracketed, Some(most)) => {
                format!("at least {} and at most {}", found.num_features, counted(most, "outlier feature"))
            }
            _ if found.num_features == 0 => "no outlier feature".to_string(),
            _ => counted(found.num_features, "outlier feature"),
        };
        let units = match found.criterion.layer_unit {
            LayerUnit::Norm => counted(found.num_norms, found.layer_unit()),
            LayerUnit::Block => counted(found.num_blocks, found.layer_unit()),
        };
        let class = match found.bracket.as_ref().map(|bracket| bracket.classification_high) {
            Some(high) if high != found.classification => {
                format!("{} or {}", found.classification.name(), high.name())
            }
            _ => found.classification.name().to_string(),
        };
        let positions = counted(usize::try_from(found.num_positions).unwrap_or(usize::MAX), "position");
        let asked = match found.criterion.own {
            Some(_) => format!("{}, over {units} and {positions}", asked(&found.criterion)),
            None => {
                let share = percent(found.criterion.min_seq_percentage);
                format!("{} of {units} and {share} of {positions}", asked(&found.criterion))
            }
        };
        format!("{count} ({class}): {asked}; the largest |x| is {}", rounded(found.max_magnitude.into(), 2))
    }

    fn shown(&self, width: Option<usize>) -> String {
        let found = &**self.whole();
        let by_sequence = found.features.iter().any(|feature| feature.sequence.is_some());
        let block = found.criterion.layer_unit == LayerUnit::Block;
        let mut columns = vec!["feature_dim", "class", layer_shares(found.layer_unit())];
        columns.extend(["% of positions", "max |x|", "from", "to", "hits"]);
        if by_sequence {
            columns.insert(1, "sequence");
        }
        let rows = found.features.iter().map(|feature| {
            let layers = if block { feature.layer_percentage_blocks } else { feature.layer_percentage };
            let mut row = vec![feature.feature_dim.to_string(), feature.classification.name().to_string()];
            row.extend([layers, feature.seq_percentage].map(|share| rounded(100.0 * share, 1)));
            row.extend([feature.max_magnitude, feature.min_value, feature.max_value].map(|x| rounded(x.into(), 2)));
            row.push(feature.total_occurrences.to_string());
            if by_sequence {
                row.insert(1, feature.sequence.map_or_else(String::new, |sequence| sequence.to_string()));
            }
            row
        });
        below(&self.line(), &columns, rows, width)
    }
}

impl Readable for BootstrapHandle {
    const NAME: &'static str = "intervals";

    fn json(&self) -> Value {
        plain(&*self.intervals)
    }

    fn field(&self, name: &str) -> Option<Value> {
        field(&*self.intervals, name)
    }

    fn line(&self) -> String {
        let b = &*self.intervals;
        let count = interval(&b.num_features, 1.0, 0);
        let method = match b.args.method {
            Method::Percentile => "percentile",
            Method::Bca => "BCa",
        };
        format!(
            "{count} outlier features at {}; {} in {} of resamples ({} intervals by {method}, {} resamples of {})",
            asked(&b.criterion),
            b.classification.name(),
            percent(b.classification_held),
            percent(b.args.confidence_level),
            b.args.n_resamples,
            counted(b.num_sequences, "sequence")
        )
    }

    fn shown(&self, width: Option<usize>) -> String {
        let found = &*self.intervals;
        let columns = [
            "feature_dim",
            "class",
            layer_shares(found.criterion.layer_unit.counted(self.site)),
            "% of positions",
            "max |x|",
            "% of resamples that pass",
        ];
        let rows = found.features.iter().map(|feature| {
            vec![
                feature.feature_dim.to_string(),
                feature.classification.name().to_string(),
                interval(&feature.layer_percentage, 100.0, 1),
                interval(&feature.seq_percentage, 100.0, 1),
                interval(&feature.max_magnitude, 1.0, 2),
                rounded(100.0 * feature.passed, 1),
            ]
        });
        below(&self.line(), &columns, rows, width)
    }
}

/// The column of layer shares that count `unit`.
fn layer_shares(unit: &str) -> &'static str {
    if unit == "norm" { "% of norms" } else { "% of layers" }
}

/// The sentence with the table of features below it.
fn below(
    line: &str,
    columns: &[&str],
    rows: impl ExactSizeIterator<Item = Vec<String>>,
    width: Option<usize>,
) -> String {
    let mut text = in_lines(line, width);
    let more = rows.len().saturating_sub(MOST_FEATURES);
    let rows: Vec<Vec<String>> = rows.take(MOST_FEATURES).collect();
    if !rows.is_empty() {
        let numbers = (0..columns.len()).filter(|column| columns[*column] != "class");
        let columns = columns.iter().map(ToString::to_string).collect();
        text = format!("{text}\n{}", Grid::new(columns, rows).right(numbers).drawn(width));
    }
    if more > 0 {
        text = format!("{text}\nand {more} more: `features` has all of them");
    }
    text
}

/// A criterion without its limit of positions.
fn asked(criterion: &Criterion) -> String {
    if let Some(own) = &criterion.own {
        return format!("|x| ≥ {} and {own}", criterion.magnitude_threshold);
    }
    format!("|x| ≥ {} in {}", criterion.magnitude_threshold, percent(criterion.min_layer_percentage))
}

/// A share as a percentage with as many decimals as it needs, at most one.
fn percent(share: f64) -> String {
    let text = rounded(100.0 * share, 1);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// A point estimate with its interval: `3 [2, 4]`.
fn interval(interval: &Interval, factor: f64, digits: usize) -> String {
    let [value, low, high] = [interval.value, interval.low, interval.high].map(|x| rounded(factor * x, digits));
    format!("{value} [{low}, {high}]")
}
