//! Requests to the engine that are the same here and on another machine: load_model, estimate_vram,
//! miniature_model.

use std::path::{Component, Path};
use std::sync::Arc;

use rhai::{Dynamic, Map};

use crate::cuda;
use crate::error::{Error, Kind, Result};
use crate::home;
use crate::host::language::json::to_dynamic;
use crate::host::language::weight;
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::values::handles::{Model, ModelHandle};
use crate::host::values::options::Options;
use crate::record::{
    ComputeDtype, DEFAULT_CHUNK_LAYERS, DEFAULT_MEMORY_BUDGET, Estimate, EstimateArgs, LoadArgs, plain,
};
use crate::remote;
use crate::session::{Op, Reply, Session};

const DTYPES: &[(&str, ComputeDtype)] = &[("f32", ComputeDtype::F32), ("bf16", ComputeDtype::Bf16)];

/// The largest number of tokens in an estimate, for which all sums fit into 64 bits.
const MAX_TOKENS: usize = 1 << 36;

/// The session and progress reports of a primitive of the engine.
pub(crate) struct Place<'a> {
    pub session: &'a Arc<dyn Session>,
    pub context: &'a Context,
}

impl<'a> Place<'a> {
    /// This machine.
    pub(crate) fn here(context: &'a Context) -> Self {
        Self { session: &context.session, context }
    }

    /// The reply to a request. In a plan, an error is recorded.
    pub(crate) fn call(&self, op: Op) -> Result<Reply> {
        let reply = weight::beside(|| self.session.call(op, &*self.context.progress()));
        if let (Err(error), Some(stage)) = (&reply, self.context.plan()) {
            stage.goes_wrong(error.message.clone());
        }
        reply
    }

    /// The error of a missing model on a machine: a local folder must be sent first.
    fn there(&self, id: &str, error: Error) -> Error {
        let Some(machine) = self.session.machine().filter(|_| error.kind == Kind::NotFound) else { return error };
        let here = home::expanded(id).exists();
        let error = error.context(format!("on {machine}"));
        match remote::inside("sync", id) {
            Ok(()) if here => error.hint(format!("it is here, and not there: gpu.sync(#{{ up: {id:?} }}) sends it")),
            _ if here => error.hint("it is here, and not there: gpu.sync(#{ up: … }) sends folders of the project"),
            _ => error,
        }
    }

    /// Loads a model with these arguments.
    pub(crate) fn load(&self, args: LoadArgs) -> Result<Model> {
        let reply = self.call(Op::Load(args.clone())).map_err(|error| self.there(&args.id, error))?;
        let (info, folder) = reply.model()?;
        Ok(Model(Arc::new(ModelHandle { session: self.session.clone(), args, info, folder })))
    }
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

/// Loads a model at `place`.
pub(crate) fn load_model(place: &Place, id: &str, options: Map) -> Result<Model> {
    let args = load_args(id, &Options::of("load_model", options)?)?;
    place.context.acts("load_model");
    place.context.may_fail("load_model")?;
    place.load(args)
}

/// The estimate of an analysis at `place`, as a value of scripts.
pub(crate) fn estimate(place: &Place, id: &str, options: Map) -> Result<Dynamic> {
    estimated(place, id, options).map(|estimate| to_dynamic(&plain(&estimate)))
}

/// The same as a record.
pub(crate) fn estimated(place: &Place, id: &str, options: Map) -> Result<Estimate> {
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

/// The miniature `name`, written at `place` below its folder `results`.
pub(crate) fn miniature(place: &Place, results: &Path, name: &str) -> Result<Dynamic> {
    place.context.acts("miniature_model");
    let folder = results.join("miniature_models");
    // An unknown name is reported by the table of miniatures.
    let own = if Path::new(name).components().eq([Component::Normal(name.as_ref())]) { name } else { "" };
    places::within(place.context, "miniature_model", &folder.join(own).join("model"), "results")?;
    if !place.context.bounds.commands_here {
        place.session.confined("miniature_model", &folder.join(own).display().to_string())?;
    }
    let folder = folder.display().to_string();
    let made = place.call(Op::Miniature { folder, name: name.to_string() })?.miniature()?;
    Ok(to_dynamic(&plain(&made)))
}
