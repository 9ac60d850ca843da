//! Names of the fields of records. A record reaches a script as a map, which does not know its
//! possible fields.

use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor, value::Error};
use serde::forward_to_deserialize_any;

use crate::record::{
    Agreement, Bootstrap, BootstrapArgs, Bracket, Cell, Criterion, Detection, Estimate, EstimateArgs, ExpertCoverage,
    Feature, FeatureIntervals, FileHash, HeatMap, Interval, LayerProfile, LayerStats, MagnitudeBin, Measurements,
    Miniature, ModelInfo, NonFinite, Perplexity, PossibleFeature, SequenceValues, SequencesNeeded, StoredAs, SweepRow,
    TestResult, TokensInfo, TokensPart, UndecidedFeature,
};

/// Fields of maps that are no records: errors, outcomes of `parallel`, machines, commands, copies.
const OF_MAPS: [&str; 15] = [
    "site",
    "provider",
    "price",
    "cost",
    "keep_running",
    "code",
    "out",
    "err",
    "files_sent",
    "files_received",
    "unchanged",
    "message",
    "hint",
    "ok",
    "error",
];

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

/// Adds the names of the fields of records.
macro_rules! add_fields {
    ($names:ident: $($record:ty),* $(,)?) => {
        // What is deserialised is an error: no value is there.
        $(let _ = <$record>::deserialize(Names(&mut $names));)*
    };
}

/// The names of the fields of all records that scripts read as maps.
pub(crate) fn fields() -> impl Iterator<Item = &'static str> + Clone {
    static FIELDS: OnceLock<Vec<&'static str>> = OnceLock::new();
    let fields = FIELDS.get_or_init(|| {
        let mut names = Vec::new();
        add_fields!(
            names: Feature, Bracket, PossibleFeature, Detection, LayerStats, Criterion, BootstrapArgs, Interval,
            FeatureIntervals, Bootstrap, SequencesNeeded, Agreement, UndecidedFeature, TestResult, SweepRow, Perplexity,
            Cell, HeatMap, LayerProfile, MagnitudeBin, SequenceValues, Estimate, EstimateArgs, ModelInfo, StoredAs, FileHash,
            TokensInfo, TokensPart, Measurements, Miniature, NonFinite, ExpertCoverage,
        );
        names.extend(OF_MAPS);
        names
    });
    fields.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn fields_are_those_of_the_records() {
        for name in ["magnitude_threshold", "num_features", "seq_percentage", "p_value", "total_bytes", "files_sent"] {
            assert!(fields().any(|field| field == name), "{name}");
        }
        assert!(fields().count() > 140);
    }
}
