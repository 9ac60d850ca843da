//! Projections and feed-forward blocks on rows of tokens.
//!
//! Activations are f32 throughout; weights are kept as they are stored and widened where they are used, so that what bf16
//! costs in accuracy is the rounding of the weights alone: mixtures choose their experts by margins that rounded activations
//! would flip. Where the CPU multiplies pairs of bf16 faster, large projections in bf16 mode do round what they read.

use crate::error::Result;
use crate::ops::{self, FeedForward, Projection};
use crate::spec::{Linear, Mlp, Norm};
use crate::tensor::Tensor;
use crate::vocabulary::Activation;
use crate::weights::reader::Weights;

/// Looks a weight up.
pub fn weight<'a>(weights: &'a Weights, name: &str) -> Result<&'a Tensor> {
    weights.get(name)
}

pub fn projection<'a>(spec: &Linear, weights: &'a Weights) -> Result<Projection<'a>> {
    let bias = spec.bias.as_ref().map(|bias| weight(weights, &bias.name)).transpose()?;
    Ok(Projection { weight: weight(weights, &spec.weight.name)?, order: spec.order, bias })
}

/// `x` [rows, in] in f32 through several projections, [rows, out] each.
pub fn linears<const N: usize>(specs: [&Linear; N], weights: &Weights, x: &Tensor) -> Result<[Tensor; N]> {
    let projections = specs.iter().map(|spec| projection(spec, weights)).collect::<Result<Vec<_>>>()?;
    let products = ops::project(x, &projections, weights.rounded())?;
    Ok(products.try_into().expect("as many as were asked for"))
}

pub fn linear(spec: &Linear, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    linears([spec], weights, x).map(|[y]| y)
}

/// As `linear`, never rounding: for routers and gates, whose small outputs decide a lot.
pub fn exact_linear(spec: &Linear, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    Ok(ops::project(x, &[projection(spec, weights)?], false)?.remove(0))
}

/// `x` [rows, hidden] to [rows, hidden].
pub fn mlp(spec: &Mlp, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let inner = match (&spec.gate, spec.activation) {
        (_, Activation::ClampedSwiglu { limit }) => ops::interleaved_swiglu(&linear(&spec.up, weights, x)?, limit)?,
        (Some(gate), activation) => {
            let [gate, up] = linears([gate, &spec.up], weights, x)?;
            ops::gate(activation, &gate, &up)?;
            up
        }
        (None, activation) => {
            let up = linear(&spec.up, weights, x)?;
            ops::activate(activation, &up)?;
            up
        }
    };
    linear(&spec.down, weights, &inner)
}

/// The weights of `spec` as an operation on chosen rows takes them.
pub fn feed_forward<'a>(spec: &Mlp, weights: &'a Weights) -> Result<FeedForward<'a>> {
    Ok(FeedForward {
        gate: spec.gate.as_ref().map(|gate| projection(gate, weights)).transpose()?,
        up: projection(&spec.up, weights)?,
        down: projection(&spec.down, weights)?,
        activation: spec.activation,
        rounded: weights.rounded(),
    })
}

/// The norm of `x` [.., size].
pub fn norm(spec: &Norm, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let bias = spec.bias.as_ref().map(|bias| weight(weights, &bias.name)).transpose()?;
    ops::norm(spec.kind, spec.eps, x, weight(weights, &spec.weight.name)?, bias)
}
