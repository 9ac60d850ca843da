//! Primitives that write what other tools read: export_imatrix, export_act_scales,
//! export_ignore_recipe.

use std::sync::Arc;

use rhai::{Engine, Map};

use super::files::write;
use crate::error::{Error, Result};
use crate::host::language::problem::thrown;
use crate::host::run::context::Context;
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::QuantFormat;
use crate::record::option::option_set;
use crate::record::option_types::{Choice, Flag, PositiveFloat, Word};
use crate::results::{self, IgnoreRule, ScaleKind};

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

impl Word for QuantFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("int8_token", Self::Int8Token),
        ("int8_tensor", Self::Int8Tensor),
        ("fp8_token", Self::Fp8Token),
        ("mxfp4", Self::Mxfp4),
        ("nvfp4", Self::Nvfp4),
    ];
}

option_set! {
    /// The options of export_ignore_recipe.
    pub(crate) struct IgnoreOptions {
        /// the format in which errors are compared
        format: Choice<QuantFormat> = QuantFormat::Int8Token;
        /// linear layers are left out whose input has a larger relative squared error
        max_error: PositiveFloat = 0.001;
        /// leaves down projections with a super weight out, where these were measured
        super_weights: Flag = true;
        /// leaves super experts out, where experts were measured
        super_experts: Flag = true;
    }
}

pub(crate) const EXPORT_IGNORE_RECIPE: Declared<IgnoreOptions> = Declared::new(
    "export_ignore_recipe",
    &[
        "export_ignore_recipe(acts: activations, path: string, options?: map) -> string",
        "export_ignore_recipe(stored: results, path: string, options?: map) -> string",
    ],
    "Writes the linear layers that a quantiser should leave as they are, and gives the path: a JSON file whose list `ignore` \
     is what llm-compressor and compressed-tensors take, with the reason for each name. The record needs \
     `quantisation_error`.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let sites = ["attn_in", "attn_out", "ffn_in", "ffn_mid"];
let acts = model.extract(tokens, #{ sites: sites, observe: ["quantisation_error", "super_weights", "experts"] });
print(acts.export_ignore_recipe("results/ignore.json", #{ max_error: 1e-4 }));"#,
);

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
    let c = context.clone();
    engine.register_fn(EXPORT_IGNORE_RECIPE.name(), move |handle: T, path: &str| {
        thrown(ignore(&c, &handle, path, Map::new()))
    });
    let c = context.clone();
    engine.register_fn(EXPORT_IGNORE_RECIPE.name(), move |handle: T, path: &str, options: Map| {
        thrown(ignore(&c, &handle, path, options))
    });
}

fn ignore(context: &Context, handle: &impl RecordHandle, path: &str, options: Map) -> Result<String> {
    let function = EXPORT_IGNORE_RECIPE.name();
    let IgnoreOptions { format, max_error, super_weights, super_experts } = EXPORT_IGNORE_RECIPE.read(options)?;
    ends_with(function, path, ".json")?;
    let rule = IgnoreRule { format, max_error, super_weights, super_experts };
    let bytes = match context.plan() {
        Some(_) => Vec::new(),
        None => results::ignore_recipe(handle.activations(), &rule)?,
    };
    write(context, function, path, &bytes)
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
