//! Values of scripts: models, tokens and activations are cheap handles, all other records are plain
//! maps.
//!
//! A handle reads like a map (`model.num_layers`). Data that is too large for a script is not
//! readable.

use std::fmt;
use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Position};
use serde_json::Value;

use super::gpu::Gpu;
use super::option_types::HandleOption;
use super::readable::{Readable, register_handle};
use crate::host::language::bounds::MAX_ARRAY;
use crate::host::language::json::{numbers_to_dynamic, to_json};
use crate::host::language::problem::{ScriptResult, throw};
use crate::record::{Activations, LoadArgs, ModelInfo, Tokens, number, plain};
use crate::results::Stored;
use crate::session::Session;

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

impl HandleOption for Model {
    const EXPECTED: &'static str = "a model from load_model";
}

impl HandleOption for ActivationsHandle {
    const EXPECTED: &'static str = "what extract_layernorms returned";
}

/// The name of its kind, for messages about the options of a call.
macro_rules! debug_by_name {
    ($($handle:ident),*) => {
        $(impl fmt::Debug for $handle {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(<Self as Readable>::NAME)
            }
        })*
    };
}

debug_by_name!(Model, ActivationsHandle);

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
    const LARGE: Option<&'static str> = Some("ids");
    fn json(&self) -> Value {
        let mut json = plain(&self.0.info);
        // The largest array of a script.
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

/// The readable part of any handle.
pub(crate) fn handle_json(value: &Dynamic) -> Option<Value> {
    fn of<T: Readable + Clone + Send + Sync + 'static>(value: &Dynamic) -> Option<Value> {
        value.read_lock::<T>().map(|handle| handle.json())
    }
    let stored = of::<Model>(value).or_else(|| of::<TokensHandle>(value));
    let stored = stored.or_else(|| of::<ActivationsHandle>(value)).or_else(|| of::<StoredHandle>(value));
    stored.or_else(|| of::<Gpu>(value))
}

pub(crate) fn register(engine: &mut Engine) {
    register_handle::<Model>(engine);
    register_handle::<TokensHandle>(engine);
    register_handle::<ActivationsHandle>(engine);
    register_handle::<StoredHandle>(engine);
    engine
        .register_get("mean_nll", |acts: &mut ActivationsHandle| numbers_to_dynamic(&number::plain(&acts.0.mean_nll)));
    engine.register_get("activations", |stored: &mut StoredHandle| ActivationsHandle(stored.0.activations.clone()));
    // Maps and arrays, for found.to_json(), because Rhai's own formats floats and strings
    // differently.
    engine.register_fn("to_json", |map: &mut rhai::Map| json_text(&map.clone().into()));
    engine.register_fn("to_json", |array: &mut rhai::Array| json_text(&array.clone().into()));
}

fn json_text(value: &Dynamic) -> ScriptResult<String> {
    to_json(value).map(|json| json.to_string()).map_err(throw)
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
