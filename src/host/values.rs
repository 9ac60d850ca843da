//! What scripts hold: models, tokens and activations as cheap handles, all other records as plain maps.
//!
//! A handle reads like a map (`model.num_layers`); what is too large for a script stays behind it.

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Position};
use serde_json::Value;

use super::bounds::MAX_ARRAY;
use super::growth::too_large;
use super::problem::{ScriptResult, throw};
use crate::error::Error;
use crate::record::{Activations, LoadArgs, ModelInfo, Tokens, number, plain};
use crate::results::Stored;
use crate::session::Session;
use crate::suggest;

/// Names of the fields of plain records, for suggestions.
pub const FIELDS: &[&str] = &[
    "feature_dim",
    "sequence",
    "layer_percentage",
    "layer_percentage_blocks",
    "norms_hit",
    "blocks_hit",
    "seq_percentage",
    "seq_positions",
    "max_magnitude",
    "max_value",
    "min_value",
    "sidedness",
    "total_occurrences",
    "quartiles",
    "layers_affected",
    "classification",
    "norm",
    "num_outliers",
    "num_features",
    "outlier_percentage",
    "criterion",
    "features",
    "num_features_hit",
    "num_norms",
    "num_blocks",
    "num_positions",
    "num_non_finite",
    "layer_stats",
    "n_resamples",
    "confidence_level",
    "method",
    "seed",
    "value",
    "low",
    "high",
    "passed",
    "classification_held",
    "args",
    "num_sequences",
    "mean_layer_percentage",
    "mean_seq_percentage",
    "magnitude_threshold",
    "min_layer_percentage",
    "min_seq_percentage",
    "layer_unit",
    "scope",
    "skip_positions",
    "systematic_layers",
    "id",
    "model_type",
    "num_layers",
    "hidden_size",
    "num_experts",
    "num_experts_per_tok",
    "parameters",
    "active_parameters",
    "download_bytes",
    "read_bytes",
    "layer_bytes",
    "resident_weight_bytes",
    "hidden_bytes",
    "tap_bytes",
    "workspace_bytes",
    "total_bytes",
    "vram_bytes",
    "gpus",
    "flops",
    "name",
    "bytes",
    "sequence_length",
    "memory_budget",
    "logits",
    "kind",
    "digest",
    "wall_seconds",
    "waited_for_weights_seconds",
    "waited_for_compute_seconds",
    "bytes_read",
    "bytes_needed",
    "read_bytes_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_vram_bytes",
    "resumed_at_layer",
    "bytes_read_before",
    "completion_time",
    "layer",
    "site",
    "nan",
    "infinite",
    "tokens_per_expert",
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
    "path",
    "text",
    "answer",
    "bracket",
    "rung_below",
    "rung_above",
    "num_features_high",
    "classification_high",
    "possible_features",
    "num_systematic",
    "perplexity",
    "mean_nll",
    "per_sequence",
    "num_tokens",
    "statistic",
    "p_value",
    "alternative",
    "exact",
    "n_permutations",
    "effect",
    "effect_size",
    "sizes",
    "agreement",
    "sufficient",
    "decides",
    "undecided",
    "same_classification",
    "mean_features",
    "standard_error",
    "needed",
    "norms",
    "features_per_column",
    "values",
    "feature_dims",
    "from",
    "to",
    "positive",
    "negative",
    "count",
    "expected_dims",
    "expected_classification",
];

/// A loaded model: what it is called, where it is, how it was asked for.
#[derive(Clone)]
pub struct Model(pub Arc<ModelHandle>);

pub struct ModelHandle {
    /// Where it was loaded, and so where its analyses run.
    pub session: Arc<dyn Session>,
    pub args: LoadArgs,
    pub info: ModelInfo,
    pub folder: String,
}

#[derive(Clone)]
pub struct TokensHandle(pub Arc<Tokens>);

#[derive(Clone)]
pub struct ActivationsHandle(pub Arc<Activations>);

#[derive(Clone)]
pub struct StoredHandle(pub Arc<Stored>);

/// The part of a handle that scripts see.
pub trait Readable {
    const NAME: &'static str;
    fn json(&self) -> Value;
}

impl Readable for Model {
    const NAME: &'static str = "model";
    fn json(&self) -> Value {
        let mut json = plain(&self.0.info);
        json["path"] = self.0.folder.clone().into();
        json
    }
}

impl Readable for TokensHandle {
    const NAME: &'static str = "tokens";
    fn json(&self) -> Value {
        let mut json = plain(&self.0.info);
        // As many as an array of a script holds.
        if self.0.ids.iter().map(Vec::len).sum::<usize>() <= MAX_ARRAY {
            json["ids"] = plain(&self.0.ids);
        }
        json
    }
}

impl Readable for ActivationsHandle {
    const NAME: &'static str = "activations";
    fn json(&self) -> Value {
        summary(&self.0)
    }
}

impl Readable for StoredHandle {
    const NAME: &'static str = "results";
    fn json(&self) -> Value {
        let stored = &self.0;
        serde_json::json!({
            "path": stored.folder.display().to_string(),
            "found": plain(&stored.found),
            "intervals": plain(&stored.intervals),
            "settings": stored.settings,
            "activations": summary(&stored.activations),
        })
    }
}

/// Everything of a record but the folds.
fn summary(acts: &Activations) -> Value {
    let mut json = plain(&acts.clone_light());
    if let Some(map) = json.as_object_mut() {
        map.remove("all");
        map.remove("without_first");
        map.insert("norms".into(), acts.norms.iter().map(|norm| norm.name()).collect());
    }
    json
}

/// The part of a handle that scripts see, whichever handle it is.
pub fn handle_json(value: &Dynamic) -> Option<Value> {
    fn of<T: Readable + Clone + Send + Sync + 'static>(value: &Dynamic) -> Option<Value> {
        value.read_lock::<T>().map(|handle| handle.json())
    }
    let stored = of::<Model>(value).or_else(|| of::<TokensHandle>(value));
    let stored = stored.or_else(|| of::<ActivationsHandle>(value)).or_else(|| of::<StoredHandle>(value));
    stored.or_else(|| of::<super::machines::Gpu>(value))
}

/// JSON as script values.
pub fn to_dynamic(json: &Value) -> Dynamic {
    of_json(json, &|text| text.to_string().into())
}

/// The same of a record that has no texts of its own: floats that JSON has no numbers for are floats again.
pub fn numbers_to_dynamic(json: &Value) -> Dynamic {
    of_json(json, &|text| number::named(text).map_or_else(|| text.to_string().into(), Dynamic::from))
}

fn of_json(json: &Value, of_text: &dyn Fn(&str) -> Dynamic) -> Dynamic {
    match json {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => of_text(text),
        Value::Array(items) => items.iter().map(|item| of_json(item, of_text)).collect::<rhai::Array>().into(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (key.as_str().into(), of_json(value, of_text));
            let map: rhai::Map = map.iter().map(entry).collect();
            map.into()
        }
    }
}

/// Script values as JSON; handles become what scripts can read of them.
pub fn to_json(value: &Dynamic) -> crate::error::Result<Value> {
    let bad = |what: String| Error::bad_argument(format!("{what} cannot be written as JSON"));
    if let Some(map) = value.read_lock::<rhai::Map>() {
        return map.iter().map(|(key, value)| Ok((key.to_string(), to_json(value)?))).collect();
    }
    if let Some(items) = value.read_lock::<rhai::Array>() {
        return items.iter().map(to_json).collect();
    }
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(flag.into());
    }
    if let Ok(whole) = value.as_int() {
        return Ok(whole.into());
    }
    if let Ok(number) = value.as_float() {
        return serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(|| bad(number.to_string()));
    }
    if let Ok(text) = value.clone().into_string() {
        return Ok(text.into());
    }
    Err(bad(format!("a value of type {}", value.type_name())))
}

fn field<T: Readable>(handle: &mut T, name: &str) -> ScriptResult<Dynamic> {
    let json = handle.json();
    match json.get(name) {
        Some(value) => Ok(to_dynamic(value)),
        None if (T::NAME, name) == (TokensHandle::NAME, "ids") => Err(too_large("Size of array/BLOB")),
        None => {
            let names: Vec<_> = json.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            let error = Error::bad_argument(format!("{} has no field `{name}`", T::NAME));
            Err(throw(error.hint(suggest::hint(name, names.iter().copied()))))
        }
    }
}

pub fn register_handle<T: Readable + Clone + Send + Sync + 'static>(engine: &mut Engine) {
    engine.register_type_with_name::<T>(T::NAME);
    engine.register_indexer_get(|handle: &mut T, name: &str| field(handle, name));
    engine.register_fn("to_json", |handle: &mut T| handle.json().to_string());
    engine.register_fn("to_string", |handle: &mut T| format!("{}({})", T::NAME, short(&handle.json())));
    engine.register_fn("to_debug", |handle: &mut T| handle.json().to_string());
}

/// The scalar fields of a handle, for printing.
pub fn short(json: &Value) -> String {
    let scalar = |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
    let fields = json.as_object().into_iter().flatten().filter(|(_, value)| scalar(value));
    fields.map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
}

pub fn register(engine: &mut Engine) {
    register_handle::<Model>(engine);
    register_handle::<TokensHandle>(engine);
    register_handle::<ActivationsHandle>(engine);
    register_handle::<StoredHandle>(engine);
    engine
        .register_get("mean_nll", |acts: &mut ActivationsHandle| numbers_to_dynamic(&number::plain(&acts.0.mean_nll)));
    engine.register_get("activations", |stored: &mut StoredHandle| ActivationsHandle(stored.0.activations.clone()));
    // Maps and arrays, for found.to_json(); Rhai's own writes floats and strings in its own way.
    engine.register_fn("to_json", |map: &mut rhai::Map| json_text(&map.clone().into()));
    engine.register_fn("to_json", |array: &mut rhai::Array| json_text(&array.clone().into()));
}

fn json_text(value: &Dynamic) -> ScriptResult<String> {
    to_json(value).map(|json| json.to_string()).map_err(throw)
}

/// The activations behind a handle or a stored analysis.
pub fn activations(value: &Dynamic) -> ScriptResult<Arc<Activations>> {
    if let Some(handle) = value.read_lock::<ActivationsHandle>() {
        return Ok(handle.0.clone());
    }
    if let Some(stored) = value.read_lock::<StoredHandle>() {
        return Ok(stored.0.activations.clone());
    }
    let actual = value.type_name().to_string();
    let expected = "activations or stored results".to_string();
    Err(Box::new(EvalAltResult::ErrorMismatchDataType(expected, actual, Position::NONE)))
}
