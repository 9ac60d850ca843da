//! Values of scripts: models, tokens and activations are cheap handles, all other records are plain
//! maps.
//!
//! A handle reads like a map (`model.num_layers`). Data that is too large for a script is not
//! readable.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, EvalAltResult, Position};
use serde_json::Value;

use super::findings::{BootstrapHandle, DetectionHandle};
use super::gpu::Gpu;
use super::readable::{Readable, register_handle};
use super::record_fields;
use crate::error::Result;
use crate::host::language::bounds::MAX_ARRAY;
use crate::host::language::json::{numbers_to_dynamic, to_dynamic, to_json_with};
use crate::host::language::problem::{ScriptResult, throw};
use crate::record::{Activations, LoadArgs, ModelInfo, Tokens, number, plain};
use crate::results::Stored;
use crate::session::Session;
use crate::words::{counted, format_bytes};

/// A loaded model: its name, its location, and its options.
#[derive(Clone)]
pub(crate) struct Model(pub Arc<ModelHandle>);

pub(crate) struct ModelHandle {
    /// The session that has loaded it, and runs its analyses.
    pub session: Arc<dyn Session>,
    pub args: LoadArgs,
    pub info: ModelInfo,
    pub folder: String,
}

#[derive(Clone)]
pub(crate) struct TokensHandle(pub Arc<Tokens>);

#[derive(Clone)]
pub(crate) struct ActivationsHandle(pub Arc<Activations>);

#[derive(Clone)]
pub(crate) struct StoredHandle(pub Arc<Stored>);

impl Readable for Model {
    const NAME: &'static str = "model";

    fn field(&self, name: &str) -> Option<Dynamic> {
        match name {
            "path" => Some(self.0.folder.clone().into()),
            _ => record_fields::field(&self.0.info, name),
        }
    }

    fn json(&self) -> Value {
        let mut json = plain(&self.0.info);
        json["path"] = self.0.folder.clone().into();
        json
    }
}

impl Readable for TokensHandle {
    const NAME: &'static str = "tokens";
    const LARGE: Option<&'static str> = Some("ids");

    fn field(&self, name: &str) -> Option<Dynamic> {
        match name {
            "ids" => are_readable(&self.0).then(|| to_dynamic(&plain(&self.0.ids))),
            _ => record_fields::field(&self.0.info, name),
        }
    }

    fn json(&self) -> Value {
        let mut json = plain(&self.0.info);
        if are_readable(&self.0) {
            json["ids"] = plain(&self.0.ids);
        }
        json
    }
}

impl Readable for ActivationsHandle {
    const NAME: &'static str = "activations";

    fn field(&self, name: &str) -> Option<Dynamic> {
        let acts = &*self.0;
        match name {
            "all" | "without_first" => None,
            "norms" => Some(acts.norms.iter().map(|norm| norm.name().into()).collect::<Array>().into()),
            "mean_nll" => Some(numbers_to_dynamic(&number::plain(&acts.mean_nll))),
            _ => record_fields::field(acts, name),
        }
    }

    fn json(&self) -> Value {
        summary(&self.0)
    }

    fn line(&self) -> String {
        let acts = &*self.0;
        format!(
            "activations of {}: {} × {} tokens of {}, {} × {} dimensions, {} in memory",
            acts.model.id,
            acts.num_sequences,
            acts.sequence_length,
            acts.tokens.source,
            counted(acts.norms.len(), "norm"),
            acts.hidden_size,
            format_bytes(acts.bytes() as f64)
        )
    }
}

impl Readable for StoredHandle {
    const NAME: &'static str = "results";

    fn field(&self, name: &str) -> Option<Dynamic> {
        let stored = &self.0;
        Some(match name {
            "path" => stored.folder.display().to_string().into(),
            "found" => Dynamic::from(DetectionHandle(stored.found.clone())),
            "intervals" => match &stored.intervals {
                Some(intervals) => Dynamic::from(BootstrapHandle(intervals.clone())),
                None => Dynamic::UNIT,
            },
            "settings" => to_dynamic(&plain(&stored.settings)),
            "activations" => Dynamic::from(ActivationsHandle(stored.activations.clone())),
            _ => return None,
        })
    }

    fn json(&self) -> Value {
        let stored = &self.0;
        serde_json::json!({
            "path": stored.folder.display().to_string(),
            "found": plain(&*stored.found),
            "intervals": plain(&stored.intervals.as_deref()),
            "settings": stored.settings,
            "activations": summary(&stored.activations),
        })
    }
}

/// True if an array of a script can hold the ids.
fn are_readable(tokens: &Tokens) -> bool {
    tokens.ids.iter().map(Vec::len).sum::<usize>() <= MAX_ARRAY
}

/// All parts of a record but the folds.
fn summary(acts: &Activations) -> Value {
    let mut json = plain(&acts.clone_light());
    if let Some(map) = json.as_object_mut() {
        map.remove("all");
        map.remove("without_first");
        map.insert("norms".into(), acts.norms.iter().map(|norm| norm.name()).collect());
    }
    json
}

/// The text of a handle that has one of its own beside its fields.
pub(crate) fn shown(value: &Dynamic, width: Option<usize>) -> Option<String> {
    fn of<T: Readable + Clone + Send + Sync + 'static>(value: &Dynamic, width: Option<usize>) -> Option<String> {
        value.read_lock::<T>().map(|handle| handle.shown(width))
    }
    let found = of::<DetectionHandle>(value, width).or_else(|| of::<BootstrapHandle>(value, width));
    found.or_else(|| of::<ActivationsHandle>(value, width))
}

/// The readable part of any handle.
pub(crate) fn handle_json(value: &Dynamic) -> Option<Value> {
    fn of<T: Readable + Clone + Send + Sync + 'static>(value: &Dynamic) -> Option<Value> {
        value.read_lock::<T>().map(|handle| handle.json())
    }
    let stored = of::<Model>(value).or_else(|| of::<TokensHandle>(value));
    let stored = stored.or_else(|| of::<ActivationsHandle>(value)).or_else(|| of::<StoredHandle>(value));
    let stored = stored.or_else(|| of::<DetectionHandle>(value)).or_else(|| of::<BootstrapHandle>(value));
    stored.or_else(|| of::<Gpu>(value))
}

pub(crate) fn register(engine: &mut Engine) {
    register_handle::<Model>(engine);
    register_handle::<TokensHandle>(engine);
    register_handle::<ActivationsHandle>(engine);
    register_handle::<StoredHandle>(engine);
    // Maps and arrays, for found.to_json(), because Rhai's own formats floats and strings
    // differently.
    engine.register_fn("to_json", |map: &mut rhai::Map| json_text(&map.clone().into()));
    engine.register_fn("to_json", |array: &mut rhai::Array| json_text(&array.clone().into()));
}

/// A value of scripts as JSON. Handles become their readable fields, wherever they are in it.
pub(crate) fn as_json(value: &Dynamic) -> Result<Value> {
    to_json_with(value, &handle_json)
}

fn json_text(value: &Dynamic) -> ScriptResult<String> {
    as_json(value).map(|json| json.to_string()).map_err(throw)
}

/// The activations behind a handle or a stored analysis.
pub(crate) fn activations(value: &Dynamic) -> ScriptResult<Arc<Activations>> {
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
