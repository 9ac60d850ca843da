//! The parts that Llama-like decoders share: sizes, embeddings, norms, attention. Names are those
//! of transformers modules.

use super::names::Names;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::rope::Rope;
use crate::spec::rope_config::{self, RopeDefaults};
use crate::spec::{
    Attention, Ends, Ffn, HeadNorm, Layer, Linear, Mixer, Model, Norm, QkNorm, Qkv, Reads, Sublayer, TensorSpec,
};
use crate::vocabulary::{NormKind, Span};

/// The values in transformers of keys that a config.json leaves out.
pub(super) struct Defaults {
    pub rms_norm_eps: f64,
    /// The key of the epsilon.
    pub eps_key: &'static str,
    /// True if head and embedding are tied by default.
    pub tied: bool,
    /// The key that ties them.
    pub tied_key: &'static str,
    /// None if the config must have it.
    pub vocab_size: Option<usize>,
    pub num_attention_heads: Option<usize>,
    /// None for as many as query heads.
    pub num_key_value_heads: Option<usize>,
    /// None for hidden size / heads.
    pub head_dim: Option<usize>,
    pub rope: RopeDefaults,
    /// If types of layers have ropes of their own, the type of `rope` and of `Decoder::rope`.
    pub rope_of: Option<&'static str>,
}

/// The defaults of Llama, which most related architectures share.
pub(super) const LLAMA: Defaults = Defaults {
    rms_norm_eps: 1e-6,
    eps_key: "rms_norm_eps",
    tied: false,
    tied_key: "tie_word_embeddings",
    vocab_size: None,
    num_attention_heads: None,
    num_key_value_heads: None,
    head_dim: None,
    rope: rope_config::DEFAULTS,
    rope_of: None,
};

/// The largest number of heads of a layer. Released models have at most some hundreds.
const MAX_HEADS: usize = 1 << 14;

/// Names of the norms after attention and feed-forward network if there are none before them (OLMo
/// 2).
pub(super) const POST_NORMS: [&str; 2] = ["post_attention_layernorm", "post_feedforward_layernorm"];

/// Names of the norms before and after both (Gemma 2).
pub(super) const GEMMA_NORMS: [&str; 4] =
    ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"];

/// The default of `max_window_layers` in the Qwen family.
pub(super) const MAX_WINDOW_LAYERS: usize = 28;
/// The default of `sliding_window` in the Qwen family.
const QWEN_SLIDING_WINDOW: usize = 4096;

/// Head counts and sizes of grouped-query attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    fn from_config(c: &Config, defaults: &Defaults) -> Result<Self> {
        let heads = c.size_or("num_attention_heads", defaults.num_attention_heads)?;
        // For transformers, null is not a missing key. It means "as many as heads" or "hidden size
        // / heads".
        let absent = |key, default: Option<usize>| default.filter(|_| c.missing(key));
        let kv_heads = match c.opt_usize("num_key_value_heads")? {
            Some(count) => count,
            None => absent("num_key_value_heads", defaults.num_key_value_heads).unwrap_or(heads),
        };
        let head_dim = match c.opt_usize("head_dim")? {
            Some(dim) => dim,
            None => match absent("head_dim", defaults.head_dim) {
                Some(dim) => dim,
                None => c.size("hidden_size")? / heads,
            },
        };
        head_count(c, "num_key_value_heads", kv_heads, heads)?;
        if head_dim == 0 {
            return Err(c.wrong("head_dim", "is 0"));
        }
        Ok(Self { heads, kv_heads, head_dim })
    }
}

/// The number of query heads, the number of key heads, and their size.
pub(super) fn head_sizes(c: &Config, defaults: &Defaults) -> Result<(usize, usize, usize)> {
    Heads::from_config(c, defaults).map(|Heads { heads, kv_heads, head_dim }| (heads, kv_heads, head_dim))
}

/// The norms, heads and sizes of a decoder whose tensors are `{prefix}layers.{i}.…`.
pub(super) struct Decoder {
    pub prefix: String,
    pub hidden: usize,
    pub layers: usize,
    pub norm: NormKind,
    pub eps: f64,
    pub heads: Heads,
    pub rope: Rope,
    ends: Ends,
}

impl Decoder {
    pub(super) fn from_config(c: &Config, names: &dyn Names, norm: NormKind, defaults: &Defaults) -> Result<Self> {
        let heads = Heads::from_config(c, defaults)?;
        let rope = match defaults.rope_of {
            Some(name) => Rope::of_type(c, heads.head_dim, name, true, &defaults.rope)?,
            None => Rope::from_config(c, heads.head_dim, &defaults.rope)?,
        };
        Self::with_heads(c, names, norm, defaults, (heads, rope))
    }

    /// As `from_config`, with heads and a rope from elsewhere.
    pub(super) fn with_heads(
        c: &Config,
        names: &dyn Names,
        norm: NormKind,
        defaults: &Defaults,
        (heads, rope): (Heads, Rope),
    ) -> Result<Self> {
        let prefix = "model.".to_string();
        let tied = c.bool_or(defaults.tied_key, defaults.tied)?;
        let (vocab, hidden) = (c.size_or("vocab_size", defaults.vocab_size)?, c.size("hidden_size")?);
        let embedding = TensorSpec::new(format!("{prefix}embed_tokens.weight"), [vocab, hidden]);
        Ok(Self {
            prefix,
            hidden,
            layers: c.layers(&["num_hidden_layers"])?,
            norm,
            eps: c.opt_f64(defaults.eps_key)?.unwrap_or(defaults.rms_norm_eps),
            heads,
            rope,
            ends: names.ends(tied, embedding),
        })
    }

    /// `{prefix}layers.{i}.`
    pub(super) fn layer(&self, i: usize) -> String {
        format!("{}layers.{i}.", self.prefix)
    }

    /// A layer with the two norms under their usual names.
    pub(super) fn block(&self, i: usize, mixer: Mixer, ffn: Ffn) -> Layer {
        let norm = |name: &str| Norm::new(self.norm, &format!("{}{name}", self.layer(i)), self.hidden, self.eps);
        Layer::of_two_norms([norm("input_layernorm"), norm("post_attention_layernorm")], mixer, ffn)
    }

    /// x += norm(mixer(x)); x += norm(ffn(x)), with the norms under these names.
    pub(super) fn post_norm_block(&self, i: usize, names: [&str; 2], mixer: Mixer, ffn: Ffn) -> Layer {
        let [mixed, fed] =
            names.map(|name| Some(Norm::new(self.norm, &format!("{}{name}", self.layer(i)), self.hidden, self.eps)));
        let mut mixer = Sublayer::reading(Reads::Stream, mixer);
        let mut ffn = Sublayer::reading(Reads::Stream, ffn);
        (mixer.write_norm, ffn.write_norm) = (mixed, fed);
        Layer::of(Some(mixer), Some(ffn))
    }

    /// x += norm(mixer(norm(x))); x += norm(ffn(norm(x))), with the norms under these names, in
    /// this order.
    pub(super) fn sandwich_block(&self, i: usize, names: [&str; 4], mixer: Mixer, ffn: Ffn) -> Layer {
        let norm = |name| Norm::new(self.norm, &format!("{}{name}", self.layer(i)), self.hidden, self.eps);
        Layer::of_four_norms(names.map(norm), mixer, ffn)
    }

    pub(super) fn model(&self, model_type: &str, layers: Vec<Layer>) -> Model {
        let final_norm = Norm::new(self.norm, &format!("{}norm", self.prefix), self.hidden, self.eps);
        Model::new(model_type, self.hidden, self.ends.clone(), layers, final_norm)
    }

    /// Plain grouped-query attention under `self_attn.`. Callers change the fields in which they
    /// differ.
    pub(super) fn attention(&self, i: usize, bias: bool) -> Attention {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let prefix = format!("{}self_attn.", self.layer(i));
        let mut attention = without_positions(&prefix, self.hidden, (heads, kv_heads, head_dim), bias);
        attention.rope = Some(self.rope.clone());
        attention
    }

    /// The norms `q_norm` and `k_norm`, over each head (`per_head`) or over the whole projection.
    pub(super) fn qk_norm(&self, i: usize, per_head: bool) -> QkNorm {
        let heads = self.heads;
        let norm = |name: &str, count: usize| {
            let size = if per_head { heads.head_dim } else { count * heads.head_dim };
            let norm = Norm::new(self.norm, &format!("{}self_attn.{name}", self.layer(i)), size, self.eps);
            if per_head { HeadNorm::Each(norm) } else { HeadNorm::Together(norm) }
        };
        QkNorm { q: norm("q_norm", heads.heads), k: Some(norm("k_norm", heads.kv_heads)), after_rope: false }
    }
}

/// Plain grouped-query attention without positions: `{prefix}{q,k,v,o}_proj`. `sizes` has query
/// heads, key heads and the size of a head.
pub(super) fn without_positions(prefix: &str, hidden: usize, sizes: (usize, usize, usize), bias: bool) -> Attention {
    let (heads, kv_heads, head_dim) = sizes;
    let linear = |part: &str, out, input| Linear::new(&format!("{prefix}{part}"), out, input, bias);
    let qkv = Qkv::Separate {
        q: linear("q_proj", heads * head_dim, hidden),
        k: linear("k_proj", kv_heads * head_dim, hidden),
        v: linear("v_proj", kv_heads * head_dim, hidden),
    };
    Attention::new(sizes, qkv, linear("o_proj", hidden, heads * head_dim))
}

/// Checks `count`, the number of key heads in the config under `key`, against `heads` query heads.
///
/// # Errors
/// An error if it does not divide `heads`.
pub(super) fn head_count(c: &Config, key: &str, count: usize, heads: usize) -> Result<usize> {
    match count == 0 || !heads.is_multiple_of(count) {
        true => Err(c.wrong(key, &format!("is {count}, which does not divide {heads} heads"))),
        false => Ok(count),
    }
}

/// The size of a head if `heads` of them make the hidden size. `key` is the name of their number in
/// the config.
///
/// # Errors
/// `unsupported` if the size is not a whole number, or there are more heads than any model has.
pub(super) fn head_size(c: &Config, key: &str, heads: usize, hidden: usize) -> Result<usize> {
    if heads > MAX_HEADS {
        return Err(c.wrong(key, &format!("is {heads}, more heads than any model has")));
    }
    if !hidden.is_multiple_of(heads) {
        return Err(c.wrong(key, &format!("is {heads}, which does not divide the hidden size {hidden}")));
    }
    Ok(hidden / heads)
}

/// Tells the user if `key`, which transformers does not read, has another number than the one that
/// counts in its place.
pub(super) fn another_counts(c: &Config, key: &str, read: &str, counts: f64) -> Result<()> {
    if let Some(value) = c.opt_f64(key)?.filter(|value| *value != counts) {
        c.tell(key, &format!("is {value}, which has no effect: transformers reads `{read}`, which is {counts}"));
    }
    Ok(())
}

/// `sliding_window`: the number of keys that a query attends to, including its own.
pub(super) fn sliding_window(c: &Config) -> Result<Option<usize>> {
    match c.opt_usize("sliding_window")? {
        Some(0) => Err(c.wrong("sliding_window", "is 0")),
        window => Ok(window),
    }
}

/// As `sliding_window`, with `default` if the config does not have the key.
pub(super) fn window_or(c: &Config, default: usize) -> Result<Option<usize>> {
    Ok(sliding_window(c)?.or(Some(default).filter(|_| c.missing("sliding_window"))))
}

/// The span of a query, with or without a window.
pub(super) fn span(window: Option<usize>) -> Span {
    window.map_or(Span::All, Span::Window)
}

/// The `sliding_window` of the Qwen family applies only with `use_sliding_window`, which is off by
/// default.
pub(super) fn switched_window(c: &Config) -> Result<Option<usize>> {
    if !c.bool_or("use_sliding_window", false)? {
        // transformers writes 0 for none.
        c.without_effect(&["sliding_window"]);
        return Ok(None);
    }
    window_or(c, QWEN_SLIDING_WINDOW)
}

/// Whether each layer has full attention: `layer_types` has "full_attention" or `other` for each;
/// without it `pattern` decides.
pub(super) fn full_attention(
    c: &Config,
    layers: usize,
    other: &str,
    pattern: impl Fn(usize) -> bool,
) -> Result<Vec<bool>> {
    let Some(types) = c.opt_list_str("layer_types")? else {
        return Ok((0..layers).map(pattern).collect());
    };
    if types.len() != layers {
        return Err(c.wrong("layer_types", &format!("has {} entries for {layers} layers", types.len())));
    }
    let full = |name: &String| match name.as_str() {
        "full_attention" => Ok(true),
        name if name == other => Ok(false),
        name => {
            let problem = format!("has \"{}\"; supported are full_attention, {other}", shown(name));
            Err(c.uncomputed("layer_types", &problem))
        }
    };
    types.iter().map(full).collect()
}

/// The window of each layer: `window` if `layer_types` has "sliding_attention" for it, or without
/// that list if `pattern` is true.
pub(super) fn layer_windows(
    c: &Config,
    layers: usize,
    window: Option<usize>,
    pattern: impl Fn(usize) -> bool,
) -> Result<Vec<Span>> {
    let full = full_attention(c, layers, "sliding_attention", |i| !pattern(i))?;
    if window.is_none() && full.contains(&false) {
        return Err(c.wrong("layer_types", "has \"sliding_attention\", but no `sliding_window` is in use"));
    }
    Ok(full.into_iter().map(|full| span(window.filter(|_| !full))).collect())
}
