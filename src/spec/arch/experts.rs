//! The usual layout of a mixture of experts, a router and one gated MLP per expert, and the choice
//! of layers that have one.

use std::sync::Arc;

use super::activation::activation;
use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{Divisor, Experts, Ffn, Groups, Linear, Mlp, Moe, Router, Score, Scoring, SharedExpert, TensorSpec};
use crate::vocabulary::{Activation, Order};

/// The number that is added to the sum of the weights before they are divided by it (transformers
/// `DeepseekV3TopkRouter` and similar classes).
pub(super) const SUM_EPS: f32 = 1e-20;

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub num_experts: usize,
    pub top_k: usize,
    /// Inner width of an expert.
    pub intermediate: usize,
    pub activation: Activation,
}

impl Sizes {
    /// Reads `num_experts_per_tok`, `hidden_act`, and the other two under the given names.
    pub(super) fn from_config(c: &Config, layers: usize, num_experts: &[&str], intermediate: &[&str]) -> Result<Self> {
        let top_k = c.size("num_experts_per_tok")?;
        Ok(Self {
            num_experts: c.experts(num_experts, top_k, layers)?,
            top_k,
            intermediate: c.size_by(intermediate)?,
            activation: activation(c, "hidden_act", "silu")?,
        })
    }
}

/// The key `key` says whether the weights of the chosen experts sum to 1. transformers does not
/// read it and always uses `summed`.
pub(super) fn summed_anyway(c: &Config, key: &str, summed: bool) -> Result<()> {
    if c.bool_or(key, summed)? != summed {
        let says = if summed { "sum to 1" } else { "are the scores themselves" };
        c.tell(
            key,
            &format!("is {}, which has no effect: in transformers the experts' weights always {says}", !summed),
        );
    }
    Ok(())
}

/// Whether each layer of the Qwen family is a mixture: every `decoder_sparse_step`-th is one,
/// except for those in `mlp_only_layers`.
pub(super) fn sparse_layers(c: &Config, layers: usize) -> Result<Vec<bool>> {
    let dense = c.opt_list_usize("mlp_only_layers")?.unwrap_or_default();
    let step = c.opt_usize("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(c.wrong("decoder_sparse_step", "is 0"));
    }
    Ok((0..layers).map(|i| !dense.contains(&i) && (i + 1) % step == 0).collect())
}

/// A mixture of a router `{prefix}gate` and experts `{prefix}experts.{e}.{gate,up,down}_proj`.
pub(super) fn separate(prefix: &str, hidden: usize, sizes: Sizes, scoring: Scoring) -> Moe {
    let expert = |e| {
        let prefix = format!("{prefix}experts.{e}.");
        Mlp::gated(&prefix, hidden, sizes.intermediate, sizes.activation, false)
    };
    Moe {
        num_experts: sizes.num_experts,
        top_k: sizes.top_k,
        router: Router::new(Linear::new(&format!("{prefix}gate"), sizes.num_experts, hidden, false), scoring),
        expert_norm: None,
        experts: Arc::new(Experts::Separate((0..sizes.num_experts).map(expert).collect())),
        sum_norm: None,
        shared: None,
        intermediate: sizes.intermediate,
    }
}

/// The mixture with a shared expert that has a gate: `{prefix}shared_expert` and
/// `shared_expert_gate`.
pub(super) fn with_gated_shared(moe: Moe, prefix: &str, hidden: usize, width: usize, act: Activation) -> Moe {
    let mlp = Mlp::gated(&format!("{prefix}shared_expert."), hidden, width, act, false);
    let gate = Some(Linear::new(&format!("{prefix}shared_expert_gate"), 1, hidden, false));
    Moe { shared: Some(SharedExpert { gate, ..SharedExpert::plain(mlp) }), ..moe }
}

/// Experts with other names for gate, up and down: `{prefix}experts.{e}.{name}`.
pub(super) fn called([gate, up, down]: [&str; 3], prefix: &str, hidden: usize, sizes: Sizes) -> Arc<Experts> {
    let expert = |e| {
        let name = |part: &str| format!("{prefix}experts.{e}.{part}");
        Mlp {
            gate: Some(Linear::new(&name(gate), sizes.intermediate, hidden, false)),
            up: Linear::new(&name(up), sizes.intermediate, hidden, false),
            down: Linear::new(&name(down), hidden, sizes.intermediate, false),
            activation: sizes.activation,
            xielu: None,
        }
    };
    Arc::new(Experts::Separate((0..sizes.num_experts).map(expert).collect()))
}

/// All experts in two tensors: gate above up, [experts, 2 * intermediate, hidden], and down,
/// [experts, hidden, intermediate].
pub(super) fn stacked(gate_up: &str, down: &str, hidden: usize, sizes: Sizes) -> Arc<Experts> {
    let Sizes { num_experts, intermediate, activation, .. } = sizes;
    let linear = |weight| Linear { weight, bias: None, order: Order::OutIn, rounding: None };
    let both = TensorSpec::new(gate_up, [num_experts, 2 * intermediate, hidden]);
    Arc::new(Experts::Stacked(Mlp {
        gate: Some(linear(both.rows(0, intermediate))),
        up: linear(both.rows(intermediate, intermediate)),
        down: linear(TensorSpec::new(down, [num_experts, hidden, intermediate])),
        activation,
        xielu: None,
    }))
}

/// Shared experts `{prefix}{gate,up,down}_proj`, whose outputs are added as they are. None if their
/// width is 0.
pub(super) fn shared(prefix: &str, hidden: usize, width: usize, activation: Activation) -> Option<SharedExpert> {
    let mlp = || Mlp::gated(prefix, hidden, width, activation, false);
    (width > 0).then(|| SharedExpert::plain(mlp()))
}

/// Whether each layer is a mixture: `mlp_layer_types` has "sparse" or "dense" for each; without it
/// the first `dense` layers are dense.
pub(super) fn behind_dense(c: &Config, layers: usize, dense: usize) -> Result<Vec<bool>> {
    let Some(types) = c.opt_list_str("mlp_layer_types")? else {
        return Ok((0..layers).map(|i| i >= dense).collect());
    };
    if types.len() != layers {
        return Err(c.wrong("mlp_layer_types", &format!("has {} entries for {layers} layers", types.len())));
    }
    let sparse = |name: &String| match name.as_str() {
        "sparse" => Ok(true),
        "dense" => Ok(false),
        name => Err(c.uncomputed("mlp_layer_types", &format!("has \"{}\"; supported are sparse, dense", shown(name)))),
    };
    types.iter().map(sparse).collect()
}

/// The defaults in transformers of the keys of a router with groups.
pub(super) struct Grouped {
    pub score: Score,
    pub groups: usize,
    pub top_groups: usize,
    pub renormalised: bool,
    pub factor: f64,
    /// The score of experts in other groups.
    pub masked: f32,
}

/// The router of DeepSeek-V3 in a model with one group.
pub(super) const ONE_GROUP: Grouped = Grouped {
    score: Score::Sigmoid,
    groups: 1,
    top_groups: 1,
    renormalised: true,
    factor: 1.0,
    masked: f32::NEG_INFINITY,
};

impl Grouped {
    /// The experts of the best groups are chosen and weighted by their scores. The score of a group
    /// is the sum of its two best.
    pub(super) fn scoring(&self, c: &Config, sizes: Sizes) -> Result<Scoring> {
        let groups = c.opt_usize("n_group")?.unwrap_or(self.groups);
        let top_groups = c.opt_usize("topk_group")?.unwrap_or(self.top_groups);
        if groups == 0 || !sizes.num_experts.is_multiple_of(groups) || sizes.num_experts / groups < 2 {
            let problem =
                format!("is {groups}, which does not split {} experts into groups of two or more", sizes.num_experts);
            return Err(c.wrong("n_group", &problem));
        }
        if top_groups == 0 || top_groups > groups || sizes.top_k > top_groups * (sizes.num_experts / groups) {
            let problem =
                format!("is {top_groups}: too few or too many of {groups} groups for {} experts", sizes.top_k);
            return Err(c.wrong("topk_group", &problem));
        }
        let renormalised = c.nullable_bool_or("norm_topk_prob", self.renormalised)?;
        let divisor = if renormalised { Divisor::Sum(SUM_EPS) } else { Divisor::One };
        let mut scoring = Scoring::new(self.score, divisor);
        scoring.groups = Some(Groups { count: groups, top: top_groups, judged_by: 2, masked: self.masked });
        scoring.factor = c.opt_f64("routed_scaling_factor")?.unwrap_or(self.factor) as f32;
        Ok(scoring)
    }
}

/// The feed-forward networks of DeepSeek-V3 and similar models: a dense one, or under `{prefix}` a
/// router `gate` with a correction bias, experts, and shared experts `shared_experts`.
pub(super) struct Corrected {
    hidden: usize,
    sizes: Sizes,
    scoring: Scoring,
    shared: usize,
    dense: usize,
}

impl Corrected {
    pub(super) fn from_config(c: &Config, (hidden, layers): (usize, usize), usual: &Grouped) -> Result<Self> {
        let sizes =
            Sizes::from_config(c, layers, &["n_routed_experts", "num_local_experts"], &["moe_intermediate_size"])?;
        let scoring = usual.scoring(c, sizes)?;
        let shared = c.opt_usize("n_shared_experts")?.unwrap_or(1) * sizes.intermediate;
        Ok(Self { hidden, sizes, scoring, shared, dense: c.size("intermediate_size")? })
    }

    pub(super) fn ffn(&self, prefix: &str, sparse: bool) -> Ffn {
        let Self { hidden, sizes, shared: width, .. } = *self;
        if !sparse {
            return Ffn::Dense(Box::new(Mlp::gated(prefix, hidden, self.dense, sizes.activation, false)));
        }
        let mut moe = separate(prefix, hidden, sizes, self.scoring.clone());
        let name = format!("{prefix}gate.e_score_correction_bias");
        moe.router.correction_bias = Some(TensorSpec::new(name, [sizes.num_experts]));
        moe.shared = shared(&format!("{prefix}shared_experts."), hidden, width, sizes.activation);
        Ffn::Moe(Box::new(moe))
    }
}
