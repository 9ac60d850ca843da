//! Requests to the engine that are the same here and on another machine: load_model, estimate_vram,
//! miniature_model.

use std::path::{Component, Path};
use std::sync::Arc;

use rhai::Dynamic;

use crate::cuda;
use crate::error::{Error, Kind, Result};
use crate::home;
use crate::host::language::json::record_to_dynamic;
use crate::host::language::weight;
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::values::handles::{Model, ModelHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::option::option_set;
use crate::record::option_types::Include;
use crate::record::{Estimate, EstimateArgs, LoadArgs, MeasureArgs};
use crate::remote;
use crate::session::{EstimateWork, Load, Loaded, MakeMiniature, Request, Serve, Session};

/// The largest number of tokens in an estimate, for which all sums fit into 64 bits.
const MAX_TOKENS: usize = 1 << 36;

option_set! {
    /// The options of estimate_vram.
    pub(crate) struct EstimateOptions {
        model: Include<LoadArgs>;
        analysis: Include<EstimateArgs>;
        measure: Include<MeasureArgs>;
    }
}

pub(crate) const LOAD_MODEL: Declared<LoadArgs> = Declared::new(
    "load_model",
    &["load_model(id: string, options?: map) -> model", "load_model(gpu: gpu, id: string, options?: map) -> model"],
    "Opens a model: a folder with config.json and safetensors or PyTorch files, a GGUF file, or a hub id. Only headers \
     are read; weights are read when they are needed.",
    r#"let model = load_model("examples/shakespeare-olmoe", #{ dtype: "f32" });
print(`${format_count(model.num_layers, "layer")}, ${format_count(model.num_experts, "expert")}`);"#,
);

pub(crate) const ESTIMATE_VRAM: Declared<EstimateOptions> = Declared::new(
    "estimate_vram",
    &["estimate_vram(id: string, options?: map) -> map", "estimate_vram(gpu: gpu, id: string, options?: map) -> map"],
    "What an analysis will need in bytes and operations, from config.json and, where they are at hand, the headers of \
     the weights.",
    r#"let e = estimate_vram("examples/shakespeare-olmoe", #{ num_sequences: 4, sequence_length: 128 });
print(`reads ${format_bytes(e.read_bytes)}, needs ${format_bytes(e.total_bytes)} of memory`);"#,
);

pub(crate) const MINIATURE_MODEL: Declared<NoOptions> = Declared::new(
    "miniature_model",
    &["miniature_model(name: string) -> map", "miniature_model(gpu: gpu, name: string) -> map"],
    "Makes a small synthetic model with planted outlier features and gives its path, a text it can read, and the right \
     answer. Names: olmoe, gpt_oss, qwen3_moe, mixtral, qwen3_next, glm4_moe, gpt_oss_large; and for other kinds of layers \
     deepseek_v3 (latent attention), gemma2 (norms around sublayers, capped scores), gemma4 (embeddings per layer, \
     shared keys), phi (attention beside the feed-forward network), bloom (linear biases), nemotron_h (Mamba-2), \
     lfm2 (short convolutions).",
    r#"let made = miniature_model("olmoe");
print(`${made.path}: ${made.expected_classification} at ${made.expected_dims}`);"#,
);

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
    pub(crate) fn call<R: Request>(&self, request: R) -> Result<R::Reply>
    where
        dyn Session: Serve<R>,
    {
        let reply = weight::beside(|| self.session.call(request, &*self.context.progress()));
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
        let loaded = self.call(Load(args.clone())).map_err(|error| self.there(&args.id, error))?;
        let Loaded { info, folder } = loaded;
        Ok(Model(Arc::new(ModelHandle { session: self.session.clone(), args, info, folder })))
    }
}

/// The request for a model with these options.
///
/// # Errors
/// If the device has no such name.
fn checked(id: &str, args: LoadArgs) -> Result<LoadArgs> {
    cuda::check_name(&args.device)?;
    Ok(LoadArgs { id: id.to_string(), ..args })
}

/// Loads a model at `place`.
pub(crate) fn load_model(place: &Place, id: &str, args: LoadArgs) -> Result<Model> {
    let args = checked(id, args)?;
    place.context.acts("load_model");
    place.context.may_fail("load_model")?;
    place.load(args)
}

/// The estimate of an analysis at `place`, as a value of scripts.
pub(crate) fn estimate(place: &Place, id: &str, options: EstimateOptions) -> Result<Dynamic> {
    estimated(place, id, options).map(|estimate| record_to_dynamic(&estimate))
}

/// The same as a record.
pub(crate) fn estimated(place: &Place, id: &str, options: EstimateOptions) -> Result<Estimate> {
    let args = EstimateArgs { measure: options.measure, ..options.analysis };
    let tokens = args.num_sequences.saturating_mul(args.sequence_length);
    if tokens > MAX_TOKENS {
        return Err(Error::bad_argument(format!("estimate_vram: {tokens} tokens in all"))
            .hint(format!("num_sequences times sequence_length may be {MAX_TOKENS}")));
    }
    place.context.acts("estimate_vram");
    let request = EstimateWork { model: checked(id, options.model)?, args };
    place.call(request).map_err(|error| place.there(id, error))
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
    let made = place.call(MakeMiniature { folder, name: name.to_string() })?;
    Ok(record_to_dynamic(&made))
}
