//! Places in a decoder layer at which a tensor can be seen, named by their role in the computation.
//!
//! A layer is x += mixer(norm(x)), then x += ffn(norm(x)), x being the residual stream. docs/sites.md says which tensor of which
//! module a site is, for each architecture.

use serde::{Deserialize, Serialize};

/// A role in a layer. The two norms keep the names of Hugging Face module paths wherever users meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// The residual stream before the first layer, `[hidden]` per position; of layer 0.
    Embed,
    /// What the input projections of the mixer read, `[hidden]`: the output of the norm before it, where there is one.
    #[serde(rename = "input_layernorm")]
    AttnIn,
    /// Queries after their norm and the rotary embedding, before the scale, `[heads * head_dim]`; attention layers only.
    Q,
    /// Keys, likewise, `[kv_heads * head_dim]`.
    K,
    /// Queries of a DeltaNet layer after the convolution and SiLU, before they are brought to length 1.
    QDelta,
    /// Keys of a DeltaNet layer, likewise.
    KDelta,
    /// What the mixer's output projection reads, `[heads * head_dim]`.
    AttnOut,
    /// What the mixer adds to the residual stream, `[hidden]`.
    AttnWrite,
    /// The residual stream between mixer and feed-forward network, `[hidden]`.
    ResidMid,
    /// What the feed-forward network, a router and its experts read, `[hidden]`.
    #[serde(rename = "post_attention_layernorm")]
    FfnIn,
    /// Logits of the router, `[experts]`; mixtures only.
    RouterLogits,
    /// What the down projection reads, `[intermediate]`; in a mixture a row per routed token of each expert.
    FfnMid,
    /// What the down projection of a shared expert reads.
    FfnMidShared,
    /// What the feed-forward network adds to the residual stream, `[hidden]`.
    FfnWrite,
    /// The residual stream after the layer, `[hidden]`.
    ResidPost,
    /// What the head reads, `[hidden]`; of the last layer.
    FinalNorm,
}

impl Site {
    /// The sites of the two norms of a layer, in the order in which they are computed.
    pub const NORMS: [Self; 2] = [Self::AttnIn, Self::FfnIn];

    /// Its name in files, scripts and results.
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

/// A site of one decoder layer; layers count from 0.
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

    /// The norms of so many layers, in the order in which they are computed.
    pub fn norms(layers: usize) -> Vec<Self> {
        (0..layers).flat_map(|layer| Site::NORMS.map(|site| Self { layer, site })).collect()
    }
}
