//! The parts that Gemma's small sizes have for each layer: embeddings of its own, and the keys and
//! values of another layer. Names are those of transformers modules.

use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{EmbeddingGate, LayerEmbeddings, Linear, Norm, TensorSpec};
use crate::vocabulary::{Activation, NormKind};

// The defaults of `vocab_size_per_layer_input` and `hidden_size_per_layer_input` in transformers.
const ROWS: usize = 262_144;
const SIZE: usize = 256;

/// Sizes of the embeddings for each layer, if a config has them.
#[derive(Clone, Copy)]
pub(super) struct PerLayer {
    size: usize,
    rows: usize,
    hidden: usize,
    eps: f64,
}

impl PerLayer {
    /// Reads the sizes. None if `hidden_size_per_layer_input` is 0 or null.
    pub(super) fn from_config(c: &Config, vocab: usize, hidden: usize, eps: f64) -> Result<Option<Self>> {
        let rows = c.opt_usize("vocab_size_per_layer_input")?.unwrap_or(ROWS);
        let usual = Some(SIZE).filter(|_| c.missing("hidden_size_per_layer_input"));
        let Some(size) = c.opt_usize("hidden_size_per_layer_input")?.or(usual).filter(|size| *size > 0) else {
            return Ok(None);
        };
        if rows < vocab {
            let problem = format!("is {rows}, fewer than the {vocab} tokens of `vocab_size`");
            return Err(c.wrong("vocab_size_per_layer_input", &problem));
        }
        Ok(Some(Self { size, rows, hidden, eps }))
    }

    fn norm(&self, name: &str, size: usize) -> Norm {
        Norm::new(NormKind::RmsRoundedOnce, name, size, self.eps)
    }

    /// The embeddings of `layers` layers under `model.`, each scaled by the square root of its
    /// width.
    pub(super) fn embeddings(&self, layers: usize) -> LayerEmbeddings {
        let Self { size, rows, hidden, .. } = *self;
        LayerEmbeddings {
            table: TensorSpec::new("model.embed_tokens_per_layer.weight", [rows, layers * size]),
            factor: (size as f64).sqrt(),
            projection: Linear::new("model.per_layer_model_projection", layers * size, hidden, false),
            projection_factor: (hidden as f64).powf(-0.5),
            norm: self.norm("model.per_layer_projection_norm", size),
            sum_factor: 0.5f64.sqrt(),
        }
    }

    /// The gate through which layer `i` adds its embedding.
    pub(super) fn gate(&self, i: usize, activation: Activation) -> EmbeddingGate {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        EmbeddingGate {
            gate: Linear::new(&name("per_layer_input_gate"), self.size, self.hidden, false),
            activation,
            up: Linear::new(&name("per_layer_projection"), self.hidden, self.size, false),
            norm: self.norm(&name("post_per_layer_input_norm"), self.hidden),
        }
    }
}

/// The layer whose keys and values each layer uses, if not its own. Each of the last
/// `num_kv_shared_layers` layers uses those of the last earlier layer of its kind, with full
/// attention or without.
pub(super) fn lenders(c: &Config, full: &[bool]) -> Result<Vec<Option<usize>>> {
    let shared = c.opt_usize("num_kv_shared_layers")?.unwrap_or(0);
    let own = full.len().saturating_sub(shared);
    let lender = |kind: &bool| full[..own].iter().rposition(|other| other == kind);
    let all: Vec<_> = full.iter().enumerate().map(|(i, kind)| if i < own { None } else { lender(kind) }).collect();
    match all[own..].contains(&None) {
        true => Err(c.wrong("num_kv_shared_layers", &format!("is {shared}, and no layer before has keys to share"))),
        false => Ok(all),
    }
}
