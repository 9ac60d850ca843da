//! A model as data: what each decoder layer computes, and from which tensors of the checkpoint.
//!
//! The files of `arch/` make a `Model` from a `config.json`, and the engine runs any of them. Names
//! are those of the whole model in transformers, prefixes included, whatever the checkpoint has
//! (`naming.rs`). Shapes are [out, in] for projections unless stated otherwise.

mod aliases;
pub mod arch;
pub mod catalogue;
mod coded;
pub mod config;
mod ffn;
pub mod inventory;
mod keys;
mod layer;
mod leaves;
mod linear;
mod linears;
mod mixer;
mod modules;
pub mod naming;
pub mod quantised;
pub mod rope;
mod rope_config;
mod rope_contexts;
mod rope_keys;
mod rope_section;
#[cfg(test)]
mod rope_spellings;
mod sites;
mod walk;
mod weight;

use std::collections::BTreeSet;

use crate::record::{Site, SiteId};
pub use ffn::{Divisor, Experts, Ffn, Groups, Mlp, Moe, Router, Score, Scoring, SharedExpert, XIelu};
pub use layer::{EmbeddingGate, Layer, Reads, Sublayer};
pub use leaves::{Leaves, Role};
pub use linear::{Linear, Norm};
pub use mixer::{
    Alibi, Attention, DeltaInputs, DeltaNet, Gate, GatedConv, HeadNorm, Latent, LatentQuery, Mamba2, Mixer, QkNorm,
    Qkv, QueryGrowth,
};
pub use weight::{Rows, StoredTensor, TensorSpec};

/// The name of the head's weight in all architectures.
pub const HEAD: &str = "lm_head.weight";

/// Learned absolute positions, added to the token embeddings (GPT-2, OPT).
#[derive(Clone, Debug)]
pub struct Positions {
    pub weight: TensorSpec,
    /// The row of position 0.
    pub offset: usize,
}

/// Embeddings of each token for each layer (Gemma 4's per-layer embeddings), [layers][size]
/// contiguous: (table(token) * factor + norm(projection(token embedding) * projection_factor)) *
/// sum_factor. The norm is over the embedding of each layer.
#[derive(Clone, Debug)]
pub struct LayerEmbeddings<W = TensorSpec> {
    /// The table [vocab, layers * size], of which single rows are read.
    pub table: TensorSpec,
    pub factor: f64,
    /// A projection from the hidden size.
    pub projection: Linear<W>,
    pub projection_factor: f64,
    pub norm: Norm<W>,
    pub sum_factor: f64,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// The embedding, [vocab, hidden], or narrower if `project_in` widens it.
    pub embedding: TensorSpec,
    /// The factor of token embeddings (Gemma).
    pub embedding_factor: f64,
    /// The norm of the sum of all embeddings, before the first layer (Bloom).
    pub embedding_norm: Option<Norm>,
    /// The projections from the width of the embedding to the hidden size, and back before the head
    /// (OPT).
    pub project_in: Option<Linear>,
    pub project_out: Option<Linear>,
    pub positions: Option<Positions>,
    pub layer_embeddings: Option<LayerEmbeddings>,
    pub layers: Vec<Layer>,
    /// The norm before the head. Some OPT checkpoints have none.
    pub final_norm: Option<Norm>,
    /// The head, [vocab, hidden]. It is the embedding itself when tied, unless the files have a
    /// head of their own.
    pub head: TensorSpec,
    /// The bias of the logits, [vocab] (Phi, GPT-J).
    pub head_bias: Option<TensorSpec>,
    /// The factor of the logits (Cohere, Granite).
    pub logit_factor: f64,
    /// If present, cap * tanh(logit / cap) replaces a logit, after the factor (Gemma 2).
    pub logit_softcap: Option<f64>,
    /// True if the config ties head and embedding.
    pub tied: bool,
    /// Whether the config says that plain weights are stored in f32, not in 16 bits. Files, if
    /// there are any, decide it instead.
    pub stored_in_f32: bool,
    /// The limit of a sequence's length. Longer ones cannot be computed, because there are no more
    /// learned positions or the computation would be another.
    pub max_positions: Option<MaxPositions>,
}

/// The tensors at both ends of a model.
#[derive(Clone, Debug)]
pub struct Ends {
    pub embedding: TensorSpec,
    pub head: TensorSpec,
    pub tied: bool,
}

/// The largest number of positions for which a model can be computed, and the reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxPositions {
    pub positions: usize,
    pub why: &'static str,
}

impl MaxPositions {
    /// The limit of a table of `positions` learned positions.
    pub fn learned(positions: usize) -> Self {
        Self { positions, why: "it has learned no more positions" }
    }
}

/// The weights between the last layer and the head, which only the logits need. The head itself is
/// read in blocks of rows.
#[derive(Clone, Debug)]
pub struct BeforeHead<W = TensorSpec> {
    pub final_norm: Option<Norm<W>>,
    pub project_out: Option<Linear<W>>,
    pub head_bias: Option<W>,
}

impl Model {
    /// A model without optional parts. Callers change the fields in which they differ.
    pub fn new(model_type: &str, hidden_size: usize, ends: Ends, layers: Vec<Layer>, final_norm: Norm) -> Self {
        let Ends { embedding, head, tied } = ends;
        Self {
            model_type: model_type.to_string(),
            vocab_size: embedding.shape[0],
            hidden_size,
            embedding,
            embedding_factor: 1.0,
            embedding_norm: None,
            project_in: None,
            project_out: None,
            positions: None,
            layer_embeddings: None,
            layers,
            final_norm: Some(final_norm),
            head,
            head_bias: None,
            logit_factor: 1.0,
            logit_softcap: None,
            tied,
            stored_in_f32: false,
            max_positions: None,
        }
    }

    pub fn before_head(&self) -> BeforeHead {
        BeforeHead {
            final_norm: self.final_norm.clone(),
            project_out: self.project_out.clone(),
            head_bias: self.head_bias.clone(),
        }
    }

    /// Whether a pass needs the feed-forward network of this layer. The one of the last layer feeds
    /// only what comes after it, such as the logits.
    pub fn needs_ffn(&self, layer: usize, beyond: bool) -> bool {
        beyond || layer + 1 < self.layers.len()
    }

    /// The layers before layer `done` whose keys and values are borrowed by `done` or later layers.
    pub fn lenders(&self, done: usize) -> Vec<usize> {
        let borrowed: BTreeSet<usize> = self.layers.iter().skip(done).filter_map(Layer::borrows).collect();
        borrowed.into_iter().filter(|from| *from < done).collect()
    }

    /// Widths of the keys and values of a layer with attention.
    pub fn kv_widths(&self, layer: usize) -> Option<[usize; 2]> {
        match &self.layers.get(layer)?.mixer.as_ref()?.body {
            Mixer::Attention(of) => Some([of.kv_heads * of.head_dim, of.kv_heads * of.value_dim]),
            _ => None,
        }
    }

    /// The inputs of the sublayers: the sites that a record has, in the order of computation. A
    /// layer with one norm for both sublayers has one.
    pub fn norm_sites(&self) -> Vec<SiteId> {
        self.read_sites(|reads| !matches!(reads, Reads::AsMixer))
    }

    /// The same with one site for each sublayer, whether it shares its norm or not.
    pub fn sublayer_sites(&self) -> Vec<SiteId> {
        self.read_sites(|_| true)
    }

    fn read_sites(&self, counts: impl Fn(&Reads) -> bool) -> Vec<SiteId> {
        let of = |(layer, sublayers): (usize, &Layer)| {
            let mixer = sublayers.mixer.as_ref().map(|mixer| (Site::AttnIn, &mixer.reads));
            let ffn = sublayers.ffn.as_ref().map(|ffn| (Site::FfnIn, &ffn.reads));
            let sites = [mixer, ffn].into_iter().flatten();
            sites.filter(|(_, reads)| counts(reads)).map(|(site, _)| SiteId { layer, site }).collect::<Vec<_>>()
        };
        self.layers.iter().enumerate().flat_map(of).collect()
    }

    /// Number of routed experts per layer, and how many a token visits; (0, 0) for a dense model.
    pub fn experts(&self) -> (usize, usize) {
        self.layers.iter().find_map(Layer::moe).map_or((0, 0), |moe| (moe.num_experts, moe.top_k))
    }
}
