//! Primitives of the engine: load_model, extract_layernorms, extract, estimate_vram,
//! miniature_model.

use std::path::Path;
use std::sync::Arc;

use rhai::{Dynamic, Engine};

use super::requests::{ESTIMATE_VRAM, LOAD_MODEL, MINIATURE_MODEL, Place, estimate, load_model, miniature};
use super::texts;
use crate::error::{Error, Result};
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::run::unsaved;
use crate::host::values::handles::{ActivationsHandle, Model, TokensHandle};
use crate::host::values::option_sets::{Declared, register_with_options};
use crate::host::values::option_types::ReadOption;
use crate::host::values::options::Options;
use crate::progress::Event;
use crate::record::option::{ReadFrom, option_set};
use crate::record::option_types::Include;
use crate::record::{Checkpoint, CheckpointArgs, CheckpointOptions, ExtractArgs, Keep, LaneArgs, MeasureArgs};
use crate::results::{self, FULL_ACTIVATIONS as FULL};
use crate::secret::secret_name;
use crate::session::{Extract, full_activations_bytes};
use crate::stats;

option_set! {
    /// The options of extract.
    pub(crate) struct MeasuredExtraction {
        measure: Include<MeasureArgs>;
        lanes: Include<LaneArgs>;
        extraction: Include<ExtractArgs>;
    }
}

pub(crate) const EXTRACT: Declared<MeasuredExtraction> = Declared::new(
    "extract",
    &["extract(model: model, tokens: tokens, options?: map) -> activations"],
    "As extract_layernorms, and measures more in the same pass: other tensors than the norms, other quantities than \
     counts on the ladder, and what becomes of variants of the model.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ sites: ["attn_in", "resid_post"], observe: ["outliers", "moments"] });
print(acts.at("resid_post").norms.len());"#,
);

pub(crate) const EXTRACT_LAYERNORMS: Declared<ExtractArgs> = Declared::new(
    "extract_layernorms",
    &["extract_layernorms(model: model, tokens: tokens, options?: map) -> activations"],
    "Runs the model over the tokens, reading every weight once, and keeps what every later criterion needs of each \
     norm output: extremes, and counts on a ladder of thresholds.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }), #{ thresholds: [2.5] });
print(acts.norms.len());"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    register_with_options!(engine, LOAD_MODEL, |id: &str; args| load_model(&Place::here(&c), id, args));
    let c = context.clone();
    register_with_options!(engine, EXTRACT_LAYERNORMS, |model: Model, tokens: TokensHandle; options| {
        extract(&c, &model, &tokens, options)
    });
    let c = context.clone();
    register_with_options!(engine, EXTRACT, |model: Model, tokens: TokensHandle; options| {
        let MeasuredExtraction { measure, lanes, extraction } = options;
        // Lanes are compared by what the head computes.
        let logits = extraction.logits || !lanes.lanes.is_empty();
        extract(&c, &model, &tokens, ExtractArgs { measure, lanes, logits, ..extraction })
    });
    let c = context.clone();
    register_with_options!(engine, ESTIMATE_VRAM, |id: &str; options| estimate(&Place::here(&c), id, options));
    let c = context.clone();
    engine.register_fn(MINIATURE_MODEL.name(), move |name: &str| -> ScriptResult<Dynamic> {
        thrown(miniature(&Place::here(&c), &c.results(), name))
    });
}

pub(crate) fn extract(
    context: &Context,
    model: &Model,
    tokens: &TokensHandle,
    args: ExtractArgs,
) -> Result<ActivationsHandle> {
    context.acts("extract_layernorms");
    context.may_fail("extract_layernorms")?;
    check_checkpoint(context, args.checkpoint.as_ref())?;
    if args.out.is_some() && args.keep != Keep::Full {
        let message = "extract_layernorms: `out` is given, and nothing is kept there: `keep` is \"stats\"";
        return Err(Error::bad_argument(message).hint("add keep: \"full\" for all activations, or leave `out` out"));
    }
    if !args.measure.keeps_norms() && args.keep != Keep::Full {
        let message = "extract: `keep_sites`, `keep_layers` and `keep_sequences` say what is kept, and nothing is";
        return Err(Error::bad_argument(message).hint("add keep: \"full\", and out: \"results/NAME\""));
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
    let most = full_activations_bytes(&model.0.info, &tokens.0.info, &args.measure);
    let (asked, new_folder) = (args.clone(), unsaved::new_folder(&args));
    let request = Extract { model: model.0.args.clone(), tokens: (*tokens.0).clone(), args };
    let place = Place { session: &model.0.session, context };
    let mut acts = place.call(request)?;
    if context.plan().is_none() {
        stats::check_whole(&acts)?;
    }
    // Without logits the last layer computes no feed-forward network, and its experts see no token:
    // the counts of the other layers are not those of the model.
    if !asked.logits {
        acts.expert_coverage.clear();
    }
    if let Some(texts) = &mut acts.measures.token_texts
        && let Some(pieces) = texts::pieces(&place, model, &tokens.0.ids)
    {
        texts.set(&pieces);
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
    Ok(ActivationsHandle::new(acts))
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

impl ReadOption for Checkpoint {
    fn read(o: &Options, _: &str) -> Result<Option<Option<CheckpointArgs>>> {
        let CheckpointOptions { checkpoint, checkpoint_layers: layers } = CheckpointOptions::read(o)?;
        match (checkpoint, layers) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Error::bad_argument(format!("{}: `checkpoint_layers` goes with `checkpoint`", o.function()))
                    .hint("add checkpoint: \"checkpoints/NAME\""))
            }
            (Some(_), Some(0)) => Err(Error::bad_argument(format!("{}: `checkpoint_layers` is 0", o.function()))
                .hint("1 is after every layer; leave it out to let time decide")),
            (Some(path), layers) => Ok(Some(Some(CheckpointArgs { path, layers }))),
        }
    }
}

/// Checks that the checkpoint file may be in the project's folder on the machine.
fn check_checkpoint(context: &Context, checkpoint: Option<&CheckpointArgs>) -> Result<()> {
    let Some(CheckpointArgs { path, .. }) = checkpoint else { return Ok(()) };
    places::in_project(context, "extract_layernorms: `checkpoint`", "file", path)?;
    // It is sent to the machine and back.
    if secret_name(Path::new(path)) {
        return Err(Error::bad_argument(format!(
            "extract_layernorms: \"{path}\" may hold secrets, and is no checkpoint"
        ))
        .hint("name a file of its own, such as \"checkpoints/olmoe\""));
    }
    Ok(())
}
