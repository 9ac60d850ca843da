//! Primitives of the engine: load_model, extract_layernorms, estimate_vram, miniature_model.

use std::path::{Component, Path};
use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};

use super::context::Context;
use super::json::to_dynamic;
use super::options::Options;
use super::places;
use super::problem::{ScriptResult, thrown};
use super::unsaved;
use super::values::{ActivationsHandle, Model, ModelHandle, TokensHandle};
use super::weight;
use crate::cuda;
use crate::error::{Error, Kind, Result};
use crate::home;
use crate::progress::Event;
use crate::record::{
    CheckpointArgs, ComputeDtype, DEFAULT_CHUNK_LAYERS, DEFAULT_MEMORY_BUDGET, Estimate, EstimateArgs, ExtractArgs,
    Keep, LoadArgs, plain,
};
use crate::remote;
use crate::results::{self, FULL_ACTIVATIONS as FULL};
use crate::secret::secret_name;
use crate::session::{Op, Reply, Session, full_activations_bytes};
use crate::stats;

const DTYPES: &[(&str, ComputeDtype)] = &[("f32", ComputeDtype::F32), ("bf16", ComputeDtype::Bf16)];
const KEEPS: &[(&str, Keep)] = &[("stats", Keep::Stats), ("full", Keep::Full)];

/// Tokens of an estimate: far more than any analysis reads, and few enough for every sum over them to fit into 64 bits.
const MAX_TOKENS: usize = 1 << 36;

pub fn register(engine: &mut Engine, context: &Arc<Context>) {
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

fn load_args(id: &str, o: &Options) -> Result<LoadArgs> {
    let chunk_layers = o.whole("chunk_layers")?.unwrap_or(DEFAULT_CHUNK_LAYERS);
    if chunk_layers == 0 {
        return Err(Error::bad_argument("load_model: `chunk_layers` is 0").hint("at least one layer must be in memory"));
    }
    let device = o.string("device")?.unwrap_or_else(|| "auto".to_string());
    cuda::check_name(&device)?;
    Ok(LoadArgs {
        id: id.to_string(),
        revision: o.string("revision")?,
        dtype: o.choice("dtype", DTYPES)?.unwrap_or(ComputeDtype::F32),
        device,
        chunk_layers,
        stream: o.flag("stream")?.unwrap_or(false),
        max_vram: o.bytes("max_vram")?,
    })
}

/// Somewhere to run, and somebody to report to: what each primitive of the engine needs.
pub struct Place<'a> {
    pub session: &'a Arc<dyn Session>,
    pub context: &'a Context,
}

impl<'a> Place<'a> {
    /// This machine.
    fn here(context: &'a Context) -> Self {
        Self { session: &context.session, context }
    }

    pub fn call(&self, op: Op) -> Result<Reply> {
        let reply = weight::beside(|| self.session.call(op, &*self.context.progress()));
        if let (Err(error), Some(stage)) = (&reply, self.context.plan()) {
            stage.goes_wrong(error.message.clone());
        }
        reply
    }

    /// What is not found is not found on the machine: a folder that is here is none there before it was sent.
    fn there(&self, id: &str, error: Error) -> Error {
        let Some(machine) = self.session.machine().filter(|_| error.kind == Kind::NotFound) else { return error };
        let here = home::expanded(id).is_dir();
        let error = error.context(format!("on {machine}"));
        match remote::inside("sync", id) {
            Ok(()) if here => {
                error.hint(format!("the folder is here, and not there: gpu.sync(#{{ up: {id:?} }}) sends it"))
            }
            _ if here => {
                error.hint("the folder is here, and not there: gpu.sync(#{ up: … }) sends folders of the project")
            }
            _ => error,
        }
    }

    pub fn load(&self, args: LoadArgs) -> Result<Model> {
        let reply = self.call(Op::Load(args.clone())).map_err(|error| self.there(&args.id, error))?;
        let (info, folder) = reply.model()?;
        Ok(Model(Arc::new(ModelHandle { session: self.session.clone(), args, info, folder })))
    }
}

pub fn load_model(place: &Place, id: &str, options: Map) -> Result<Model> {
    let args = load_args(id, &Options::of("load_model", options)?)?;
    place.context.acts("load_model");
    place.context.may_fail("load_model")?;
    place.load(args)
}

pub fn extract(context: &Context, model: &Model, tokens: &TokensHandle, options: Map) -> Result<ActivationsHandle> {
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
    if let Some(out) = &args.out {
        places::in_project(context, "extract_layernorms: `out`", "folder", out.trim_end_matches('/'))?;
        places::within(context, "extract_layernorms: `out`", &context.root.join(out).join(FULL), "")?;
    }
    // Only there are activations written, whatever the machine says.
    let out = args.out.clone().filter(|_| args.keep == Keep::Full);
    if let Some(out) = &out {
        gives_way(context, &context.root.join(out).join(FULL))?;
    }
    // What is absolute has been judged as a place of this computer.
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

/// Activations of an earlier run give way, which is told; other files of the project stay.
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

/// The file for checkpoints: below the project's folder, wherever that is.
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
    // It travels to the machine that the work is done on, and back.
    if secret_name(Path::new(&path)) {
        return Err(Error::bad_argument(format!(
            "extract_layernorms: \"{path}\" may hold secrets, and is no checkpoint"
        ))
        .hint("name a file of its own, such as \"checkpoints/olmoe\""));
    }
    Ok(Some(CheckpointArgs { path, layers }))
}

pub fn estimate(place: &Place, id: &str, options: Map) -> Result<Dynamic> {
    estimated(place, id, options).map(|estimate| to_dynamic(&plain(&estimate)))
}

pub fn estimated(place: &Place, id: &str, options: Map) -> Result<Estimate> {
    let o = Options::of("estimate_vram", options)?;
    let args = EstimateArgs {
        num_sequences: o.positive("num_sequences")?.unwrap_or(16),
        sequence_length: o.positive("sequence_length")?.unwrap_or(2048),
        memory_budget: o.bytes("memory_budget")?.unwrap_or(DEFAULT_MEMORY_BUDGET),
        logits: o.flag("logits")?.unwrap_or(false),
        gpus: o.positive("gpus")?.unwrap_or(1),
    };
    let tokens = args.num_sequences.saturating_mul(args.sequence_length);
    if tokens > MAX_TOKENS {
        return Err(Error::bad_argument(format!("estimate_vram: {tokens} tokens in all"))
            .hint(format!("num_sequences times sequence_length may be {MAX_TOKENS}")));
    }
    place.context.acts("estimate_vram");
    let op = Op::Estimate { model: load_args(id, &o)?, args };
    place.call(op).map_err(|error| place.there(id, error))?.estimate()
}

/// The miniature `name`, made where `place` is, below its folder `results`.
pub fn miniature(place: &Place, results: &Path, name: &str) -> Result<Dynamic> {
    place.context.acts("miniature_model");
    let folder = results.join("miniature_models");
    // A name that is none is told by who knows them all.
    let own = if Path::new(name).components().eq([Component::Normal(name.as_ref())]) { name } else { "" };
    places::within(place.context, "miniature_model", &folder.join(own).join("model"), "results")?;
    if !place.context.bounds.commands_here {
        place.session.confined("miniature_model", &folder.join(own).display().to_string())?;
    }
    let folder = folder.display().to_string();
    let made = place.call(Op::Miniature { folder, name: name.to_string() })?.miniature()?;
    Ok(to_dynamic(&plain(&made)))
}
