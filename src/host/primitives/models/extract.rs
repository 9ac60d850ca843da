//! Primitives of the engine: load_model, extract_layernorms, estimate_vram, miniature_model.

use std::path::Path;
use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};

use super::requests::{Place, estimate, load_model, miniature};
use crate::error::{Error, Result};
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::run::unsaved;
use crate::host::values::handles::{ActivationsHandle, Model, TokensHandle};
use crate::host::values::options::Options;
use crate::progress::Event;
use crate::record::{CheckpointArgs, DEFAULT_MEMORY_BUDGET, ExtractArgs, Keep};
use crate::results::{self, FULL_ACTIVATIONS as FULL};
use crate::secret::secret_name;
use crate::session::{Op, full_activations_bytes};
use crate::stats;

const KEEPS: &[(&str, Keep)] = &[("stats", Keep::Stats), ("full", Keep::Full)];

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn("load_model", move |id: &str, options: Map| thrown(load_model(&Place::here(&c), id, options)));
    let c = context.clone();
    engine.register_fn("load_model", move |id: &str| thrown(load_model(&Place::here(&c), id, Map::new())));
    let c = context.clone();
    engine.register_fn("extract_layernorms", move |model: Model, tokens: TokensHandle, options: Map| {
        thrown(extract(&c, &model, &tokens, options))
    });
    let c = context.clone();
    engine.register_fn("extract_layernorms", move |model: Model, tokens: TokensHandle| {
        thrown(extract(&c, &model, &tokens, Map::new()))
    });
    let c = context.clone();
    engine.register_fn("estimate_vram", move |id: &str, options: Map| thrown(estimate(&Place::here(&c), id, options)));
    let c = context.clone();
    engine.register_fn("estimate_vram", move |id: &str| thrown(estimate(&Place::here(&c), id, Map::new())));
    let c = context.clone();
    engine.register_fn("miniature_model", move |name: &str| -> ScriptResult<Dynamic> {
        thrown(miniature(&Place::here(&c), &c.results(), name))
    });
}

pub(crate) fn extract(
    context: &Context,
    model: &Model,
    tokens: &TokensHandle,
    options: Map,
) -> Result<ActivationsHandle> {
    let o = Options::of("extract_layernorms", options)?;
    context.acts("extract_layernorms");
    context.may_fail("extract_layernorms")?;
    let single = || o.float("thresholds").ok().flatten().map(|t| vec![t as f32]);
    let args = ExtractArgs {
        thresholds: single().map_or_else(|| o.floats("thresholds"), |t| Ok(Some(t)))?.unwrap_or_default(),
        keep: o.choice("keep", KEEPS)?.unwrap_or(Keep::Stats),
        out: o.path("out")?,
        logits: o.flag("logits")?.unwrap_or(false),
        memory_budget: o.bytes("memory_budget")?.unwrap_or(DEFAULT_MEMORY_BUDGET),
        checkpoint: checkpoint(context, &o)?,
    };
    if args.out.is_some() && args.keep != Keep::Full {
        let message = "extract_layernorms: `out` is given, and nothing is kept there: `keep` is \"stats\"";
        return Err(Error::bad_argument(message).hint("add keep: \"full\" for all activations, or leave `out` out"));
    }
    if let Some(out) = &args.out {
        places::in_project(context, "extract_layernorms: `out`", "folder", out.trim_end_matches('/'))?;
        places::within(context, "extract_layernorms: `out`", &context.root.join(out).join(FULL), "")?;
    }
    // Activations are written only to this folder, for any answer of the machine.
    let out = args.out.clone();
    if let Some(out) = &out {
        gives_way(context, &context.root.join(out).join(FULL))?;
    }
    // An absolute path was checked as a location of this computer.
    let relative = |path: &&String| !context.bounds.commands_here && !Path::new(path).is_absolute();
    for path in args.out.iter().chain(args.checkpoint.as_ref().map(|checkpoint| &checkpoint.path)).filter(relative) {
        model.0.session.confined("extract_layernorms", path)?;
    }
    let most = full_activations_bytes(&model.0.info, &tokens.0.info);
    let (asked, new_folder) = (args.clone(), unsaved::new_folder(&args));
    let op = Op::Extract { model: model.0.args.clone(), tokens: (*tokens.0).clone(), args };
    let place = Place { session: &model.0.session, context };
    let mut acts = place.call(op)?.activations()?;
    if context.plan().is_none() {
        stats::check_whole(&acts)?;
    }
    acts.full_activations = out;
    if let Some(folder) = &acts.full_activations {
        let file = format!("{folder}/{FULL}");
        place.session.fetch(&context.root, &file, most, &*context.progress())?;
    }
    context.measured.lock().expect("no panic under this lock").push(acts.clone_light());
    let acts = Arc::new(acts);
    if context.plan().is_none() {
        context.unsaved.add(&acts, asked, new_folder);
    }
    Ok(ActivationsHandle(acts))
}

/// Reports that activations of an earlier run will be replaced. Other files of the project stay.
fn gives_way(context: &Context, file: &Path) -> Result<()> {
    if std::fs::symlink_metadata(file).is_err() {
        return Ok(());
    }
    if !places::may_replace(context, file) && !results::is_full_activations(file) {
        let message = format!("extract_layernorms: {} is there already", file.display());
        return Err(Error::bad_argument(message).hint(
            "only files below results/, logs/ and checkpoints/ are replaced: let `out` name a folder there, remove the file, or say \
             `outlier run --allow-write DIR SCRIPT` with its folder",
        ));
    }
    let text = format!("{} is there already: it is replaced when this pass is complete", file.display());
    context.progress().event(Event::Note(text));
    Ok(())
}

/// The checkpoint file in the project's folder on the machine.
fn checkpoint(context: &Context, o: &Options) -> Result<Option<CheckpointArgs>> {
    let layers = o.whole("checkpoint_layers")?;
    let Some(path) = o.path("checkpoint")? else {
        return match layers {
            None => Ok(None),
            Some(_) => Err(Error::bad_argument("extract_layernorms: `checkpoint_layers` goes with `checkpoint`")
                .hint("add checkpoint: \"checkpoints/NAME\"")),
        };
    };
    if layers == Some(0) {
        return Err(Error::bad_argument("extract_layernorms: `checkpoint_layers` is 0")
            .hint("1 is after every layer; leave it out to let time decide"));
    }
    places::in_project(context, "extract_layernorms: `checkpoint`", "file", &path)?;
    // It is sent to the machine and back.
    if secret_name(Path::new(&path)) {
        return Err(Error::bad_argument(format!(
            "extract_layernorms: \"{path}\" may hold secrets, and is no checkpoint"
        ))
        .hint("name a file of its own, such as \"checkpoints/olmoe\""));
    }
    Ok(Some(CheckpointArgs { path, layers }))
}
