//! The words that the description of a model and the arithmetic share.

/// How the weight of a projection is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OutIn,
    /// GPT-2's Conv1D, and stacked experts of gpt-oss in bf16.
    InOut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// x / rms(x), rounded to the compute dtype, then times the weight: Llama and most of its relatives.
    Rms,
    /// As `Rms` but rounded only once, after the weight: gpt-oss.
    RmsRoundedOnce,
    /// x / rms(x) times (1 + weight): Gemma, Qwen3-Next.
    RmsZeroCentred,
    /// Mean and variance removed, weight and bias.
    Layer,
    /// As `Layer`, times (1 + weight): Nemotron.
    LayerZeroCentred,
}

/// Which keys a query sees, of those up to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    #[default]
    All,
    /// The last so many, itself included.
    Window(usize),
    /// Those in the same chunk of so many positions: Llama 4.
    Chunk(usize),
}

impl Span {
    /// The first key that the query at this position sees.
    pub fn first_key(self, query: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Window(width) => (query + 1).saturating_sub(width),
            Self::Chunk(size) => query / size * size,
        }
    }

    /// The most keys that one of `queries` consecutive queries sees, in sequences of `positions`.
    pub fn most_keys(self, queries: usize, positions: usize) -> usize {
        match self {
            Self::All => positions,
            Self::Window(width) | Self::Chunk(width) => positions.min(width + queries),
        }
    }
}

/// Which dimensions of a head the rotary embedding turns together.
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
    /// tanh approximation: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    GeluErf,
    /// gpt-oss: gate and up interleaved, gate <= limit, |up| <= limit, (up + 1) * gate * sigmoid(1.702 gate).
    ClampedSwiglu {
        limit: f32,
    },
    /// Gate in the first half of `up`'s outputs, up in the second; silu(gate) * up.
    SwigluHalves,
    /// xIELU of Apertus, with its parameters as they are applied.
    XIelu {
        alpha_p: f32,
        alpha_n: f32,
        beta: f32,
        eps: f32,
    },
}
