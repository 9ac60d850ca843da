//! The config.json that transformers would have for the model in a GGUF file, from the metadata of
//! the file.
//!
//! Every key of the architecture is understood, or an error names it. Facts:
//! `gguf-py/gguf/constants.py`, `src/llama-model.cpp` and `convert_hf_to_gguf.py` of llama.cpp.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::header::{Header, damaged, unsupported};
use crate::error::Result;
use crate::outside::shown;

/// The architectures that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma3,
    GptOss,
}

/// As llama.cpp calls them, and as transformers does.
const FAMILIES: [(&str, &str, Family); 6] = [
    ("llama", "llama", Family::Llama),
    ("qwen2", "qwen2", Family::Qwen2),
    ("qwen3", "qwen3", Family::Qwen3),
    ("qwen3moe", "qwen3_moe", Family::Qwen3Moe),
    ("gemma3", "gemma3_text", Family::Gemma3),
    ("gpt-oss", "gpt_oss", Family::GptOss),
];

/// Keys behind the name of the architecture that change nothing in what is computed of a text.
const WITHOUT_EFFECT: &[&str] = &[
    "tensor_data_layout",
    "rope.scaling.finetuned",
    "pooling_type",
    "attention.causal",
    "mm.tokens_per_image",
    "expert_shared_count",
    "expert_group_count",
    "expert_group_used_count",
];

/// Decoder layers of Gemma 3 27B, whose queries are scaled by the size of a head of another model.
const GEMMA3_27B: u64 = 62;

/// The tensor that has the divisors of the frequencies of a rope, and its name.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Metadata of one file, and which of it has been read.
struct Reader<'a> {
    place: &'a str,
    metadata: &'a HashMap<String, Value>,
    arch: &'a str,
    read: RefCell<HashSet<String>>,
}

/// The family of the model in a file.
///
/// # Errors
/// `unsupported` where it is of another, or no language model.
pub(super) fn family(place: &str, metadata: &HashMap<String, Value>) -> Result<Family> {
    let kind = metadata.get("general.type").and_then(Value::as_str).unwrap_or("model");
    if kind != "model" {
        return Err(unsupported(place, format!("a GGUF file that holds no model: its type is \"{}\"", shown(kind))));
    }
    let arch = architecture(place, metadata)?;
    let known = FAMILIES.iter().find(|(name, ..)| *name == arch);
    known.map(|(_, _, family)| *family).ok_or_else(|| {
        let all: Vec<&str> = FAMILIES.iter().map(|(name, ..)| *name).collect();
        let what = format!("a GGUF file of the architecture \"{}\"; read are {}", shown(arch), all.join(", "));
        unsupported(place, what)
    })
}

fn architecture<'a>(place: &str, metadata: &'a HashMap<String, Value>) -> Result<&'a str> {
    let arch = metadata.get("general.architecture").and_then(Value::as_str);
    arch.ok_or_else(|| damaged(place, "`general.architecture` is missing in its metadata"))
}

impl Reader<'_> {
    /// The value behind the name of the architecture.
    fn value(&self, key: &str) -> Option<&Value> {
        let key = format!("{}.{key}", self.arch);
        let value = self.metadata.get(&key);
        self.read.borrow_mut().insert(key);
        value
    }

    fn wrong<T>(&self, key: &str, what: &str) -> Result<T> {
        Err(damaged(self.place, format!("`{}.{key}` in its metadata {what}", self.arch)))
    }

    /// A size that is one for all layers.
    fn size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let first = match value {
            Value::Array(list) if !list.is_empty() && list.iter().all(|other| *other == list[0]) => &list[0],
            Value::Array(_) => {
                let what = format!("`{}.{key}` differs between its layers, which is not computed", self.arch);
                return Err(unsupported(self.place, what));
            }
            value => value,
        };
        match first.as_u64() {
            Some(size) => Ok(Some(size)),
            None => self.wrong(key, "is no size"),
        }
    }

    fn required(&self, key: &str) -> Result<u64> {
        match self.size(key)? {
            Some(size) => Ok(size),
            None => self.wrong(key, "is missing"),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.value(key).map(|value| value.as_f64()) {
            None => Ok(None),
            Some(Some(number)) => Ok(Some(number)),
            Some(None) => self.wrong(key, "is no number"),
        }
    }

    /// Refuses a value that is there and another than the only one that is computed.
    fn only(&self, key: &str, due: f64) -> Result<()> {
        match self.value(key) {
            Some(value) if value.as_f64() != Some(due) && *value != Value::Bool(due != 0.0) => {
                let value = shown(&value.to_string());
                let what = format!("`{}.{key}` in its metadata is {value}, which is not computed", self.arch);
                Err(unsupported(self.place, what))
            }
            _ => Ok(()),
        }
    }

    fn rope(&self, config: &mut Map<String, Value>, factors: Option<Vec<f32>>) -> Result<()> {
        let kind = match self.value("rope.scaling.type").map(Value::as_str) {
            None => "none",
            Some(Some(kind)) => kind,
            Some(None) => return self.wrong("rope.scaling.type", "is no text"),
        };
        let factor = self.number("rope.scaling.factor")?;
        let original = self.size("rope.scaling.original_context_length")?;
        for key in ["rope.scaling.attn_factor", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"] {
            self.only(key, 1.0)?;
        }
        self.only("rope.scaling.yarn_log_multiplier", 0.0)?;
        let (fast, slow) = (self.number("rope.scaling.yarn_beta_fast")?, self.number("rope.scaling.yarn_beta_slow")?);
        if let Some(factors) = factors {
            if !["none", "longrope"].contains(&kind) {
                let what =
                    format!("factors of its rope ({ROPE_FACTORS}) beside scaling of the type \"{}\"", shown(kind));
                return Err(unsupported(self.place, what));
            }
            let factors: Vec<f64> = factors.into_iter().map(f64::from).collect();
            // One list for texts of every length: that is what llama.cpp turns by.
            let length = config["max_position_embeddings"].clone();
            config.insert(
                "rope_scaling".to_string(),
                json!({
                    "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0,
                    "original_max_position_embeddings": length, "short_factor": factors, "long_factor": factors,
                }),
            );
            return Ok(());
        }
        let scaling = match (kind, factor) {
            ("none", _) => return Ok(()),
            ("linear", Some(factor)) => json!({ "rope_type": "linear", "factor": factor }),
            ("yarn", Some(factor)) => {
                let Some(original) = original else {
                    return self.wrong("rope.scaling.original_context_length", "is missing");
                };
                let mut scaling = json!({
                    "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
                    "beta_fast": fast.unwrap_or(32.0), "beta_slow": slow.unwrap_or(1.0),
                });
                if self.arch == "gpt-oss" {
                    scaling["truncate"] = false.into();
                }
                scaling
            }
            ("linear" | "yarn", None) => return self.wrong("rope.scaling.factor", "is missing"),
            _ => {
                let what = format!("scaling of its rope of the type \"{}\" is not computed", shown(kind));
                return Err(unsupported(self.place, what));
            }
        };
        config.insert("rope_scaling".to_string(), scaling);
        Ok(())
    }

    /// Refuses keys of the architecture that nobody has read.
    fn finish(&self) -> Result<()> {
        let prefix = format!("{}.", self.arch);
        let read = self.read.borrow();
        let unread = |key: &&String| {
            let rest = key.strip_prefix(&prefix);
            rest.is_some_and(|rest| !WITHOUT_EFFECT.contains(&rest)) && !read.contains(*key)
        };
        match self.metadata.keys().filter(unread).min() {
            None => Ok(()),
            Some(key) => {
                let what = format!("`{}` in its metadata is not known, and may change the result", shown(key));
                Err(unsupported(self.place, what))
            }
        }
    }
}

/// The config of the model in a file with this header; `factors` are those of its rope.
///
/// # Errors
/// `corrupt` where what it needs is missing, `unsupported` where a key is not known or says what is
/// not computed.
pub(super) fn config(place: &str, header: &Header, factors: Option<Vec<f32>>) -> Result<Map<String, Value>> {
    let family = family(place, &header.metadata)?;
    let arch = architecture(place, &header.metadata)?;
    let reader = Reader { place, metadata: &header.metadata, arch, read: RefCell::default() };
    let model_type = FAMILIES.iter().find(|(.., known)| *known == family).map(|(_, name, _)| *name);
    let tensor = |name: &str| header.tensors.iter().find(|tensor| tensor.name == name);
    let Some([vocabulary, hidden]) = tensor("token_embd.weight").map(|tensor| &tensor.shape[..]) else {
        return Err(damaged(place, "`token_embd.weight` is missing, or no matrix"));
    };
    let (layers, embedding) = (reader.required("block_count")?, reader.required("embedding_length")?);
    if embedding != *hidden as u64 {
        return reader.wrong("embedding_length", &format!("is {embedding}, and embeddings have {hidden} numbers"));
    }
    let heads = reader.required("attention.head_count")?.max(1);
    let head_dim = reader.size("attention.key_length")?.unwrap_or(embedding / heads);
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(size) = reader.size(key)?.filter(|size| *size != head_dim) {
            let what = format!("`{arch}.{key}` is {size} beside heads of {head_dim}, which is not computed");
            return Err(unsupported(place, what));
        }
    }
    let context = reader.required("context_length")?;
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_string(), value));
    set("model_type", model_type.into());
    set("vocab_size", (*vocabulary).into());
    set("hidden_size", embedding.into());
    set("num_hidden_layers", layers.into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", reader.size("attention.head_count_kv")?.unwrap_or(heads).into());
    set("head_dim", head_dim.into());
    set("max_position_embeddings", context.into());
    set("tie_word_embeddings", tensor("output.weight").is_none().into());
    set("rms_norm_eps", reader.number("attention.layer_norm_rms_epsilon")?.into());
    let base = if family == Family::Gemma3 { 1e6 } else { 1e4 };
    set("rope_theta", reader.number("rope.freq_base")?.unwrap_or(base).into());
    reader.size("vocab_size")?;
    let inner = reader.size("feed_forward_length")?;
    let bias = |name: &str| tensor(&format!("blk.0.{name}.bias")).is_some();
    if family != Family::Qwen2 {
        set("attention_bias", bias("attn_q").into());
    }
    let experts = match family {
        Family::Qwen3Moe | Family::GptOss => {
            let (count, used) = (reader.required("expert_count")?, reader.required("expert_used_count")?);
            set("num_experts_per_tok", used.into());
            reader.only("expert_weights_norm", 1.0)?;
            Some((count, reader.size("expert_feed_forward_length")?.or(inner)))
        }
        _ => {
            reader.only("expert_count", 0.0)?;
            reader.only("expert_used_count", 0.0)?;
            None
        }
    };
    match (family, experts) {
        (Family::Qwen3Moe, Some((count, size))) => {
            set("num_experts", count.into());
            set("moe_intermediate_size", size.into());
            set("intermediate_size", inner.or(size).into());
            set("norm_topk_prob", true.into());
        }
        (_, Some((count, size))) => {
            set("num_local_experts", count.into());
            set("intermediate_size", size.into());
        }
        _ => set("intermediate_size", inner.into()),
    }
    if matches!(family, Family::Gemma3 | Family::GptOss) {
        set("sliding_window", reader.size("attention.sliding_window")?.into());
    }
    if family == Family::Gemma3 {
        let scaled = if layers == GEMMA3_27B { embedding / heads } else { head_dim };
        set("query_pre_attn_scalar", scaled.into());
        set("rope_local_base_freq", reader.number("rope.freq_base_swa")?.unwrap_or(1e4).into());
        set("final_logit_softcapping", reader.number("final_logit_softcapping")?.into());
        set("attn_logit_softcapping", reader.number("attn_logit_softcapping")?.into());
        set("sliding_window_pattern", reader.size("attention.sliding_window_pattern")?.unwrap_or(6).into());
    }
    if family == Family::GptOss {
        reader.only("attention.sliding_window_pattern", 2.0)?;
        reader.only("expert_gating_func", 3.0)?;
    } else {
        reader.only("expert_gating_func", 1.0)?;
    }
    reader.rope(&mut config, factors)?;
    reader.finish()?;
    config.retain(|_, value| !value.is_null());
    Ok(config)
}
