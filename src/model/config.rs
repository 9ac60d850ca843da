//! Reads a checkpoint's `config.json` key by key, and refuses what nobody read.
//!
//! A setting the engine ignores gives wrong numbers that look right, so every key is either read by the architecture,
//! known to have no effect on a forward pass, or an error that names it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::outside;
pub use crate::outside::json::shown;

/// Keys without effect on a prefill in evaluation mode, whatever their value.
const WITHOUT_EFFECT: &[&str] = &[
    "architectures",
    "auto_map",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "unk_token_id",
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "aux_loss_alpha",
    "seq_aux",
    "initializer_range",
    "init_std",
    "initializer_factor",
    "attention_dropout",
    "hidden_dropout",
    "activation_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "dropout",
    "layerdrop",
    "pretraining_tp",
    "use_bfloat16",
    "torchscript",
    "gradient_checkpointing",
    "task_specific_params",
    "id2label",
    "label2id",
    "problem_type",
    "prefix",
    "is_decoder",
    "is_encoder_decoder",
    "cross_attention_hidden_size",
    "add_cross_attention",
    "attn_implementation",
    "chunk_size_feed_forward",
    "tokenizer_class",
    "unsloth_version",
    "unsloth_fixed",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "reorder_and_upcast_attn",
    "mlp_dropout",
    "finetuning_task",
    "tie_encoder_decoder",
    "cache_implementation",
    // How to generate: older releases keep it here.
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
];

/// No setting of a model is a larger whole number: the largest are vocabularies and context lengths.
const MAX_NUMBER: usize = 1 << 28;
/// Layers of a model; the deepest that are released have 126.
const MAX_LAYERS: usize = 1 << 12;
/// Routed experts of all layers of a model; the most that are released have 24,576.
pub const MAX_EXPERTS: usize = 1 << 17;
/// Settings that one message names.
const NAMED: usize = 8;

/// Bytes of a config.json: with lists of settings for every layer the longest have some hundred thousand.
const MAX_BYTES: usize = 4 << 20;

pub struct Config {
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    /// Where it came from, for messages.
    place: String,
}

impl Config {
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(Error::corrupt(format!(
                "reading {place}: {} bytes, more than any config.json has",
                text.len()
            ))
            .hint("download the file again"));
        }
        let value = outside::json::from_slice(text.as_bytes(), outside::json::SMALL).map_err(|e| {
            Error::corrupt(format!("reading {place}: not valid JSON: {}", outside::complaint(e)))
                .hint("download the file again")
        })?;
        match value {
            Value::Object(map) => Ok(Self { map, read: RefCell::default(), place: place.to_string() }),
            _ => Err(Error::corrupt(format!("reading {place}: not a JSON object")).hint("download the file again")),
        }
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// The value of `key`; JSON null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Not there at all, not even as null.
    pub fn missing(&self, key: &str) -> bool {
        !self.map.contains_key(key)
    }

    fn typed<T>(&self, key: &str, what: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.wrong(key, &format!("is {}, expected {what}", shown(value)))),
            },
        }
    }

    /// An error about one key.
    pub fn wrong(&self, key: &str, problem: &str) -> Error {
        Error::unsupported(format!("{}: `{key}` {problem}", self.place))
            .hint("is this the config.json that belongs to the weights, unchanged?")
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            Error::corrupt(format!("{}: `{key}` is missing", self.place))
                .hint("is this the config.json of the model, and complete?")
        })
    }

    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        match self.typed(key, "a whole number", Value::as_u64)? {
            Some(n) if n > MAX_NUMBER as u64 => Err(self.wrong(key, &format!("is {n}, more than any model has"))),
            number => Ok(number.map(|n| n as usize)),
        }
    }

    /// How many layers there are, under one of these keys.
    pub fn layers(&self, keys: &[&str]) -> Result<usize> {
        match self.size_by(keys)? {
            n if n > MAX_LAYERS => Err(self.wrong(keys[0], &format!("is {n}, more layers than any model has"))),
            n => Ok(n),
        }
    }

    /// The routed experts of a layer, of which a token visits `top_k`, in a model of so many layers.
    pub fn experts(&self, keys: &[&str], top_k: usize, layers: usize) -> Result<usize> {
        let count = self.size_by(keys)?;
        if count.saturating_mul(layers) > MAX_EXPERTS {
            let problem = format!("is {count}, in {layers} layers more experts than any model has");
            return Err(self.wrong(keys[0], &problem));
        }
        if top_k > count {
            let problem = format!("is {top_k}, more than the {count} experts");
            return Err(self.wrong("num_experts_per_tok", &problem));
        }
        Ok(count)
    }

    pub fn usize(&self, key: &str) -> Result<usize> {
        self.required(key, self.opt_usize(key)?)
    }

    /// A whole number that cannot be 0: sizes and counts.
    pub fn size(&self, key: &str) -> Result<usize> {
        match self.usize(key)? {
            0 => Err(self.wrong(key, "is 0")),
            n => Ok(n),
        }
    }

    /// A size that goes by several names; where more than one is there they must agree.
    pub fn size_by(&self, keys: &[&str]) -> Result<usize> {
        let mut found: Option<(&str, usize)> = None;
        for key in keys.iter().filter(|key| self.has(key)) {
            let value = self.size(key)?;
            match found {
                Some((first, other)) if other != value => {
                    return Err(self.wrong(key, &format!("is {value}, but `{first}` is {other}")));
                }
                _ => found = Some((key, value)),
            }
        }
        self.required(keys[0], found.map(|(_, value)| value))
    }

    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn f64(&self, key: &str) -> Result<f64> {
        self.required(key, self.opt_f64(key)?)
    }

    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub fn opt_str(&self, key: &str) -> Result<Option<String>> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_string))
    }

    pub fn opt_list_usize(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.typed(key, "a list of whole numbers", |v| {
            v.as_array()?.iter().map(|item| item.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
        })
    }

    pub fn opt_list_str(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a list of strings", |v| {
            v.as_array()?.iter().map(|item| item.as_str().map(str::to_string)).collect()
        })
    }

    /// The object under `key`, to be read and finished like the whole.
    pub fn section(&self, key: &str) -> Result<Option<Config>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Config { map: map.clone(), read: RefCell::default(), place: format!("{}: {key}", self.place) }))
            }
            Some(other) => Err(self.wrong(key, &format!("is {}, expected an object", shown(other)))),
        }
    }

    /// Accepts `key` only when absent, null or equal to `value`: other values are not computed.
    pub fn only(&self, key: &str, value: Value) -> Result<()> {
        match self.get(key) {
            None => Ok(()),
            Some(found) if *found == value => Ok(()),
            Some(found) if found.as_f64().is_some() && found.as_f64() == value.as_f64() => Ok(()),
            Some(found) => Err(self.wrong(key, &format!("is {}; only {value} is supported", shown(found)))),
        }
    }

    /// Marks keys of this architecture that do not change a prefill.
    pub fn without_effect(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| key.to_string()));
    }

    /// Call when the architecture has read what it knows: what is left is not understood.
    pub fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        let left = self.map.iter().filter(|(key, value)| {
            !value.is_null() && !read.contains(*key) && !key.starts_with('_') && !WITHOUT_EFFECT.contains(&key.as_str())
        });
        let named = |(key, value): (&String, &Value)| format!("`{}`: {}", outside::shown(key), shown(value));
        let left: Vec<_> = left.map(named).take(NAMED).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported(format!("{}: setting not understood: {}", self.place, left.join(", "))).hint(
            "a setting that is ignored can give wrong numbers that look right; if you know that it has no effect on the \
             forward pass, remove it from a copy of config.json",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "config.json").unwrap()
    }

    #[test]
    fn unread_keys_are_named() {
        let c = config(r#"{"hidden_size": 4, "attention_sinkhorn": 3, "use_cache": true, "_x": 1, "gone": null}"#);
        c.usize("hidden_size").unwrap();
        let error = c.finish().unwrap_err();
        assert!(error.message.contains("`attention_sinkhorn`: 3") && !error.message.contains("gone"), "{error}");
    }

    #[test]
    fn wrong_types_are_named() {
        let error = config(r#"{"hidden_size": "4"}"#).usize("hidden_size").unwrap_err();
        assert!(error.message.contains("`hidden_size` is \"4\", expected a whole number"), "{error}");
        assert!(config("{}").usize("hidden_size").unwrap_err().message.contains("`hidden_size` is missing"));
    }
}
