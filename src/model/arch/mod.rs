//! The table of architectures: one file each, which turns a `config.json` into a `spec::Model`.
//!
//! To add one: write `arch/<model_type>.rs` like its nearest sibling and add a row to `ARCHITECTURES`.

#[cfg(test)]
mod configs;
mod decoder;
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
use super::inventory;
use super::spec::{Activation, Model};
use crate::error::{Error, Result};
use crate::outside::shown;
use crate::suggest;

/// What the spec depends on beyond the config: how the checkpoint at hand names its tensors.
pub trait Names {
    /// Whether the checkpoint holds a tensor of this name.
    fn has(&self, tensor: &str) -> bool;

    /// The first of `prefixes` under which `tensor` is stored.
    fn prefix(&self, prefixes: &[&str], tensor: &str) -> String {
        let found = prefixes.iter().find(|prefix| self.has(&format!("{prefix}{tensor}")));
        found.or(prefixes.first()).map(|prefix| prefix.to_string()).unwrap_or_default()
    }
}

/// Names as released: the first choice everywhere. For plans made from `config.json` alone.
pub struct Released;

impl Names for Released {
    fn has(&self, _: &str) -> bool {
        true
    }
}

type Build = fn(&Config, &dyn Names) -> Result<Model>;

/// `model_type` as config.json spells it, and the function that reads the rest.
#[rustfmt::skip]
const ARCHITECTURES: &[(&str, Build)] = &[
    ("glm4_moe", glm4_moe::model),
    ("gpt2", gpt2::model),
    ("gpt_oss", gpt_oss::model),
    ("llama", llama::model),
    ("mixtral", mixtral::model),
    ("olmoe", olmoe::model),
    ("opt", opt::model),
    ("qwen3", qwen3::model),
    ("qwen3_moe", qwen3_moe::model),
    ("qwen3_next", qwen3_next::model),
];

pub fn supported() -> impl Iterator<Item = &'static str> + Clone {
    ARCHITECTURES.iter().map(|(name, _)| *name)
}

/// The spec of the model that `config` describes. Every key of the config is understood or an error names it.
pub fn model(config: &Config, names: &dyn Names) -> Result<Model> {
    let model_type = config.opt_str("model_type")?.ok_or_else(|| {
        Error::corrupt(format!("{}: `model_type` is missing", config.place()))
            .hint("is this a Hugging Face config.json?")
    })?;
    let Some((_, build)) = ARCHITECTURES.iter().find(|(name, _)| *name == model_type) else {
        return Err(Error::unsupported(format!("{}: unknown model_type \"{}\"", config.place(), shown(&model_type)))
            .hint(match suggest::nearest(&model_type, supported()) {
                Some(near) => {
                    format!("did you mean `{near}`? supported are {}", supported().collect::<Vec<_>>().join(", "))
                }
                None => format!("supported are {}", supported().collect::<Vec<_>>().join(", ")),
            }));
    };
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
