//! Primitives that write what other tools read: export_imatrix, export_act_scales.

use std::sync::Arc;

use rhai::{Engine, Map};

use super::files::write;
use crate::error::{Error, Result};
use crate::host::language::problem::thrown;
use crate::host::run::context::Context;
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::option::option_set;
use crate::record::option_types::{Choice, Word};
use crate::results::{self, ScaleKind};

impl Word for ScaleKind {
    const WORDS: &'static [(&'static str, Self)] = &[("absmax", Self::Absmax), ("absmean", Self::AbsMean)];
}

option_set! {
    /// The options of export_act_scales.
    pub(crate) struct ScaleOptions {
        /// "absmax" is what SmoothQuant scales by, "absmean" what AWQ does
        statistic: Choice<ScaleKind> = ScaleKind::Absmax;
    }
}

pub(crate) const EXPORT_IMATRIX: Declared<NoOptions> = Declared::new(
    "export_imatrix",
    &[
        "export_imatrix(acts: activations, path: string) -> string",
        "export_imatrix(stored: results, path: string) -> string",
    ],
    "Writes the importance matrix that llama.cpp's quantiser reads, a GGUF file, and gives the path. The record needs moments \
     of attn_in, attn_out, ffn_in and ffn_mid, and for a mixture `experts`.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let sites = ["attn_in", "attn_out", "ffn_in", "ffn_mid"];
let acts = model.extract(tokens, #{ sites: sites, observe: ["moments", "experts"] });
print(acts.export_imatrix("results/imatrix.gguf"));"#,
);

pub(crate) const EXPORT_ACT_SCALES: Declared<ScaleOptions> = Declared::new(
    "export_act_scales",
    &[
        "export_act_scales(acts: activations, path: string, options?: map) -> string",
        "export_act_scales(stored: results, path: string, options?: map) -> string",
    ],
    "Writes a number for each input channel of every linear layer, a safetensors file with the names of the layers, and gives \
     the path. The record needs moments of the sites that the layers read.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ sites: ["attn_in", "attn_out"], observe: ["moments"] });
print(acts.export_act_scales("results/act_scales.safetensors"));"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    register_for::<ActivationsHandle>(engine, context);
    register_for::<StoredHandle>(engine, context);
}

fn register_for<T: RecordHandle>(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(EXPORT_IMATRIX.name(), move |handle: T, path: &str| thrown(imatrix(&c, &handle, path)));
    let c = context.clone();
    engine.register_fn(EXPORT_ACT_SCALES.name(), move |handle: T, path: &str| {
        thrown(scales(&c, &handle, path, Map::new()))
    });
    let c = context.clone();
    engine.register_fn(EXPORT_ACT_SCALES.name(), move |handle: T, path: &str, options: Map| {
        thrown(scales(&c, &handle, path, options))
    });
}

fn imatrix(context: &Context, handle: &impl RecordHandle, path: &str) -> Result<String> {
    let function = EXPORT_IMATRIX.name();
    ends_with(function, path, ".gguf")?;
    // In a plan nothing has been measured.
    let bytes = match context.plan() {
        Some(_) => Vec::new(),
        None => results::imatrix(handle.activations())?,
    };
    write(context, function, path, &bytes)
}

fn scales(context: &Context, handle: &impl RecordHandle, path: &str, options: Map) -> Result<String> {
    let function = EXPORT_ACT_SCALES.name();
    let ScaleOptions { statistic } = EXPORT_ACT_SCALES.read(options)?;
    ends_with(function, path, ".safetensors")?;
    let bytes = match context.plan() {
        Some(_) => Vec::new(),
        None => results::act_scales(handle.activations(), statistic)?,
    };
    write(context, function, path, &bytes)
}

/// What reads the file knows it by its name.
fn ends_with(function: &str, path: &str, end: &str) -> Result<()> {
    match path.ends_with(end) {
        true => Ok(()),
        false => Err(Error::bad_argument(format!("{function}: \"{path}\" does not end with {end}"))
            .hint(format!("give it that ending: \"{path}{end}\""))),
    }
}
