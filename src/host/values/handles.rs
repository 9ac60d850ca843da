//! Values of scripts: models, tokens, activations and stored results are cheap handles, and so is
//! what the statistics found (`findings.rs`). All other records are plain maps.
//!
//! A handle reads like a map (`model.num_layers`). Data that is too large for a script is not
//! readable.

use std::fmt;
use std::sync::Arc;

use rhai::{Dynamic, Engine};
use serde_json::Value;

use super::candidate::CandidateHandle;
use super::findings::{BootstrapHandle, DetectionHandle};
use super::gpu::Gpu;
use super::option_types::{HandleOption, ReadOption};
use super::options::Options;
use super::readable::{Readable, register_handle};
use crate::error::Result;
use crate::host::language::bounds::MAX_ARRAY;
use crate::host::language::json::{numbers_to_dynamic, to_json_with};
use crate::host::language::problem::{ScriptResult, throw};
use crate::record::option_types::Plain;
use crate::record::{Activations, LoadArgs, ModelInfo, Tokens, field, number, plain};
use crate::results::Stored;
use crate::session::Session;
use crate::stats::Questions;
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
pub(crate) struct ActivationsHandle(pub Arc<Questions>);

#[derive(Clone)]
pub(crate) struct StoredHandle {
    pub stored: Arc<Stored>,
    questions: Arc<Questions>,
}

impl ActivationsHandle {
    pub(crate) fn new(acts: Arc<Activations>) -> Self {
        Self(Questions::new(acts))
    }
}

impl StoredHandle {
    pub(crate) fn new(stored: Stored) -> Self {
        let questions = Questions::new(stored.activations.clone());
        Self { stored: Arc::new(stored), questions }
    }
}

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
        summary(self.activations())
    }
    fn field(&self, name: &str) -> Option<Value> {
        match name {
            "sites" => Some(site_names(self.activations())),
            "norms" => Some(norm_names(self.activations())),
            "tokens" => Some(tokens(self.activations())),
            "lanes" => Some(plain(&self.activations().lanes)),
            _ if FOLDS.contains(&name) => None,
            _ => field(&**self.activations(), name),
        }
    }
    fn line(&self) -> String {
        let acts = self.activations();
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
    fn json(&self) -> Value {
        let names = ["path", "found", "intervals", "settings", "activations"];
        names.iter().filter_map(|name| Some((name.to_string(), self.field(name)?))).collect()
    }
    fn field(&self, name: &str) -> Option<Value> {
        let stored = &self.stored;
        match name {
            "path" => Some(stored.folder.display().to_string().into()),
            "found" => Some(plain(&*stored.found)),
            "intervals" => Some(plain(&stored.intervals.as_deref())),
            "settings" => Some(stored.settings.clone().into()),
            "activations" => Some(summary(&stored.activations)),
            _ => None,
        }
    }
    fn line(&self) -> String {
        format!("{}: {}", self.stored.folder.display(), DetectionHandle::new(self.stored.found.clone()).line())
    }
}

/// The parts of a record that are too large for a script, or that a function reads.
const FOLDS: [&str; 3] = ["all", "without_first", "measures"];

/// The sites of which a record has ladders beside those of the norms.
fn site_names(acts: &Activations) -> Value {
    acts.sites.iter().map(|ladders| ladders.site.name()).collect()
}

fn norm_names(acts: &Activations) -> Value {
    acts.norms.iter().map(|norm| norm.name()).collect()
}

/// The tokens of a record. One that was neither cut nor joined has no parts.
fn tokens(acts: &Activations) -> Value {
    let mut json = plain(&acts.tokens);
    if acts.tokens.parts.is_empty() {
        json["parts"] = Value::Array(Vec::new());
    }
    json
}

/// All parts of a record but the folds.
fn summary(acts: &Activations) -> Value {
    let mut json = plain(&acts.clone_light());
    if let Some(map) = json.as_object_mut() {
        map.retain(|key, _| !FOLDS.contains(&key.as_str()));
        map.insert("norms".into(), norm_names(acts));
        map.insert("tokens".into(), tokens(acts));
        map.insert("sites".into(), site_names(acts));
        map.insert("lanes".into(), plain(&acts.lanes));
    }
    json
}

/// The text of a handle that says more than its fields, on a terminal of `width` columns or without
/// one.
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
    let stored = stored.or_else(|| of::<CandidateHandle>(value));
    stored.or_else(|| of::<Gpu>(value))
}

pub(crate) fn register(engine: &mut Engine) {
    register_handle::<Model>(engine);
    register_handle::<TokensHandle>(engine);
    register_handle::<ActivationsHandle>(engine);
    register_handle::<StoredHandle>(engine);
    engine.register_get("mean_nll", |acts: &mut ActivationsHandle| {
        numbers_to_dynamic(&number::plain(&acts.activations().mean_nll))
    });
    engine.register_get("activations", |stored: &mut StoredHandle| ActivationsHandle(stored.questions.clone()));
    engine.register_get("found", |stored: &mut StoredHandle| DetectionHandle::new(stored.stored.found.clone()));
    engine.register_get("intervals", |stored: &mut StoredHandle| match &stored.stored.intervals {
        Some(intervals) => Dynamic::from(BootstrapHandle::new(intervals.clone(), stored.questions.activations())),
        None => Dynamic::UNIT,
    });
    // Maps and arrays, for found.to_json(), because Rhai's own formats floats and strings
    // differently.
    engine.register_fn("to_json", |map: &mut rhai::Map| json_text(&map.clone().into()));
    engine.register_fn("to_json", |array: &mut rhai::Array| json_text(&array.clone().into()));
}

impl ReadOption for Plain {
    fn read(o: &Options, key: &str) -> Result<Option<Value>> {
        o.json(key, as_json)
    }
}

/// A value of scripts as JSON. Handles become their readable fields, wherever they are in it.
pub(crate) fn as_json(value: &Dynamic) -> Result<Value> {
    to_json_with(value, &handle_json)
}

fn json_text(value: &Dynamic) -> ScriptResult<String> {
    as_json(value).map(|json| json.to_string()).map_err(throw)
}

/// A handle of a record, new or stored.
pub(crate) trait RecordHandle: Clone + Send + Sync + 'static {
    fn questions(&self) -> &Arc<Questions>;

    fn activations(&self) -> &Arc<Activations> {
        self.questions().activations()
    }
}

impl RecordHandle for ActivationsHandle {
    fn questions(&self) -> &Arc<Questions> {
        &self.0
    }
}

impl RecordHandle for StoredHandle {
    fn questions(&self) -> &Arc<Questions> {
        &self.questions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TokensInfo;

    #[test]
    fn every_field_of_tokens_reads_alone() {
        let (source, sha256) = ("ids.json".to_string(), "0".repeat(64));
        let info = TokensInfo { source, revision: None, num_sequences: 1, sequence_length: 2, sha256, parts: vec![] };
        let tokens = TokensHandle(Arc::new(Tokens { ids: vec![vec![3, 4]], info }));
        let json = tokens.json();
        assert!(json.as_object().unwrap().len() > 4);
        for (name, value) in json.as_object().unwrap() {
            assert_eq!(tokens.field(name).as_ref(), Some(value), "{name}");
        }
        assert_eq!(tokens.field("text"), None);
    }
}
