//! Values of scripts: models, tokens and activations are cheap handles, all other records are plain
//! maps.
//!
//! A handle reads like a map (`model.num_layers`). Data that is too large for a script is not
//! readable.

use std::fmt;
use std::sync::Arc;

use rhai::{Dynamic, Engine};
use serde_json::Value;

use super::gpu::Gpu;
use super::option_types::HandleOption;
use super::readable::{Readable, register_handle};
use crate::host::language::bounds::MAX_ARRAY;
use crate::host::language::json::{numbers_to_dynamic, to_json};
use crate::host::language::problem::{ScriptResult, throw};
use crate::record::{Activations, LoadArgs, ModelInfo, Tokens, field, number, plain};
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
    fn field(&self, name: &str) -> Option<Value> {
        match name {
            "path" => Some(self.0.folder.clone().into()),
            _ => field(&self.0.info, name),
        }
    }
}

impl Readable for TokensHandle {
    const NAME: &'static str = "tokens";
    const LARGE: Option<&'static str> = Some("ids");
    fn json(&self) -> Value {
        let mut json = plain(&self.0.info);
        if let Some(ids) = self.ids() {
            json["ids"] = ids;
        }
        json
    }
    fn field(&self, name: &str) -> Option<Value> {
        match name {
            "ids" => self.ids(),
            _ => field(&self.0.info, name),
        }
    }
}

impl TokensHandle {
    /// The ids, if they are not more than an array of a script holds.
    fn ids(&self) -> Option<Value> {
        let fit = self.0.ids.iter().map(Vec::len).sum::<usize>() <= MAX_ARRAY;
        fit.then(|| plain(&self.0.ids))
    }
}

impl Readable for ActivationsHandle {
    const NAME: &'static str = "activations";
    fn json(&self) -> Value {
        summary(&self.0)
    }
    fn field(&self, name: &str) -> Option<Value> {
        match name {
            "norms" => Some(norm_names(&self.0)),
            _ if FOLDS.contains(&name) => None,
            _ => field(&*self.0, name),
        }
    }
}

impl Readable for StoredHandle {
    const NAME: &'static str = "results";
    fn json(&self) -> Value {
        let names = ["path", "found", "intervals", "settings", "activations"];
        names.iter().filter_map(|name| Some((name.to_string(), self.field(name)?))).collect()
    }
    fn field(&self, name: &str) -> Option<Value> {
        let stored = &self.0;
        match name {
            "path" => Some(stored.folder.display().to_string().into()),
            "found" => Some(plain(&stored.found)),
            "intervals" => Some(plain(&stored.intervals)),
            "settings" => Some(stored.settings.clone().into()),
            "activations" => Some(summary(&stored.activations)),
            _ => None,
        }
    }
}

/// The parts of a record that are too large for a script.
const FOLDS: [&str; 2] = ["all", "without_first"];

fn norm_names(acts: &Activations) -> Value {
    acts.norms.iter().map(|norm| norm.name()).collect()
}

/// All parts of a record but the folds.
fn summary(acts: &Activations) -> Value {
    let mut json = plain(&acts.clone_light());
    if let Some(map) = json.as_object_mut() {
        map.retain(|key, _| !FOLDS.contains(&key.as_str()));
        map.insert("norms".into(), norm_names(acts));
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

/// A handle of a record, new or stored.
pub(crate) trait RecordHandle: Clone + Send + Sync + 'static {
    fn activations(&self) -> &Arc<Activations>;
}

impl RecordHandle for ActivationsHandle {
    fn activations(&self) -> &Arc<Activations> {
        &self.0
    }
}

impl RecordHandle for StoredHandle {
    fn activations(&self) -> &Arc<Activations> {
        &self.0.activations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TokensInfo;

    #[test]
    fn every_field_of_tokens_reads_alone() {
        let (source, sha256) = ("ids.json".to_string(), "0".repeat(64));
        let info = TokensInfo { source, revision: None, num_sequences: 1, sequence_length: 2, sha256 };
        let tokens = TokensHandle(Arc::new(Tokens { ids: vec![vec![3, 4]], info }));
        let json = tokens.json();
        assert!(json.as_object().unwrap().len() > 4);
        for (name, value) in json.as_object().unwrap() {
            assert_eq!(tokens.field(name).as_ref(), Some(value), "{name}");
        }
        assert_eq!(tokens.field("text"), None);
    }
}
