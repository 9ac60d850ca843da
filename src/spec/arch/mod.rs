//! The table of architectures: one file each, which turns a `config.json` into a `spec::Model`.
//!
//! To add one: write `arch/<model_type>.rs` like its nearest sibling and add a row to
//! `ARCHITECTURES`.

mod activation;
mod afmoe;
mod alibi;
mod apertus;
mod bloom;
#[cfg(test)]
mod class_fields;
mod cohere;
mod cohere2;
#[cfg(test)]
mod configs;
mod decoder;
mod deepseek_v2;
mod deepseek_v3;
mod deepseek_v32;
mod dots1;
mod elsewhere;
mod ernie4_5_moe;
mod exaone4;
mod experts;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma4;
#[cfg(test)]
mod gemma4_configs;
mod gemma4_kinds;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod glm_moe_dsa;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod granitemoe;
mod hunyuan_v1_dense;
mod hunyuan_v1_moe;
mod hy_v3;
mod hybrid;
mod kimi_k2;
mod latent;
#[cfg(test)]
mod left_out;
mod lfm2;
mod llama;
mod llama4_text;
mod mamba;
mod minimax_m2;
mod ministral3;
mod mistral;
mod mistral4;
mod mixtral;
mod mpt;
mod names;
mod nemotron;
mod nemotron_h;
mod nested;
mod olmo2;
mod olmo3;
mod olmoe;
mod opt;
mod per_layer;
mod phi;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
#[cfg(test)]
mod released;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;
#[cfg(test)]
mod totals;
#[cfg(test)]
mod which_counts;

pub use names::{Names, Released};

use super::config::Config;
use super::naming::Naming;
use super::{Model, coded, inventory, quantised};
use crate::error::{Error, Result};
use crate::outside::shown;
use crate::suggest;

type Build = fn(&Config, &dyn Names) -> Result<Model>;

/// The names of most architectures. The second prefix belongs to models for question answering.
const USUAL: Naming =
    Naming { base: "model.", head: "lm_head.", in_memory: None, older: &["transformer."], nested: false };
const TRANSFORMER: Naming =
    Naming { base: "transformer.", head: "lm_head.", in_memory: None, older: &[], nested: false };
const GPT_NEOX: Naming = Naming { base: "gpt_neox.", head: "embed_out.", in_memory: None, older: &[], nested: false };
/// transformers 5 calls the base model as all others in memory.
const NEMOTRON_H: Naming =
    Naming { base: "backbone.", head: "lm_head.", in_memory: Some("model."), older: &[], nested: false };
const OPT: Naming = Naming { base: "model.", head: "lm_head.", in_memory: None, older: &[], nested: false };

/// A supported `model_type` in config.json, the names of its tensors, and the function that reads
/// the rest.
pub struct Kind(&'static str, Naming, Build);

impl Kind {
    /// The names of its tensors in files.
    pub fn naming(&self) -> Naming {
        self.1
    }
}

#[rustfmt::skip]
const ARCHITECTURES: &[Kind] = &[
    Kind("afmoe", USUAL, afmoe::model),
    Kind("apertus", USUAL, apertus::model),
    Kind("bloom", TRANSFORMER, bloom::model),
    Kind("cohere", USUAL, cohere::model),
    Kind("cohere2", USUAL, cohere2::model),
    Kind("deepseek_v2", USUAL, deepseek_v2::model),
    Kind("deepseek_v3", USUAL, deepseek_v3::model),
    Kind("deepseek_v32", USUAL, deepseek_v32::model),
    Kind("dots1", USUAL, dots1::model),
    Kind("ernie4_5_moe", USUAL, ernie4_5_moe::model),
    Kind("exaone4", USUAL, exaone4::model),
    Kind("falcon", TRANSFORMER, falcon::model),
    Kind("gemma", USUAL, gemma::model),
    Kind("gemma2", USUAL, gemma2::model),
    Kind("gemma3_text", USUAL, gemma3::model),
    Kind("gemma4_text", USUAL, gemma4::model),
    Kind("glm4", USUAL, glm4::model),
    Kind("glm4_moe", USUAL, glm4_moe::model),
    Kind("glm4_moe_lite", USUAL, glm4_moe_lite::model),
    Kind("glm_moe_dsa", USUAL, glm_moe_dsa::model),
    Kind("gpt2", TRANSFORMER, gpt2::model),
    Kind("gpt_neo", TRANSFORMER, gpt_neo::model),
    Kind("gpt_neox", GPT_NEOX, gpt_neox::model),
    Kind("gpt_oss", USUAL, gpt_oss::model),
    Kind("gptj", TRANSFORMER, gptj::model),
    Kind("granite", USUAL, granite::model),
    Kind("granitemoe", USUAL, granitemoe::model),
    Kind("hunyuan_v1_dense", USUAL, hunyuan_v1_dense::model),
    Kind("hunyuan_v1_moe", USUAL, hunyuan_v1_moe::model),
    Kind("hy_v3", USUAL, hy_v3::model),
    Kind("kimi_k2", USUAL, kimi_k2::model),
    Kind("lfm2", USUAL, lfm2::model),
    Kind("llama", USUAL, llama::model),
    Kind("llama4_text", USUAL, llama4_text::model),
    Kind("minimax_m2", USUAL, minimax_m2::model),
    Kind("ministral3", USUAL, ministral3::model),
    Kind("mistral", USUAL, mistral::model),
    Kind("mistral4", USUAL, mistral4::model),
    Kind("mixtral", USUAL, mixtral::model),
    Kind("mpt", TRANSFORMER, mpt::model),
    Kind("nemotron", USUAL, nemotron::model),
    Kind("nemotron_h", NEMOTRON_H, nemotron_h::model),
    Kind("olmo2", USUAL, olmo2::model),
    Kind("olmo3", USUAL, olmo3::model),
    Kind("olmoe", USUAL, olmoe::model),
    Kind("opt", OPT, opt::model),
    Kind("phi", USUAL, phi::model),
    Kind("phi3", USUAL, phi3::model),
    Kind("phimoe", USUAL, phimoe::model),
    Kind("qwen2", USUAL, qwen2::model),
    Kind("qwen2_moe", USUAL, qwen2_moe::model),
    Kind("qwen3", USUAL, qwen3::model),
    Kind("qwen3_5_moe_text", USUAL, qwen3_5::mixture),
    Kind("qwen3_5_text", USUAL, qwen3_5::dense),
    Kind("qwen3_moe", USUAL, qwen3_moe::model),
    Kind("qwen3_next", USUAL, qwen3_next::model),
    Kind("seed_oss", USUAL, seed_oss::model),
    Kind("smollm3", USUAL, smollm3::model),
    Kind("stablelm", USUAL, stablelm::model),
    Kind("starcoder2", USUAL, starcoder2::model),
];

/// A larger model, for images or speech, around a language model that is computed; the `model_type`
/// of the language model if its config has none; and whether head and embedding are tied by
/// default.
///
/// For some of them, transformers' AutoModelForCausalLM makes the larger model, and then the config
/// of the whole decides whether head and embedding are tied. For the others (`None`) it makes only
/// the language model, whose own config decides; but the class of the whole goes by the whole's
/// config, so that either may tie them.
struct Around(&'static str, &'static str, Option<bool>);

const AROUND: &[Around] = &[
    Around("gemma3", "gemma3_text", Some(true)),
    Around("gemma4", "gemma4_text", Some(true)),
    Around("kimi_k25", "kimi_k2", Some(true)),
    Around("llama4", "llama4_text", None),
    Around("mistral3", "mistral", Some(true)),
    Around("qwen3_5", "qwen3_5_text", None),
    Around("qwen3_5_moe", "qwen3_5_moe_text", None),
];

/// Keys of language models that the class of a larger model around them does not read.
const UNREAD_INSIDE: &[(&str, &str)] = &[("gemma3_text", "final_logit_softcapping")];

/// Keys of the whole model that apply to the language model if its own config does not have them.
const SHARED: &[&str] = &[TIED, "quantization_config", "compression_config", DTYPES[0], DTYPES[1]];
/// What a config calls the format that plain weights are stored in.
const DTYPES: [&str; 2] = ["dtype", "torch_dtype"];
const TIED: &str = "tie_word_embeddings";

/// Whether the model is one that larger ones contain.
pub fn is_inside(config: &Config) -> bool {
    let model_type = config.peek("model_type").and_then(|value| value.as_str());
    AROUND.iter().any(|Around(_, inside, _)| Some(*inside) == model_type)
}

/// The config of the language model inside a larger one and true, or the config itself and false.
///
/// # Errors
/// `unsupported` if `text_config` is not an object.
pub fn language_model(config: Config) -> Result<(Config, bool)> {
    let model_type = config.peek("model_type").and_then(|value| value.as_str());
    let Some(Around(_, inside, tied)) = AROUND.iter().find(|Around(around, ..)| Some(*around) == model_type) else {
        return Ok((config, false));
    };
    let Some(mut text) = config.inside("text_config", inside, SHARED)? else { return Ok((config, false)) };
    for (_, key) in UNREAD_INSIDE.iter().filter(|(of, _)| of == inside) {
        if text.peek(key).is_some() {
            text.tell(key, "changes nothing: only the model of texts alone reads it");
            text = text.saying(key, serde_json::Value::Null);
        }
    }
    let sizes = text.peek("model_type").and_then(|name| name.as_str()).map_or(&[][..], nested::sizes);
    let text = text.with_missing(sizes);
    let Some(usual) = tied else {
        let whole = config.bool_or(TIED, false)?;
        if whole && text.peek(TIED).is_some_and(|own| *own == false) {
            let says = "is false, but the whole model's is true; a head that is not in the files is the embedding, as where \
                        transformers makes the whole model";
            text.tell(TIED, says);
            return Ok((text.saying(TIED, true.into()), true));
        }
        return Ok((text, true));
    };
    let tied = config.bool_or(TIED, *usual)?;
    if text.peek(TIED).is_some_and(|own| *own != tied) {
        text.tell(
            TIED,
            &format!("is {}, but the whole model's is {tied}; as in transformers, the latter counts", !tied),
        );
    }
    Ok((text.saying(TIED, tied.into()), true))
}

pub fn supported() -> impl Iterator<Item = &'static str> + Clone {
    ARCHITECTURES.iter().map(|Kind(name, ..)| *name)
}

/// Larger models that are known by the language model inside them.
pub fn around() -> impl Iterator<Item = &'static str> {
    AROUND.iter().map(|Around(name, ..)| *name)
}

/// The architecture that `config` names.
///
/// # Errors
/// `unsupported` if it is unknown, or the weights are quantised in a way that is not read.
pub fn kind(config: &Config) -> Result<&'static Kind> {
    let model_type = config
        .opt_str("model_type")?
        .ok_or_else(|| config.absent("model_type", "is this a Hugging Face config.json?"))?;
    let Some(kind) = ARCHITECTURES.iter().find(|Kind(name, ..)| *name == model_type) else {
        return Err(unknown(config.place(), &model_type));
    };
    quantised::settings(config)?;
    Ok(kind)
}

/// The error of a `model_type` that is not supported: it exists elsewhere, is misspelt, or is
/// unknown.
fn unknown(place: &str, model_type: &str) -> Error {
    let all = supported().collect::<Vec<_>>().join(", ");
    if elsewhere::NAMES.contains(&model_type) {
        return Error::unsupported(format!("{place}: `{model_type}` is a real architecture that is not supported yet")).hint(format!(
            "supported are {all}; a config.json that calls it by one of these names gives the numbers of another model"
        ));
    }
    if let Some((_, name)) = elsewhere::OLDER.iter().find(|(older, _)| *older == model_type) {
        return Error::unsupported(format!(
            "{place}: `{model_type}` is the name of `{name}` in files of before transformers had it"
        ))
        .hint("take a later revision of this model, whose config.json has the keys of transformers");
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

/// The model that `config` describes. The error names any key of the config that is not understood.
pub fn model(config: &Config, names: &dyn Names) -> Result<Model> {
    let Kind(_, _, build) = kind(config)?;
    let mut model = build(config, names)?;
    let [dtype, older] = DTYPES.map(|key| config.get(key));
    model.stored_in_f32 = dtype.or(older).is_some_and(|dtype| dtype == "float32");
    let settings = quantised::settings(config)?;
    config.finish(&model.model_type)?;
    // After this check, sums of bytes cannot overflow.
    if !inventory::plausible(&model) {
        return Err(Error::unsupported(format!(
            "{}: its sizes make tensors larger than any model has",
            config.place()
        ))
        .hint("is this the config.json that belongs to the weights, unchanged?"));
    }
    coded::resolve(model, names, &settings)
}
