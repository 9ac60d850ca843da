//! A feature that a script's own criterion is asked about, as a value of scripts.

use rhai::Engine;
use serde_json::{Map, Value};

use super::readable::{Readable, register_handle};
use crate::record::plain;
use crate::stats::Candidate;

#[derive(Clone)]
pub(crate) struct CandidateHandle(pub Candidate);

pub(crate) fn register(engine: &mut Engine) {
    register_handle::<CandidateHandle>(engine);
}

/// The fields that scripts read.
const FIELDS: [&str; 10] = [
    "feature_dim",
    "layer_share",
    "seq_share",
    "max",
    "max_value",
    "min_value",
    "layers_hit",
    "num_layers",
    "positions_hit",
    "num_positions",
];

impl Readable for CandidateHandle {
    const NAME: &'static str = "candidate";

    fn json(&self) -> Value {
        let field = |name: &str| Some((name.to_string(), self.field(name)?));
        Value::Object(FIELDS.into_iter().filter_map(field).collect::<Map<_, _>>())
    }

    fn field(&self, name: &str) -> Option<Value> {
        let candidate = &self.0;
        Some(match name {
            "feature_dim" => candidate.feature_dim.into(),
            "layer_share" => (candidate.layers_hit as f64 / candidate.num_layers as f64).into(),
            "seq_share" => (candidate.positions_hit as f64 / candidate.num_positions as f64).into(),
            "max" => plain(&candidate.max_value.max(-candidate.min_value)),
            "max_value" => plain(&candidate.max_value),
            "min_value" => plain(&candidate.min_value),
            "layers_hit" => candidate.layers_hit.into(),
            "num_layers" => candidate.num_layers.into(),
            "positions_hit" => candidate.positions_hit.into(),
            "num_positions" => candidate.num_positions.into(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_reads_alone() {
        let candidate = Candidate {
            feature_dim: 3,
            layers_hit: 1,
            num_layers: 4,
            positions_hit: 6,
            num_positions: 12,
            max_value: 5.8,
            min_value: -7.1,
        };
        let handle = CandidateHandle(candidate);
        let json = handle.json();
        assert_eq!(json.as_object().unwrap().len(), FIELDS.len());
        assert_eq!((&json["layer_share"], &json["seq_share"], &json["max"]), (&0.25.into(), &0.5.into(), &7.1.into()));
        assert_eq!(handle.field("maximum"), None);
    }
}
