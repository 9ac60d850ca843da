//! The usual layout of a mixture of experts: a router and one gated MLP per expert; and which layers have one.

use std::sync::Arc;

use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Experts, Linear, Mlp, Moe, Router, Scoring, SharedExpert};
use crate::vocabulary::Activation;

#[derive(Clone, Copy)]
pub struct Sizes {
    pub num_experts: usize,
    pub top_k: usize,
    /// Width of one expert's hidden layer.
    pub intermediate: usize,
    pub activation: Activation,
}

/// Which layers of the Qwen family are mixtures: every `decoder_sparse_step`-th but those in `mlp_only_layers`.
pub fn sparse_layers(c: &Config, layers: usize) -> Result<Vec<bool>> {
    let dense = c.opt_list_usize("mlp_only_layers")?.unwrap_or_default();
    let step = c.opt_usize("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(c.wrong("decoder_sparse_step", "is 0"));
    }
    Ok((0..layers).map(|i| !dense.contains(&i) && (i + 1) % step == 0).collect())
}

/// A router `{prefix}gate` and experts `{prefix}experts.{e}.{gate,up,down}_proj`.
pub fn separate(prefix: &str, hidden: usize, sizes: Sizes, scoring: Scoring) -> Moe {
    let expert = |e| {
        let prefix = format!("{prefix}experts.{e}.");
        Mlp::gated(&prefix, hidden, sizes.intermediate, sizes.activation, false)
    };
    Moe {
        num_experts: sizes.num_experts,
        top_k: sizes.top_k,
        router: Router {
            linear: Linear::new(&format!("{prefix}gate"), sizes.num_experts, hidden, false),
            scoring,
            correction_bias: None,
        },
        experts: Arc::new(Experts::Separate((0..sizes.num_experts).map(expert).collect())),
        shared: None,
        intermediate: sizes.intermediate,
    }
}

/// With an expert of its own gate that every token passes through: `{prefix}shared_expert` and `shared_expert_gate`.
pub fn with_gated_shared(moe: Moe, prefix: &str, hidden: usize, width: usize, act: Activation) -> Moe {
    let mlp = Mlp::gated(&format!("{prefix}shared_expert."), hidden, width, act, false);
    let gate = Some(Linear::new(&format!("{prefix}shared_expert_gate"), 1, hidden, false));
    Moe { shared: Some(SharedExpert { mlp, gate }), ..moe }
}
