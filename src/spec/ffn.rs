//! Feed-forward networks: dense ones, and mixtures of experts with their routers.

use std::sync::Arc;

use super::leaves::Leaves;
use super::linear::Linear;
use super::weight::TensorSpec;
use crate::vocabulary::Activation;

#[derive(Clone, Debug)]
pub struct Mlp<W = TensorSpec> {
    /// Present in gated networks: down(act(gate x) * up x); otherwise down(act(up x)).
    pub gate: Option<Linear<W>>,
    pub up: Linear<W>,
    pub down: Linear<W>,
    pub activation: Activation,
    /// Parameters of xIELU, which replace the activation.
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

    /// `{prefix}gate_up_proj`, with the rows of the gate first, and `down_proj`, without biases.
    pub fn gate_up(prefix: &str, hidden: usize, intermediate: usize, activation: Activation) -> Self {
        let both = Linear::new(&format!("{prefix}gate_up_proj"), 2 * intermediate, hidden, false);
        let part = |first| Linear { weight: both.weight.rows(first, intermediate), ..both.clone() };
        let mut mlp = Self::gated(prefix, hidden, intermediate, activation, false);
        (mlp.gate, mlp.up) = (Some(part(0)), part(intermediate));
        mlp
    }

    /// Two projections without a gate: `{prefix}{up}` and `{prefix}{down}`.
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

/// The computation of (expert, weight) pairs from router logits: scores, selection, and weights of
/// the chosen experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoring {
    pub score: Score,
    /// If present, experts are chosen within the best of these groups.
    pub groups: Option<Groups>,
    /// The divisor of the chosen experts' weights.
    pub divisor: Divisor,
    /// A final factor of the weights.
    pub factor: f32,
    /// True if the weight multiplies the input of an expert in place of its output (Llama 4).
    pub on_input: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    Sigmoid,
    /// The logits select, and the weights are the softmax over the selected ones (gpt-oss,
    /// Granite).
    Chosen,
    /// Two experts in turn, each weighted among the logits close to its own (Phi-3.5-MoE). `jitter`
    /// is `router_jitter_noise`.
    SparseMixer {
        jitter: f32,
    },
}

/// Groups of experts of equal size, of which the best are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    pub count: usize,
    pub top: usize,
    /// The score of a group is the sum of this number of its best experts.
    pub judged_by: usize,
    /// The score of experts in other groups.
    pub masked: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divisor {
    One,
    /// The sum of the weights plus this.
    Sum(f32),
    /// The sum of the weights, or this if it is larger (ERNIE 4.5).
    AtLeast(f32),
}

impl Scoring {
    pub fn new(score: Score, divisor: Divisor) -> Self {
        Self { score, groups: None, divisor, factor: 1.0, on_input: false }
    }

    /// Softmax over all experts, top k, optionally divided by their sum.
    pub fn softmax(renormalise: bool) -> Self {
        Self::new(Score::Softmax, if renormalise { Divisor::Sum(0.0) } else { Divisor::One })
    }
}

#[derive(Clone, Debug)]
pub struct Router<W = TensorSpec> {
    pub linear: Linear<W>,
    pub scoring: Scoring,
    /// [experts], added to sigmoid scores for the selection.
    pub correction_bias: Option<W>,
}

/// The routed experts of a layer, which are read one by one.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Experts {
    /// A set of tensors per expert.
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

/// An expert that processes every token.
#[derive(Clone, Debug)]
pub struct SharedExpert<W = TensorSpec> {
    pub mlp: Mlp<W>,
    /// [1, hidden]: the output is multiplied by sigmoid(gate x).
    pub gate: Option<Linear<W>>,
}

#[derive(Clone, Debug)]
pub struct Moe<W = TensorSpec> {
    pub num_experts: usize,
    pub top_k: usize,
    pub router: Router<W>,
    pub experts: Arc<Experts>,
    pub shared: Option<SharedExpert<W>>,
    /// Inner width of an expert.
    pub intermediate: usize,
}

#[derive(Clone, Debug)]
pub enum Ffn<W = TensorSpec> {
    Dense(Box<Mlp<W>>),
    Moe(Box<Moe<W>>),
    /// Nothing needs its contribution to the residual stream.
    NotNeeded,
}
