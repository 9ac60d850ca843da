//! Checks whether the answers of an analysis are those that its record gives. A new threshold needs
//! no model, so an answer need not be trusted: it is computed again from the record, when it is
//! saved and when it is loaded.
//!
//! Numbers are compared except for the last digits, which reading decimal numbers may change.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::analysis::Analysis;
use super::answers::of_record;
use crate::error::{Error, Result};
use crate::outside::json;
use crate::plain::plain as on_one_line;
use crate::record::{Activations, Answer, Bootstrap, Criterion, Detection, Scope, plain};
use crate::stats;

/// The largest number of characters of the words for a function.
const WORDS: usize = 100;
/// Two numbers whose difference is less than this share of the larger are equal.
const NEAR: f64 = 1e-9;

/// One value that differs from the expected one.
struct Difference {
    /// The path of the value, such as "features[0].max_magnitude".
    path: String,
    given: String,
    expected: String,
}

/// The first difference between two values, in the order of `expected`.
fn difference(given: &Value, expected: &Value, path: &str) -> Option<Difference> {
    let differs = |given: String, expected: String| Some(Difference { path: path.to_string(), given, expected });
    match (given, expected) {
        (Value::Number(one), Value::Number(other)) => {
            let (x, y) = (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
            let near = x == y || (x - y).abs() <= NEAR * x.abs().max(y.abs());
            if near { None } else { differs(one.to_string(), other.to_string()) }
        }
        (Value::Array(one), Value::Array(other)) if one.len() != other.len() => {
            let entries = |list: &[Value]| format!("a list of {}", list.len());
            differs(entries(one), entries(other))
        }
        (Value::Array(one), Value::Array(other)) => one
            .iter()
            .zip(other)
            .enumerate()
            .find_map(|(i, (one, other))| difference(one, other, &format!("{path}[{i}]"))),
        (Value::Object(one), Value::Object(other)) => {
            let inside = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            let keys = other.keys().chain(one.keys().filter(|key| !other.contains_key(*key)));
            // A number is reported before the lists that it summarises.
            let is_part = |key: &&String| other.get(*key).is_some_and(|value| value.is_array() || value.is_object());
            let (rest, scalars): (Vec<&String>, Vec<&String>) = keys.partition(is_part);
            scalars.into_iter().chain(rest).find_map(|key| {
                let missing = &Value::Null;
                difference(one.get(key).unwrap_or(missing), other.get(key).unwrap_or(missing), &inside(key))
            })
        }
        (one, other) if one == other => None,
        (one, other) => differs(json::shown(one), json::shown(other)),
    }
}

/// The options in which two criteria differ: the name and both values.
fn options_that_differ(one: &Criterion, other: &Criterion) -> Vec<(String, Value, Value)> {
    let (Value::Object(one), Value::Object(other)) = (plain(one), plain(other)) else { return Vec::new() };
    // A criterion with limits has no words for a function.
    let of = |map: &Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or(Value::Null);
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    let both = keys.map(|key| (key.clone(), of(&one, key), of(&other, key)));
    both.filter(|(_, one, other)| one != other).collect()
}

/// Checks that findings and intervals have the same criterion.
///
/// # Errors
/// The error names the options that differ, and the correction.
pub fn check_criteria(found: &Detection, intervals: &Bootstrap) -> Result<()> {
    let options = options_that_differ(&found.criterion, &intervals.criterion);
    if options.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = options
        .iter()
        .map(|(key, found, intervals)| format!("`{key}` is {found} in `found` and {intervals} in `intervals`"))
        .collect();
    let threshold = found.criterion.magnitude_threshold;
    let hint = if found.criterion.scope == Scope::PerSequence {
        "intervals are over sequences, and so of `scope: \"pooled\"`: save pooled findings, or leave `intervals` out"
            .to_string()
    } else if found.answer == Answer::Bracketed {
        format!(
            "intervals take rungs of the ladder only: leave `intervals` out, or extract with `thresholds: [{threshold:?}]`"
        )
    } else {
        let given: Vec<String> = options.iter().map(|(key, found, _)| format!("{key}: {found}")).collect();
        format!("write bootstrap_ci(#{{ {} }}), with all options that detect_outliers had", given.join(", "))
    };
    Err(Error::bad_argument(format!("`found` and `intervals` are of two criteria: {}", said.join(", "))).hint(hint))
}

/// Checks that these activations give the findings and intervals.
///
/// # Errors
/// The error names the first difference.
pub(super) fn check(acts: &Activations, analysis: &Analysis) -> Result<()> {
    let Analysis { found, intervals, .. } = analysis;
    let refused = |key: &str, made_by: &str, Difference { path, given, expected }: Difference| {
        Error::bad_argument(format!(
            "`{key}` is not what these activations give: its `{path}` is {given}, and they give {expected}"
        ))
        .hint(format!("pass what {made_by} of the same activations has returned, unchanged"))
    };
    let again = of_record(acts, found, &found.criterion)?;
    if let Some(differs) = difference(&plain(found), &plain(&again), "") {
        return Err(refused("found", "detect_outliers", differs));
    }
    let Some(intervals) = intervals else { return Ok(()) };
    check_criteria(found, intervals)?;
    if found.criterion.own.is_some() {
        // The function is not here to be asked about resamples.
        return match point_values_differ(found, intervals) {
            true => Err(Error::bad_argument("`intervals` are not of what was found: their features are others")
                .hint("pass what bootstrap_ci of the same activations and the same function has returned, unchanged")),
            false => Ok(()),
        };
    }
    let again = stats::bootstrap(acts, &intervals.criterion, &intervals.args)?;
    match difference(&plain(intervals), &plain(&again), "") {
        Some(differs) => Err(refused("intervals", "bootstrap_ci", differs)),
        None => Ok(()),
    }
}

/// SHA-256 of findings and intervals as they are parsed. It shows whether they have been changed in
/// their file.
pub(super) fn seal(found: &Detection, intervals: Option<&Bootstrap>) -> String {
    let text = serde_json::to_vec(&(found, intervals)).expect("results are JSON");
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same hash for an analysis that is about to be written.
pub(super) fn seal_of_new(analysis: &Analysis) -> Result<String> {
    let text = serde_json::to_vec(&(plain(&analysis.found), &analysis.intervals)).expect("results are JSON");
    let (found, intervals): (Detection, Option<Bootstrap>) =
        serde_json::from_slice(&text).map_err(|e| Error::corrupt(format!("what is saved cannot be read: {e}")))?;
    Ok(seal(&found, intervals.as_ref()))
}

/// The answers of a stored analysis, if its record gives them, and otherwise those of the record.
pub(super) struct Settled {
    pub found: Detection,
    pub intervals: Option<Bootstrap>,
    /// A description of the values that were changed in the file.
    pub changed: Option<String>,
}

/// Checks a stored analysis against its record. `sealed`: whether the file's own hash matches; None
/// if it has no hash.
///
/// # Errors
/// The stored criterion cannot be applied to the record.
pub(super) fn settle(
    acts: &Activations,
    mut found: Detection,
    mut intervals: Option<Bootstrap>,
    sealed: Option<bool>,
) -> Result<Settled> {
    // The words for a function are shown on terminals.
    let criteria = intervals.iter_mut().map(|intervals| &mut intervals.criterion).chain([&mut found.criterion]);
    for own in criteria.filter_map(|criterion| criterion.own.as_mut()) {
        *own = on_one_line(own, WORDS);
    }
    let again = of_record(acts, &found, &found.criterion)?;
    let own = found.criterion.own.is_some();
    let mut changed = difference(&plain(&found), &plain(&again), "").map(|Difference { path, given, expected }| {
        format!("`{path}` of what was found is {given} in it, and the record gives {expected}")
    });
    // Which features a function passes is known from the file alone.
    if own && sealed == Some(false) {
        changed = changed.or_else(|| {
            Some("which features pass its function is not what was saved, and the record cannot say it".to_string())
        });
    }
    let found = if changed.is_some() { again } else { found };
    let Some(stored) = intervals else { return Ok(Settled { found, intervals: None, changed }) };
    let options = options_that_differ(&found.criterion, &stored.criterion);
    let kept = match (options.first(), sealed) {
        (Some((key, of_found, of_intervals)), _) => {
            changed = changed.or_else(|| {
                Some(format!("its intervals are of another criterion (`{key}` is {of_intervals}) than what was found ({of_found})"))
            });
            None
        }
        (None, Some(true)) => Some(stored.clone()),
        (None, sealed) => {
            // The bounds take a bootstrap to compute. Without a hash, only the values that need
            // none are compared.
            let differs = match sealed {
                None => point_values_differ(&found, &stored),
                Some(_) => true,
            };
            if differs {
                changed = changed.or_else(|| Some("its intervals are not those that were saved".to_string()));
            }
            (!differs).then(|| stored.clone())
        }
    };
    let again = || stats::bootstrap(acts, &found.criterion, &stored.args).ok();
    let intervals = if own { kept } else { kept.or_else(again) };
    Ok(Settled { found, intervals, changed })
}

fn point_values_differ(found: &Detection, intervals: &Bootstrap) -> bool {
    let near = |x: f64, y: f64| (x - y).abs() <= NEAR * x.abs().max(y.abs());
    let dims = |dims: &mut dyn Iterator<Item = usize>| dims.collect::<Vec<usize>>();
    intervals.num_features.value != found.num_features as f64
        || intervals.classification != found.classification
        || !near(intervals.max_magnitude.value, f64::from(found.max_magnitude))
        || dims(&mut intervals.features.iter().map(|feature| feature.feature_dim))
            != dims(&mut found.features.iter().map(|feature| feature.feature_dim))
}
