//! An index for many queries of a record: threshold_index, count_features, feature_dims.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine};

use super::criteria::{ScopeOption, SkipPositions, UnitOption};
use crate::error::{Error, Result};
use crate::host::language::problem::thrown;
use crate::host::language::weight;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::options::number;
use crate::record::Criterion;
use crate::record::option::option_set;
use crate::stats::ThresholdIndex;

option_set! {
    /// The options of threshold_index: what its loops do not change.
    pub(crate) struct IndexOptions {
        layer_unit: UnitOption;
        scope: ScopeOption;
        skip_positions: SkipPositions;
    }
}

#[derive(Clone)]
pub(crate) struct IndexHandle(Arc<ThresholdIndex>);

pub(crate) const THRESHOLD_INDEX: Declared<IndexOptions> = Declared::new(
    "threshold_index",
    &[
        "threshold_index(acts: activations, options?: map) -> index",
        "threshold_index(stored: results, options?: map) -> index",
    ],
    "The record arranged for loops over criteria: count_features and feature_dims then take microseconds. Options fix what \
     the loop does not change. Thresholds are rungs of the ladder, which `acts.ladder` lists; between two of them there is an \
     answer only where both bounds agree (`thresholds` of extract_layernorms adds rungs).",
    acts!(
        r#"let index = acts.threshold_index();
for threshold in acts.ladder {
    if index.count_features(threshold, 0.25, 0.06) == 0 { print(`nothing passes at ${threshold}`); break; }
}"#
    ),
);

pub(crate) const COUNT_FEATURES: Declared<NoOptions> = Declared::new(
    "count_features",
    &["count_features(index: index, magnitude_threshold: float, min_layer_percentage: float, \
     min_seq_percentage: float) -> int"],
    "How many features pass at this criterion: `num_features` of detect_outliers. An error where a threshold between two rungs \
     leaves that open.",
    acts!("print(acts.threshold_index().count_features(3.0, 0.25, 0.06));"),
);

pub(crate) const FEATURE_DIMS: Declared<NoOptions> = Declared::new(
    "feature_dims",
    &["feature_dims(index: index, magnitude_threshold: float, min_layer_percentage: float, \
     min_seq_percentage: float) -> array"],
    "The dimensions that pass at this criterion, largest magnitude first. An error as of count_features.",
    acts!("print(acts.threshold_index(#{ layer_unit: \"block\" }).feature_dims(3.0, 0.25, 0.06));"),
);

pub(crate) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<IndexHandle>("index");
    THRESHOLD_INDEX.register_on_records(engine, |acts, o| {
        let base = Criterion {
            layer_unit: o.layer_unit,
            scope: o.scope,
            skip_positions: o.skip_positions,
            ..Criterion::default()
        };
        weight::beside(|| ThresholdIndex::new(acts, &base)).map(|index| IndexHandle(Arc::new(index)))
    });
    engine.register_fn(COUNT_FEATURES.name(), |index: &mut IndexHandle, a: Dynamic, b: Dynamic, c: Dynamic| {
        thrown(passing(COUNT_FEATURES.name(), index, [&a, &b, &c]).map(|passing| passing.count() as i64))
    });
    engine.register_fn(FEATURE_DIMS.name(), |index: &mut IndexHandle, a: Dynamic, b: Dynamic, c: Dynamic| {
        let passing = passing(FEATURE_DIMS.name(), index, [&a, &b, &c]);
        thrown(passing.map(|passing| passing.map(|dim| Dynamic::from(dim as i64)).collect::<Array>()))
    });
}

/// The features that pass at a magnitude threshold and the shares of layers and of positions, each
/// a number of either kind.
fn passing<'a>(
    function: &str,
    index: &'a IndexHandle,
    given: [&Dynamic; 3],
) -> Result<impl Iterator<Item = usize> + use<'a>> {
    const NAMES: [&str; 3] = ["magnitude_threshold", "min_layer_percentage", "min_seq_percentage"];
    let mut values = [0.0; 3];
    for ((value, given), name) in values.iter_mut().zip(given).zip(NAMES) {
        *value = number(given).ok_or_else(|| {
            let kind = given.type_name();
            Error::bad_argument(format!("{function}: `{name}` is a value of type {kind}, expected a number"))
                .hint("index.count_features(6.0, 0.25, 0.06), say")
        })?;
    }
    let [magnitude, layers, positions] = values;
    index.0.passing(magnitude as f32, layers, positions)
}
