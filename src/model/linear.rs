//! Projections and feed-forward blocks on rows of tokens.
//!
//! Activations are f32 throughout; the compute dtype is that of the weights in memory. A bf16 weight is widened where it
//! is used, so that what bf16 costs in accuracy is the rounding of the weights alone: mixtures choose their experts by
//! margins that rounded activations would flip.

use candle_core::{DType, Result, Tensor};

use super::ops;
use super::reader::Weights;
use super::spec::{Activation, Linear, Mlp, Norm, Order};

/// Looks a weight up; a missing one is a fault of the schedule and reads as such.
pub fn weight<'a>(weights: &'a Weights, name: &str) -> Result<&'a Tensor> {
    weights.get(name).map_err(|e| candle_core::Error::Msg(e.message))
}

/// `x` [rows, in] in f32 times a weight in f32 or bf16, stored in `order`, plus a bias [out] in f32.
pub fn project(x: &Tensor, weight: &Tensor, order: Order, bias: Option<&Tensor>) -> Result<Tensor> {
    let weight = weight.to_dtype(DType::F32)?;
    let y = match order {
        Order::OutIn => x.matmul(&weight.t()?)?,
        Order::InOut => x.matmul(&weight)?,
    };
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

pub fn linear(spec: &Linear, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let bias = spec.bias.as_ref().map(|bias| weight(weights, &bias.name)).transpose()?;
    project(x, weight(weights, &spec.weight.name)?, spec.order, bias)
}

/// `x` [rows, hidden] to [rows, hidden].
pub fn mlp(spec: &Mlp, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let up = linear(&spec.up, weights, x)?;
    let inner = match (&spec.gate, spec.activation) {
        (_, Activation::ClampedSwiglu { limit }) => ops::interleaved_swiglu(&up, limit)?,
        (Some(gate), activation) => ops::gated(activation, &linear(gate, weights, x)?, &up)?,
        (None, activation) => ops::activate(activation, &up)?,
    };
    linear(&spec.down, weights, &inner)
}

/// The norm of `x` [.., size].
pub fn norm(spec: &Norm, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let bias = spec.bias.as_ref().map(|bias| weight(weights, &bias.name)).transpose()?;
    ops::norm(spec.kind, spec.eps, x, weight(weights, &spec.weight.name)?, bias, DType::F32)
}
