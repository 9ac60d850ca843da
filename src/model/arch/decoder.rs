//! The parts that Llama-like decoders share: sizes, embeddings, norms, attention. Names are those of transformers modules.

use super::Names;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::rope::Rope;
use crate::model::spec::{Attention, Ffn, Layer, Linear, Mixer, Model, Norm, NormKind, QkNorm, Qkv, Tensor};

/// Head counts and sizes of grouped-query attention.
#[derive(Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// `num_key_value_heads` defaults to the number of heads, `head_dim` to hidden / heads.
    pub fn from_config(c: &Config) -> Result<Self> {
        let heads = c.size("num_attention_heads")?;
        let kv_heads = c.opt_usize("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match c.opt_usize("head_dim")? {
            Some(dim) => dim,
            None => c.size("hidden_size")? / heads,
        };
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(c.wrong("num_key_value_heads", &format!("is {kv_heads}, which does not divide {heads} heads")));
        }
        if head_dim == 0 {
            return Err(c.wrong("head_dim", "is 0"));
        }
        Ok(Self { heads, kv_heads, head_dim })
    }
}

/// The norms and sizes of a decoder whose tensors are `{prefix}layers.{i}.…`.
pub struct Decoder {
    pub prefix: String,
    pub hidden: usize,
    pub layers: usize,
    pub norm: NormKind,
    pub eps: f64,
    vocab: usize,
    head: String,
}

impl Decoder {
    pub fn from_config(c: &Config, names: &dyn Names, norm: NormKind, tied_by_default: bool) -> Result<Self> {
        let prefix = names.prefix(&["model.", "", "transformer."], "embed_tokens.weight");
        let tied = c.bool_or("tie_word_embeddings", tied_by_default)?;
        let head = if tied { format!("{prefix}embed_tokens.weight") } else { "lm_head.weight".to_string() };
        // The context length bounds nothing here: rotary positions can be computed for any length.
        c.without_effect(&["max_position_embeddings"]);
        Ok(Self {
            prefix,
            hidden: c.size("hidden_size")?,
            layers: c.size("num_hidden_layers")?,
            norm,
            eps: c.f64("rms_norm_eps")?,
            vocab: c.size("vocab_size")?,
            head,
        })
    }

    /// `{prefix}layers.{i}.`
    pub fn layer(&self, i: usize) -> String {
        format!("{}layers.{i}.", self.prefix)
    }

    /// The two norms under their usual names, with `mixer` and `ffn` between.
    pub fn block(&self, i: usize, mixer: Mixer, ffn: Ffn) -> Layer {
        let norm = |name: &str| Norm::new(self.norm, &format!("{}{name}", self.layer(i)), self.hidden, self.eps);
        Layer { input_norm: norm("input_layernorm"), mixer, ffn_norm: norm("post_attention_layernorm"), ffn }
    }

    pub fn model(&self, model_type: &str, layers: Vec<Layer>) -> Model {
        Model {
            model_type: model_type.to_string(),
            vocab_size: self.vocab,
            hidden_size: self.hidden,
            embedding: Tensor::new(format!("{}embed_tokens.weight", self.prefix), [self.vocab, self.hidden]),
            positions: None,
            layers,
            final_norm: Norm::new(self.norm, &format!("{}norm", self.prefix), self.hidden, self.eps),
            head: Tensor::new(self.head.clone(), [self.vocab, self.hidden]),
            max_positions: None,
        }
    }

    /// Plain grouped-query attention under `self_attn.`: callers change the fields in which they differ.
    pub fn attention(&self, i: usize, heads: Heads, bias: bool, rope: Option<Rope>) -> Attention {
        let Heads { heads, kv_heads, head_dim } = heads;
        let name = |part: &str| format!("{}self_attn.{part}", self.layer(i));
        Attention {
            heads,
            kv_heads,
            head_dim,
            qkv: Qkv::Separate {
                q: Linear::new(&name("q_proj"), heads * head_dim, self.hidden, bias),
                k: Linear::new(&name("k_proj"), kv_heads * head_dim, self.hidden, bias),
                v: Linear::new(&name("v_proj"), kv_heads * head_dim, self.hidden, bias),
            },
            out: Linear::new(&name("o_proj"), self.hidden, heads * head_dim, bias),
            qk_norm: None,
            clip: None,
            rope,
            window: None,
            sinks: None,
            scale: (head_dim as f64).powf(-0.5),
            gated: false,
        }
    }

    /// `q_norm` and `k_norm` over each head (`per_head`) or over the whole projection.
    pub fn qk_norm(&self, i: usize, heads: Heads, per_head: bool) -> QkNorm {
        let size = |count: usize| {
            if per_head { heads.head_dim } else { count * heads.head_dim }
        };
        let norm =
            |name: &str, size| Norm::new(self.norm, &format!("{}self_attn.{name}", self.layer(i)), size, self.eps);
        QkNorm { q: norm("q_norm", size(heads.heads)), k: norm("k_norm", size(heads.kv_heads)), per_head }
    }
}

/// `sliding_window`, honoured when `use_sliding_window` is true or, by `default_use`, absent.
pub fn sliding_window(c: &Config, default_use: bool) -> Result<Option<usize>> {
    let window = c.opt_usize("sliding_window")?;
    let used = c.bool_or("use_sliding_window", default_use)?;
    match window {
        Some(0) => Err(c.wrong("sliding_window", "is 0")),
        window => Ok(window.filter(|_| used)),
    }
}
