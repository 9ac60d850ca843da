//! Sites: the tensors of a decoder layer that can be observed, named by their role.
//!
//! A layer is x += mixer(norm(x)), then x += ffn(norm(x)), where x is the residual stream.
//! docs/sites.md lists the tensor and module of each site for every architecture.

use serde::{Deserialize, Serialize};

use super::option_types::Word;

/// A role in a layer. For users (files, scripts and results) the two norms have the names of
/// Hugging Face's modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// The residual stream before the first layer, `[hidden]` per position. It belongs to layer 0.
    Embed,
    /// The input of the mixer's input projections, `[hidden]`: the output of the norm before it, if
    /// there is one.
    #[serde(rename = "input_layernorm")]
    AttnIn,
    /// Queries after their norm and the rotary embedding, before scaling, `[heads * head_dim]`.
    /// Attention layers only.
    Q,
    /// Keys after their norm and the rotary embedding, `[kv_heads * head_dim]`. Attention layers
    /// only.
    K,
    /// Queries of a DeltaNet layer after the convolution and SiLU, before they are normalised.
    QDelta,
    /// Keys of a DeltaNet layer after the convolution and SiLU, before they are normalised.
    KDelta,
    /// The input of the mixer's output projection, `[heads * head_dim]`.
    AttnOut,
    /// The mixer's contribution to the residual stream, `[hidden]`.
    AttnWrite,
    /// The residual stream between mixer and feed-forward network, `[hidden]`.
    ResidMid,
    /// The input of the feed-forward network, or of the router and the experts, `[hidden]`.
    #[serde(rename = "post_attention_layernorm")]
    FfnIn,
    /// Logits of the router, `[experts]`. Mixture-of-experts layers only.
    RouterLogits,
    /// The input of the down projection, `[intermediate]`. In a mixture of experts, one row per
    /// token of each expert.
    FfnMid,
    /// The input of a shared expert's down projection.
    FfnMidShared,
    /// The contribution of the feed-forward network to the residual stream, `[hidden]`.
    FfnWrite,
    /// The residual stream after the layer, `[hidden]`.
    ResidPost,
    /// The input of the head, `[hidden]`. It belongs to the last layer.
    FinalNorm,
}

impl Site {
    /// The sites of the two norms of a layer, in the order of computation.
    pub const NORMS: [Self; 2] = [Self::AttnIn, Self::FfnIn];

    /// All sites in the order of computation.
    pub const ALL: [Self; 16] = [
        Self::Embed,
        Self::AttnIn,
        Self::Q,
        Self::K,
        Self::QDelta,
        Self::KDelta,
        Self::AttnOut,
        Self::AttnWrite,
        Self::ResidMid,
        Self::FfnIn,
        Self::RouterLogits,
        Self::FfnMid,
        Self::FfnMidShared,
        Self::FfnWrite,
        Self::ResidPost,
        Self::FinalNorm,
    ];

    /// True if the tensor is as wide as the residual stream, dimension by dimension.
    pub fn is_hidden(self) -> bool {
        match self {
            Self::Embed | Self::AttnIn | Self::AttnWrite | Self::ResidMid => true,
            Self::FfnIn | Self::FfnWrite | Self::ResidPost | Self::FinalNorm => true,
            Self::Q | Self::K | Self::QDelta | Self::KDelta | Self::AttnOut => false,
            Self::RouterLogits | Self::FfnMid | Self::FfnMidShared => false,
        }
    }

    /// The site with this name in files, or with its short name: "attn_in", "ffn_in".
    pub fn of_name(name: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == name).map(|(_, site)| *site)
    }

    /// The shortest name that scripts may use.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::AttnIn => "attn_in",
            Self::FfnIn => "ffn_in",
            _ => self.name(),
        }
    }

    /// The name in files, scripts and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::AttnIn => "input_layernorm",
            Self::Q => "q",
            Self::K => "k",
            Self::QDelta => "q_delta",
            Self::KDelta => "k_delta",
            Self::AttnOut => "attn_out",
            Self::AttnWrite => "attn_write",
            Self::ResidMid => "resid_mid",
            Self::FfnIn => "post_attention_layernorm",
            Self::RouterLogits => "router_logits",
            Self::FfnMid => "ffn_mid",
            Self::FfnMidShared => "ffn_mid_shared",
            Self::FfnWrite => "ffn_write",
            Self::ResidPost => "resid_post",
            Self::FinalNorm => "final_norm",
        }
    }
}

impl Word for Site {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("attn_in", Self::AttnIn),
        ("ffn_in", Self::FfnIn),
        ("embed", Self::Embed),
        ("q", Self::Q),
        ("k", Self::K),
        ("q_delta", Self::QDelta),
        ("k_delta", Self::KDelta),
        ("attn_out", Self::AttnOut),
        ("attn_write", Self::AttnWrite),
        ("resid_mid", Self::ResidMid),
        ("router_logits", Self::RouterLogits),
        ("ffn_mid", Self::FfnMid),
        ("ffn_mid_shared", Self::FfnMidShared),
        ("ffn_write", Self::FfnWrite),
        ("resid_post", Self::ResidPost),
        ("final_norm", Self::FinalNorm),
        ("input_layernorm", Self::AttnIn),
        ("post_attention_layernorm", Self::FfnIn),
    ];
}

/// A site of one decoder layer. Layers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteId {
    pub layer: usize,
    pub site: Site,
}

impl SiteId {
    /// `layers.{i}.input_layernorm`, the canonical name for every architecture.
    pub fn name(self) -> String {
        format!("layers.{}.{}", self.layer, self.site.name())
    }

    /// The norms of `layers` layers that have two each, in the order of computation.
    pub fn norms(layers: usize) -> Vec<Self> {
        (0..layers).flat_map(|layer| Site::NORMS.map(|site| Self { layer, site })).collect()
    }
}
