//! The usual layout of a mixture of experts: a router `{prefix}gate` and one gated MLP per expert, `{prefix}experts.{e}.`.

use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Activation, Experts, Linear, Mlp, Moe, Router, Scoring};

#[derive(Clone, Copy)]
pub struct Sizes {
    pub num_experts: usize,
    pub top_k: usize,
    /// Width of one expert's hidden layer.
    pub intermediate: usize,
    pub activation: Activation,
}

pub fn separate(c: &Config, prefix: &str, hidden: usize, sizes: Sizes, scoring: Scoring) -> Result<Moe> {
    if sizes.top_k > sizes.num_experts {
        let problem = format!("is {}, more than the {} experts", sizes.top_k, sizes.num_experts);
        return Err(c.wrong("num_experts_per_tok", &problem));
    }
    let expert = |e| Mlp::gated(&format!("{prefix}experts.{e}."), hidden, sizes.intermediate, sizes.activation, false);
    Ok(Moe {
        num_experts: sizes.num_experts,
        top_k: sizes.top_k,
        router: Router {
            linear: Linear::new(&format!("{prefix}gate"), sizes.num_experts, hidden, false),
            scoring,
            correction_bias: None,
        },
        experts: Experts::Separate((0..sizes.num_experts).map(expert).collect()),
        shared: None,
        intermediate: sizes.intermediate,
    })
}
