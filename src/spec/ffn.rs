//! Feed-forward networks: dense ones, and mixtures of experts with their routers.

use std::sync::Arc;

use super::leaves::Leaves;
use super::linear::Linear;
use super::weight::TensorSpec;
use crate::vocabulary::Activation;

#[derive(Clone, Debug)]
pub struct Mlp<W = TensorSpec> {
    /// Present in gated MLPs: down(act(gate x) * up x); else down(act(up x)).
    pub gate: Option<Linear<W>>,
    pub up: Linear<W>,
    pub down: Linear<W>,
    pub activation: Activation,
    /// Parameters of xIELU, which take the place of the activation.
    pub xielu: Option<XIelu<W>>,
}

/// Parameters of xIELU as they are stored (Apertus; Huang and Schlag 2025), one number each.
#[derive(Clone, Debug)]
pub struct XIelu<W = TensorSpec> {
    pub alpha_p: W,
    pub alpha_n: W,
    pub beta: W,
    pub eps: W,
}

impl Mlp {
    /// down(act(up x)).
    pub fn ungated(up: Linear, down: Linear, activation: Activation) -> Self {
        Self { gate: None, up, down, activation, xielu: None }
    }

    /// `{prefix}gate_proj`, `up_proj`, `down_proj`.
    pub fn gated(prefix: &str, hidden: usize, intermediate: usize, activation: Activation, bias: bool) -> Self {
        Self {
            gate: Some(Linear::new(&format!("{prefix}gate_proj"), intermediate, hidden, bias)),
            up: Linear::new(&format!("{prefix}up_proj"), intermediate, hidden, bias),
            down: Linear::new(&format!("{prefix}down_proj"), hidden, intermediate, bias),
            activation,
            xielu: None,
        }
    }

    /// `{prefix}gate_up_proj`, the rows of the gate above those of the other, and `down_proj`, without biases.
    pub fn gate_up(prefix: &str, hidden: usize, intermediate: usize, activation: Activation) -> Self {
        let both = Linear::new(&format!("{prefix}gate_up_proj"), 2 * intermediate, hidden, false);
        let part = |first| Linear { weight: both.weight.rows(first, intermediate), ..both.clone() };
        let mut mlp = Self::gated(prefix, hidden, intermediate, activation, false);
        (mlp.gate, mlp.up) = (Some(part(0)), part(intermediate));
        mlp
    }

    /// Two projections without a gate between them: `{prefix}{up}` and `{prefix}{down}`.
    pub fn plain(
        prefix: &str,
        [up, down]: [&str; 2],
        hidden: usize,
        intermediate: usize,
        activation: Activation,
        bias: bool,
    ) -> Self {
        let up = Linear::new(&format!("{prefix}{up}"), intermediate, hidden, bias);
        Self::ungated(up, Linear::new(&format!("{prefix}{down}"), hidden, intermediate, bias), activation)
    }
}

/// From router logits to (expert, weight) pairs: scores, those of them that choose, and weights of the chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoring {
    pub score: Score,
    /// Experts are chosen within the best of these groups.
    pub groups: Option<Groups>,
    /// What the weights of the chosen are divided by.
    pub divisor: Divisor,
    /// What the weights are multiplied with in the end.
    pub factor: f32,
    /// The weight multiplies what an expert reads, not what it writes (Llama 4).
    pub on_input: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    Sigmoid,
    /// The logits choose; the softmax over the chosen weighs (gpt-oss, Granite).
    Chosen,
    /// Two experts one after the other, each weighed among those whose logits are near its own (Phi-3.5-MoE); `jitter` is
    /// `router_jitter_noise`.
    SparseMixer {
        jitter: f32,
    },
}

/// Groups of experts of one size, of which the best take part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    pub count: usize,
    pub top: usize,
    /// How many of its best experts are added up to judge a group.
    pub judged_by: usize,
    /// The score that experts of other groups get.
    pub masked: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divisor {
    One,
    /// The sum of the weights and this.
    Sum(f32),
    /// The sum of the weights, or this where it is larger (ERNIE 4.5).
    AtLeast(f32),
}

impl Scoring {
    pub fn new(score: Score, divisor: Divisor) -> Self {
        Self { score, groups: None, divisor, factor: 1.0, on_input: false }
    }

    /// Softmax over all experts, top k, divided by their sum or not.
    pub fn softmax(renormalise: bool) -> Self {
        Self::new(Score::Softmax, if renormalise { Divisor::Sum(0.0) } else { Divisor::One })
    }
}

#[derive(Clone, Debug)]
pub struct Router<W = TensorSpec> {
    pub linear: Linear<W>,
    pub scoring: Scoring,
    /// [experts], added to sigmoid scores when choosing.
    pub correction_bias: Option<W>,
}

/// The routed experts of a layer, which are read one by one.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Experts {
    /// One set of tensors per expert.
    Separate(Vec<Mlp>),
    /// One set of tensors for all, each [experts, …].
    Stacked(Mlp),
}

impl Experts {
    /// The feed-forward network of expert `e`.
    pub fn network(&self, e: usize) -> Mlp {
        match self {
            Experts::Separate(mlps) => mlps[e].clone(),
            Experts::Stacked(mlp) => mlp.map(&mut |stack, _| stack.slice(e)),
        }
    }
}

/// An expert that every token passes through.
#[derive(Clone, Debug)]
pub struct SharedExpert<W = TensorSpec> {
    pub mlp: Mlp<W>,
    /// [1, hidden]: output times sigmoid(gate x).
    pub gate: Option<Linear<W>>,
}

#[derive(Clone, Debug)]
pub struct Moe<W = TensorSpec> {
    pub num_experts: usize,
    pub top_k: usize,
    pub router: Router<W>,
    pub experts: Arc<Experts>,
    pub shared: Option<SharedExpert<W>>,
    /// Width of one expert's hidden layer.
    pub intermediate: usize,
}

#[derive(Clone, Debug)]
pub enum Ffn<W = TensorSpec> {
    Dense(Box<Mlp<W>>),
    Moe(Box<Moe<W>>),
    /// Nothing needs what it adds to the residual stream.
    NotNeeded,
}
