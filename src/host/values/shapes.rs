//! The fields of what primitives give, for the documentation and for `outlier check`. Names of
//! fields are those of the records; this table says which fields hold further records.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor, value::Error};
use serde::forward_to_deserialize_any;

use super::declaration::Primitive;
use crate::record::{
    Activations, Agreement, Bootstrap, BootstrapArgs, Bracket, Cell, Criterion, Detection, Estimate, ExpertCoverage,
    Feature, FeatureIntervals, FileHash, HeatMap, Interval, LaneComparison, LaneOutcome, LayerProfile, LayerStats,
    MagnitudeBin, Measurements, Miniature, ModelInfo, NonFinite, Perplexity, PossibleFeature, SequenceValues,
    SequencesNeeded, SiteId, StoredAs, SweepRow, TestResult, TokensInfo, TokensPart, UndecidedFeature,
};

/// A deserialiser that reads nothing, and writes down the names of a struct's fields.
struct Names<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields);
        Err(Error::custom("only the names of fields are asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("a record is a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The names of the fields of a record, in their order.
pub(crate) fn names_of<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    // What is deserialised is an error: no value is there.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// A value with known fields.
pub(crate) struct Shape {
    /// The name in messages.
    pub name: &'static str,
    /// True for a handle, which scripts cannot change.
    pub is_handle: bool,
    /// Names of fields in their order, with the shape of those that are records.
    pub fields: Vec<(&'static str, Option<Given>)>,
}

/// A record, or an array of records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Given {
    One(&'static str),
    List(&'static str),
}

impl Given {
    /// The shape of the record, or of an item.
    pub(crate) fn shape(self) -> Option<&'static Shape> {
        match self {
            Self::One(name) | Self::List(name) => shapes().get(name),
        }
    }
}

impl Shape {
    /// What a field holds, if there is such a field.
    pub(crate) fn field(&self, name: &str) -> Option<Option<Given>> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, given)| *given)
    }
}

/// Fields that are no records themselves, by the record that has them.
const INNER: &[(&str, &str, Given)] = &[
    ("model", "files", Given::List("file")),
    ("model", "weights_stored_as", Given::List("stored_as")),
    ("tokens", "parts", Given::List("tokens_part")),
    ("activations", "model", Given::One("model")),
    ("activations", "tokens", Given::One("tokens_info")),
    ("activations", "non_finite", Given::List("non_finite")),
    ("activations", "expert_coverage", Given::List("expert_coverage")),
    ("activations", "measurements", Given::One("measurements")),
    ("activations", "lanes", Given::List("lane")),
    ("lane_comparison", "perplexity", Given::One("interval")),
    ("lane_comparison", "perplexity_ratio", Given::One("interval")),
    ("lane_comparison", "kl", Given::One("interval")),
    ("lane_comparison", "top1_agreement", Given::One("interval")),
    ("lane_comparison", "top1_probability", Given::One("interval")),
    ("lane_comparison", "test", Given::One("test_result")),
    ("tokens_info", "parts", Given::List("tokens_part")),
    ("non_finite", "norm", Given::One("site")),
    ("results", "found", Given::One("detection")),
    ("results", "intervals", Given::One("intervals")),
    ("results", "activations", Given::One("activations")),
    ("detection", "criterion", Given::One("criterion")),
    ("detection", "bracket", Given::One("bracket")),
    ("detection", "features", Given::List("feature")),
    ("detection", "layer_stats", Given::List("layer_stats")),
    ("detection", "certain", Given::One("certain")),
    ("certain", "features", Given::List("feature")),
    ("bracket", "possible_features", Given::List("possible_feature")),
    ("layer_stats", "norm", Given::One("site")),
    ("intervals", "args", Given::One("bootstrap_args")),
    ("intervals", "criterion", Given::One("criterion")),
    ("intervals", "num_features", Given::One("interval")),
    ("intervals", "mean_layer_percentage", Given::One("interval")),
    ("intervals", "mean_seq_percentage", Given::One("interval")),
    ("intervals", "max_magnitude", Given::One("interval")),
    ("intervals", "features", Given::List("feature_intervals")),
    ("feature_intervals", "layer_percentage", Given::One("interval")),
    ("feature_intervals", "seq_percentage", Given::One("interval")),
    ("feature_intervals", "max_magnitude", Given::One("interval")),
    ("sequences_needed", "agreement", Given::List("agreement")),
    ("sequences_needed", "undecided", Given::List("undecided_feature")),
    ("sweep_row", "criterion", Given::One("criterion")),
    ("sweep_row", "num_features", Given::One("interval")),
    ("perplexity", "perplexity", Given::One("interval")),
    ("perplexity", "mean_nll", Given::One("interval")),
    ("perplexity", "args", Given::One("bootstrap_args")),
];

/// What primitives give whose signatures say only `map` or `array`.
const GIVEN: &[(&str, Given)] = &[
    ("sweep_criteria", Given::List("sweep_row")),
    ("sequences_needed", Given::One("sequences_needed")),
    ("per_sequence", Given::List("sequence_values")),
    ("cells", Given::List("cell")),
    ("halves", Given::List("activations")),
    ("perplexity", Given::One("perplexity")),
    ("paired_test", Given::One("test_result")),
    ("compare_lanes", Given::List("lane_comparison")),
    ("group_test", Given::One("test_result")),
    ("correlation_test", Given::One("test_result")),
    ("estimate_vram", Given::One("estimate")),
    ("miniature_model", Given::One("miniature")),
    ("heat_map", Given::One("heat_map")),
    ("layer_profile", Given::List("layer_profile")),
    ("magnitude_histogram", Given::List("magnitude_bin")),
];

/// What a primitive gives; nothing if that has no known fields.
pub(crate) fn given_by(primitive: &Primitive) -> Option<Given> {
    if let Some((_, given)) = GIVEN.iter().find(|(name, _)| *name == primitive.name) {
        return Some(*given);
    }
    let returned = primitive.signatures.first()?.rsplit_once(" -> ")?.1;
    let handle = shapes().get(returned).filter(|shape| shape.is_handle)?;
    Some(Given::One(handle.name))
}

/// All shapes by their names.
pub(crate) fn shapes() -> &'static BTreeMap<&'static str, Shape> {
    static SHAPES: OnceLock<BTreeMap<&'static str, Shape>> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let mut shapes = BTreeMap::new();
        let mut add = |name: &'static str, is_handle, fields: Vec<&'static str>| {
            let inner = |field| INNER.iter().find(|(of, key, _)| *of == name && *key == field).map(|inner| inner.2);
            let fields = fields.into_iter().map(|field| (field, inner(field))).collect();
            shapes.insert(name, Shape { name, is_handle, fields });
        };
        let with = |mut fields: Vec<&'static str>, more: &[&'static str]| {
            fields.extend(more);
            fields
        };
        let without = |fields: Vec<&'static str>, left_out: &[&str]| {
            fields.into_iter().filter(|field| !left_out.contains(field)).collect::<Vec<_>>()
        };
        add("model", true, with(names_of::<ModelInfo>(), &["path"]));
        add("tokens", true, with(names_of::<TokensInfo>(), &["ids"]));
        add("activations", true, without(names_of::<Activations>(), &["all", "without_first", "measures"]));
        add("results", true, vec!["path", "found", "intervals", "settings", "activations"]);
        add("detection", true, with(names_of::<Detection>(), &["certain"]));
        add("intervals", true, names_of::<Bootstrap>());
        add("certain", false, vec!["num_features", "features", "classification"]);
        add("agreement", false, names_of::<Agreement>());
        add("bootstrap_args", false, names_of::<BootstrapArgs>());
        add("bracket", false, names_of::<Bracket>());
        add("cell", false, names_of::<Cell>());
        add("criterion", false, names_of::<Criterion>());
        add("estimate", false, names_of::<Estimate>());
        add("expert_coverage", false, names_of::<ExpertCoverage>());
        add("feature", false, names_of::<Feature>());
        add("feature_intervals", false, names_of::<FeatureIntervals>());
        add("file", false, names_of::<FileHash>());
        add("heat_map", false, names_of::<HeatMap>());
        add("interval", false, names_of::<Interval>());
        add("lane", false, names_of::<LaneOutcome>());
        add("lane_comparison", false, names_of::<LaneComparison>());
        add("layer_profile", false, names_of::<LayerProfile>());
        add("layer_stats", false, names_of::<LayerStats>());
        add("magnitude_bin", false, names_of::<MagnitudeBin>());
        add("measurements", false, names_of::<Measurements>());
        add("miniature", false, names_of::<Miniature>());
        add("non_finite", false, names_of::<NonFinite>());
        add("perplexity", false, names_of::<Perplexity>());
        add("possible_feature", false, names_of::<PossibleFeature>());
        add("sequence_values", false, names_of::<SequenceValues>());
        add("sequences_needed", false, names_of::<SequencesNeeded>());
        add("site", false, names_of::<SiteId>());
        add("stored_as", false, names_of::<StoredAs>());
        add("sweep_row", false, names_of::<SweepRow>());
        add("test_result", false, names_of::<TestResult>());
        add("tokens_info", false, names_of::<TokensInfo>());
        add("tokens_part", false, names_of::<TokensPart>());
        add("undecided_feature", false, names_of::<UndecidedFeature>());
        shapes
    })
}

/// The fields of what a primitive gives, and of the records in it: a path such as `features[]`, and
/// the names.
pub(crate) fn fields_of(given: Given) -> Vec<(String, Vec<&'static str>)> {
    let mut all: Vec<(String, Vec<&'static str>)> = Vec::new();
    let mut seen = Vec::new();
    let mut due = vec![(String::new(), given)];
    while let Some((path, given)) = due.pop() {
        let Some(shape) = given.shape() else { continue };
        let path = if matches!(given, Given::List(_)) { format!("{path}[]") } else { path };
        all.push((path.clone(), shape.fields.iter().map(|(field, _)| *field).collect()));
        let point = if path.is_empty() { "" } else { "." };
        let inner =
            shape.fields.iter().rev().filter_map(|(field, given)| Some((format!("{path}{point}{field}"), (*given)?)));
        // Records that occur several times, such as intervals, are listed at the first place.
        for (path, given) in inner {
            if !seen.contains(&given) {
                due.push((path, given));
            }
        }
        seen.push(given);
        due.retain(|(_, given)| !seen.contains(given));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_records_are_fields_of_known_shapes() {
        for (of, field, given) in INNER {
            let shape = shapes().get(of).unwrap_or_else(|| panic!("{of} has no shape"));
            assert_eq!(shape.field(field), Some(Some(*given)), "{of}.{field}");
            assert!(given.shape().is_some(), "{given:?}");
        }
        for (name, given) in GIVEN {
            assert!(given.shape().is_some(), "{name}");
        }
        for shape in shapes().values() {
            assert!(!shape.fields.is_empty(), "{}", shape.name);
        }
    }

    #[test]
    fn fields_are_listed_from_the_outside_in() {
        let fields = fields_of(Given::One("detection"));
        assert_eq!(fields[0].0, "");
        assert!(fields[0].1.contains(&"num_features") && fields[0].1.contains(&"certain"));
        let features = fields.iter().find(|(path, _)| path == "features[]").expect("features are listed");
        assert!(features.1.contains(&"seq_percentage"));
        let paths: Vec<&str> = fields.iter().map(|(path, _)| path.as_str()).collect();
        assert!(paths.contains(&"layer_stats[].norm") && paths.contains(&"bracket.possible_features[]"), "{paths:?}");
        assert_eq!(fields_of(Given::List("cell"))[0].0, "[]");
        let intervals = fields_of(Given::One("intervals"));
        assert_eq!(intervals.iter().filter(|(_, names)| names.contains(&"low")).count(), 1);
    }
}
