//! The table of architectures: one file each, which turns a `config.json` into a `spec::Model`.
//!
//! To add one: write `arch/<model_type>.rs` like its nearest sibling and add a row to `ARCHITECTURES`.

#[cfg(test)]
mod configs;
mod decoder;
mod elsewhere;
mod experts;
mod glm4_moe;
mod gpt2;
mod gpt_oss;
mod llama;
mod mixtral;
mod olmoe;
mod opt;
mod qwen3;
mod qwen3_moe;
mod qwen3_next;
#[cfg(test)]
mod released;

use super::config::Config;
use super::naming::Naming;
use super::{HEAD, Model, Tensor};
use super::{inventory, quantised};
use crate::error::{Error, Result};
use crate::outside::shown;
use crate::suggest;
use crate::vocabulary::Activation;

/// What the spec depends on beyond the config: which tensors the checkpoint at hand has, under their names in the whole model.
pub trait Names {
    /// Whether the checkpoint holds a tensor of this name.
    fn has(&self, tensor: &str) -> bool;

    /// Embedding and head. Where the config ties them, a head of its own counts nevertheless, and serves as the embedding where
    /// that is missing: transformers ties what is not in the files, and only that.
    fn ends(&self, tied: bool, embedding: Tensor) -> (Tensor, Tensor) {
        let head = Tensor::new(HEAD, embedding.shape.clone());
        match (tied, self.has(HEAD), self.has(&embedding.name)) {
            (true, true, false) => (head.clone(), head),
            (true, false, _) => (embedding.clone(), embedding),
            _ => (embedding, head),
        }
    }
}

/// Names as released, for plans made from `config.json` alone. No release has a head beside the embedding it is tied to.
pub struct Released;

impl Names for Released {
    fn has(&self, tensor: &str) -> bool {
        tensor != HEAD
    }
}

type Build = fn(&Config, &dyn Names) -> Result<Model>;

/// Names as almost all have them. The second prefix is that of models for question answering.
const USUAL: Naming = Naming { base: "model.", older: &["transformer."] };
const GPT2: Naming = Naming { base: "transformer.", older: &[] };
const OPT: Naming = Naming { base: "model.", older: &[] };

/// A supported `model_type` as config.json spells it, how its tensors are called, and the function that reads the rest.
pub struct Kind(&'static str, Naming, Build);

impl Kind {
    /// How its tensors are called in files.
    pub fn naming(&self) -> Naming {
        self.1
    }
}

#[rustfmt::skip]
const ARCHITECTURES: &[Kind] = &[
    Kind("glm4_moe", USUAL, glm4_moe::model),
    Kind("gpt2", GPT2, gpt2::model),
    Kind("gpt_oss", USUAL, gpt_oss::model),
    Kind("llama", USUAL, llama::model),
    Kind("mixtral", USUAL, mixtral::model),
    Kind("olmoe", USUAL, olmoe::model),
    Kind("opt", OPT, opt::model),
    Kind("qwen3", USUAL, qwen3::model),
    Kind("qwen3_moe", USUAL, qwen3_moe::model),
    Kind("qwen3_next", USUAL, qwen3_next::model),
];

/// Those whose MXFP4 weights are read.
const IN_MXFP4: &[&str] = &["gpt_oss"];

pub fn supported() -> impl Iterator<Item = &'static str> + Clone {
    ARCHITECTURES.iter().map(|Kind(name, ..)| *name)
}

/// The architecture that `config` names.
///
/// # Errors
/// `unsupported` where it is unknown, or its weights are quantised in a way that is not read.
pub fn kind(config: &Config) -> Result<&'static Kind> {
    let model_type = config
        .opt_str("model_type")?
        .ok_or_else(|| config.absent("model_type", "is this a Hugging Face config.json?"))?;
    let Some(kind) = ARCHITECTURES.iter().find(|Kind(name, ..)| *name == model_type) else {
        return Err(unknown(config.place(), &model_type));
    };
    quantised::refuse(config, IN_MXFP4.contains(&kind.0))?;
    Ok(kind)
}

/// The error of a `model_type` that is not computed: one that exists, a misspelt one, or one that nobody has heard of.
fn unknown(place: &str, model_type: &str) -> Error {
    let all = supported().collect::<Vec<_>>().join(", ");
    if elsewhere::NAMES.contains(&model_type) {
        return Error::unsupported(format!("{place}: `{model_type}` is a real architecture that is not supported yet")).hint(format!(
            "supported are {all}; a config.json that calls it by one of these names gives the numbers of another model"
        ));
    }
    let meant = suggest::misspelt(model_type, supported().chain(elsewhere::NAMES.iter().copied()));
    Error::unsupported(format!("{place}: unknown model_type \"{}\"", shown(model_type))).hint(match meant {
        Some(meant) if elsewhere::NAMES.contains(&meant) => {
            format!("`{meant}` is not supported yet; supported are {all}")
        }
        Some(meant) => format!("did you mean `{meant}`? supported are {all}"),
        None => format!("supported are {all}"),
    })
}

/// The spec of the model that `config` describes. Every key of the config is understood or an error names it.
pub fn model(config: &Config, names: &dyn Names) -> Result<Model> {
    let Kind(_, _, build) = kind(config)?;
    let model = build(config, names)?;
    config.finish(&model.model_type)?;
    // Everything that counts bytes may then multiply sizes.
    if !inventory::plausible(&model) {
        return Err(Error::unsupported(format!(
            "{}: its sizes make tensors larger than any model has",
            config.place()
        ))
        .hint("is this the config.json that belongs to the weights, unchanged?"));
    }
    Ok(model)
}

/// `hidden_act` by its name in transformers.
fn activation(c: &Config, key: &str, default: &str) -> Result<Activation> {
    let name = c.opt_str(key)?.unwrap_or_else(|| default.to_string());
    match name.as_str() {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        "gelu" | "gelu_python" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        _ => Err(c.wrong(
            key,
            &format!("is \"{}\"; supported are silu, relu, gelu, gelu_new, gelu_pytorch_tanh", shown(&name)),
        )),
    }
}
