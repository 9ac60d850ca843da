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
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    Relu,
    /// tanh approximation: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    GeluErf,
    /// gpt-oss: gate and up interleaved, gate <= limit, |up| <= limit, (up + 1) * gate * sigmoid(1.702 gate).
    ClampedSwiglu {
        limit: f32,
    },
}
