//! Types that the description of a model and the arithmetic share.

/// The storage order of a projection's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OutIn,
    /// Conv1D of GPT-2, and the stacked experts of gpt-oss in bf16.
    InOut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// x / rms(x), rounded to the compute dtype, then multiplied by the weight: Llama and most
    /// others.
    Rms,
    /// As `Rms`, rounded only once, after the weight: gpt-oss.
    RmsRoundedOnce,
    /// x / rms(x) multiplied by (1 + weight): Gemma, Qwen3-Next.
    RmsZeroCentred,
    /// LayerNorm: mean and variance are removed, with weight and bias.
    Layer,
    /// As `Layer`, multiplied by (1 + weight): Nemotron.
    LayerZeroCentred,
}

/// The keys that a query attends to, of those up to its own position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    #[default]
    All,
    /// The last keys of this number, including its own.
    Window(usize),
    /// The keys in the same chunk of this number of positions: Llama 4.
    Chunk(usize),
}

impl Span {
    /// The first key that the query at this position attends to.
    pub fn first_key(self, query: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Window(width) => (query + 1).saturating_sub(width),
            Self::Chunk(size) => query / size * size,
        }
    }

    /// The largest number of keys that some of `queries` consecutive queries attend to, in
    /// sequences of `positions`.
    pub fn most_keys(self, queries: usize, positions: usize) -> usize {
        match self {
            Self::All => positions,
            Self::Window(width) | Self::Chunk(width) => positions.min(width + queries),
        }
    }
}

/// The pairs of dimensions that the rotary embedding rotates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairs {
    /// Dimension j with j + dim / 2: GPT-NeoX, Llama.
    #[default]
    Halves,
    /// Dimensions 2j and 2j + 1: GPT-J, Cohere, DeepSeek.
    Adjacent,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    Relu,
    /// relu(x)^2: Nemotron.
    ReluSquared,
    /// The tanh approximation: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    GeluErf,
    /// x * sigmoid(1.702 x): `quick_gelu`.
    GeluQuick,
    /// gelu(x) within -10 and 10: `gelu_10`.
    GeluClipped,
    /// relu(x), at most 6.
    Relu6,
    /// x, or 0.01 x below zero.
    LeakyRelu,
    /// x * tanh(ln(1 + exp(x))).
    Mish,
    /// x * relu6(x + 3) / 6.
    HardSwish,
    /// sqrt(ln(1 + exp(x))).
    SqrtSoftplus,
    /// The distribution function of a normal law with the mean 0.707107 and the deviation 0.282095,
    /// which approximates relu(x)^2 (Ma et al. 2022, "Mega").
    Laplace,
    Sigmoid,
    Tanh,
    Linear,
    /// gpt-oss: gate and up interleaved, gate <= limit, |up| <= limit, (up + 1) * gate *
    /// sigmoid(1.702 gate).
    ClampedSwiglu {
        limit: f32,
    },
    /// act(gate) * up, with the gate in the first half of `up`'s outputs and up in the second.
    Halves(&'static Activation),
    /// xIELU of Apertus, with its effective parameters.
    XIelu {
        alpha_p: f32,
        alpha_n: f32,
        beta: f32,
        eps: f32,
    },
}
