//! Primitives of results: save_results and load_results.

use std::path::{Component, PathBuf};
use std::sync::Arc;

use rhai::{Engine, Map};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::home;
use crate::host::language::problem::thrown;
use crate::host::language::weight;
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::values::findings::{FoundOption, IntervalsOption};
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::option_types::Handle;
use crate::progress::Event;
use crate::record::option::option_set;
use crate::record::option_types::{Optional, Plain};
use crate::results::{self, Analysis};
use crate::secret::ledger_name;

option_set! {
    /// The options of save_results.
    pub(crate) struct SaveOptions {
        /// what extract_layernorms returned
        activations: Handle<ActivationsHandle>;
        /// what detect_outliers returned
        found: FoundOption;
        /// what bootstrap_ci returned
        intervals: Optional<IntervalsOption>;
        /// notes of your own
        settings: Plain = Value::Object(Default::default());
    }
}

pub(crate) const SAVE_RESULTS: Declared<SaveOptions> = Declared::new(
    "save_results",
    &["save_results(name: string, options: map) -> string"],
    "Writes results/<name>/ and gives its path. The folder is replaced as a whole: the earlier analysis is there until the new \
     one is. An absolute path, or one that begins with ~/, is a place of its own, which `outlier run --allow-write DIR` must allow.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));
print(save_results("first", #{ activations: acts, found: acts.detect_outliers() }));"#,
);

pub(crate) const LOAD_RESULTS: Declared<NoOptions> = Declared::new(
    "load_results",
    &["load_results(path: string) -> results"],
    "Reads a folder below results/ back. What it gives answers detect_outliers and bootstrap_ci without the model. Options \
     that are left out are the defaults then, as on fresh activations; the criterion that was stored is \
     `found.criterion`, and stored.detect_outliers(stored.found.criterion) applies it again. `outlier rethreshold` \
     keeps it instead. Answers that the record does not give were changed in their file: that is told, and the \
     record's own are given.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));
save_results("first", #{ activations: acts, found: acts.detect_outliers() });
let stored = load_results("first");
print(stored.detect_outliers(#{ magnitude_threshold: 3.0 }).num_features);"#,
);

pub(crate) const HAS_RESULTS: Declared<NoOptions> = Declared::new(
    "has_results",
    &["has_results(path: string) -> bool"],
    "Whether a finished analysis of this name is stored.",
    r#"if !has_results("not_made_yet") { print("not yet"); }"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(SAVE_RESULTS.name(), move |name: &str, options: Map| thrown(save(&c, name, options)));
    let c = context.clone();
    engine.register_fn(LOAD_RESULTS.name(), move |path: &str| thrown(load(&c, path)));
    let c = context.clone();
    engine.register_fn(HAS_RESULTS.name(), move |path: &str| {
        thrown(below_results(&c, path)).map(|folder| results::exists(&folder))
    });
}

/// Writes `results/<name>/` and returns its path.
fn save(context: &Context, name: &str, options: Map) -> Result<String> {
    let SaveOptions { activations: acts, found, intervals, settings } = SAVE_RESULTS.read(options)?;
    let Value::Object(settings) = settings else {
        return Err(Error::bad_argument(format!("save_results: `settings` is {settings}, expected a map"))
            .hint("settings are notes of your own: #{ note: \"first try\" }"));
    };
    let (root, name) = place(context, name)?;
    let analysis = Analysis {
        name: name.clone(),
        found: Arc::unwrap_or_clone(found),
        intervals: intervals.map(Arc::unwrap_or_clone),
        settings,
    };
    let named = |error: Error| error.context("save_results");
    if let Some(intervals) = &analysis.intervals {
        results::check_criteria(&analysis.found, intervals).map_err(named)?;
    }
    let folder = root.join(&name);
    // A file in the folder is checked, so that a link in place of the folder is followed, too.
    places::within(context, "save_results", &folder.join("config.json"), "results")?;
    if let Some(stage) = context.plan() {
        stage.stores(&root, &name, acts.activations().num_sequences);
        return Ok(folder.display().to_string());
    }
    let progress = context.progress();
    let saved = weight::beside(|| results::save(&root, acts.activations(), &analysis, context.began, &*progress));
    let saved = saved.map_err(|error| if error.kind == Kind::BadArgument { named(error) } else { error })?;
    context.unsaved.saved(acts.activations());
    if let Some(time) = saved.replaced {
        let (folder, time) = (saved.folder.display(), humantime::format_rfc3339_seconds(time));
        progress.event(Event::Warning(format!(
            "{folder}: another run has saved this name at {time}, while this one was at work; its analysis is replaced"
        )));
    }
    Ok(saved.folder.display().to_string())
}

/// The folder and the name of an analysis. A name is below `results/`, with or without that prefix.
/// An absolute path, or one that begins with `~/`, is a place that the user must allow.
fn place(context: &Context, name: &str) -> Result<(PathBuf, String)> {
    let given = places::relative(context, name);
    let elsewhere = home::expanded(name).is_absolute() && !given.starts_with("results");
    let there = context.root.join(&given);
    if let (true, Some(folder), Some(last)) = (elsewhere, there.parent(), there.file_name()) {
        let last = last.to_string_lossy().into_owned();
        results::check_name(&last)?;
        return match places::is_allowed(context, &there) {
            true => Ok((folder.to_path_buf(), last)),
            false => Err(Error::bad_argument(format!("{name:?} is not a name for results, nor a place that may be written to"))
                .hint(format!(
                    "use letters, digits, '-', '_' and '.', such as \"{last}\", for a name below results/; or let scripts write there: \
                     `outlier run --allow-write {} SCRIPT`",
                    folder.display()
                ))),
        };
    }
    let below = match given.strip_prefix("results") {
        Ok(below) if below.components().next().is_some() => below,
        _ => &given,
    };
    let below = below.to_string_lossy().into_owned();
    results::check_name(&below).map_err(|error| match name.contains('/') && !ledger_name(below.as_ref()) {
        true => error.hint(
            "use letters, digits, '-', '_' and '.' for a name below results/; a place elsewhere is an absolute path, or begins with ~/, and \
              `outlier run --allow-write DIR SCRIPT` must allow it",
        ),
        false => error,
    })?;
    Ok((context.results(), below))
}

fn load(context: &Context, path: &str) -> Result<StoredHandle> {
    let folder = below_results(context, path)?;
    let stored = weight::beside(|| results::load(&folder));
    let stored = stored.map_err(|error| results::missing(&context.results(), &folder, error))?;
    if let Some(changed) = &stored.changed {
        context.progress().event(Event::Warning(changed.clone()));
    }
    if let Some(stage) = context.plan() {
        stage.loads(&folder);
    }
    Ok(StoredHandle::new(stored))
}

/// A folder by its name below `results/`, or by its path.
fn below_results(context: &Context, path: &str) -> Result<PathBuf> {
    let given = &home::expanded(path);
    if given.components().any(|part| part == Component::ParentDir) {
        return Err(Error::bad_argument(format!("load_results: \"{path}\" leads out of the project"))
            .hint("name a folder below results/"));
    }
    let below = context.results().join(given.strip_prefix("results").unwrap_or(given));
    // A folder of models may have the name of a result.
    Ok(if below.is_dir() || !given.is_dir() { below } else { given.to_path_buf() })
}
