//! Projections and norms, the components of all other parts. Shapes are [out, in] unless stated
//! otherwise.

use super::weight::TensorSpec;
use crate::record::InputRounding;
use crate::vocabulary::{NormKind, Order};

#[derive(Clone, Debug)]
pub struct Linear<W = TensorSpec> {
    pub weight: W,
    pub bias: Option<W>,
    pub order: Order,
    /// How its input is rounded, in a lane that does so.
    pub rounding: Option<Box<InputRounding<W>>>,
}

impl Linear {
    /// `{name}.weight` [out, in] and, if `bias`, `{name}.bias` [out].
    pub fn new(name: &str, out: usize, input: usize, bias: bool) -> Self {
        Self {
            weight: TensorSpec::new(format!("{name}.weight"), [out, input]),
            bias: bias.then(|| TensorSpec::new(format!("{name}.bias"), [out])),
            order: Order::OutIn,
            rounding: None,
        }
    }

    /// As `new`, stored [in, out].
    pub fn transposed(name: &str, out: usize, input: usize, bias: bool) -> Self {
        let mut linear = Self::new(name, out, input, bias);
        linear.weight.shape = vec![input, out];
        linear.order = Order::InOut;
        linear
    }
}

#[derive(Clone, Debug)]
pub struct Norm<W = TensorSpec> {
    pub kind: NormKind,
    pub weight: W,
    pub bias: Option<W>,
    pub eps: f64,
}

impl Norm {
    /// `{name}.weight` and, for a LayerNorm, `{name}.bias`, both [size].
    pub fn new(kind: NormKind, name: &str, size: usize, eps: f64) -> Self {
        Self {
            kind,
            weight: TensorSpec::new(format!("{name}.weight"), [size]),
            bias: matches!(kind, NormKind::Layer | NormKind::LayerZeroCentred)
                .then(|| TensorSpec::new(format!("{name}.bias"), [size])),
            eps,
        }
    }

    /// A LayerNorm with only a weight (MPT, Cohere).
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }
}
