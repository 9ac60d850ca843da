//! Projections and feed-forward blocks on rows of tokens.

use candle_core::{Result, Tensor};

use super::ops;
use super::reader::Weights;
use super::spec::{Activation, Linear, Mlp, Norm, Order};

/// Looks a weight up; a missing one is a fault of the schedule and reads as such.
pub fn weight<'a>(weights: &'a Weights, name: &str) -> Result<&'a Tensor> {
    weights.get(name).map_err(|e| candle_core::Error::Msg(e.message))
}

/// `x` [rows, in] times a weight stored in `order`, plus a bias [out] in f32.
pub fn project(x: &Tensor, weight: &Tensor, order: Order, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = match order {
        Order::OutIn => x.matmul(&weight.t()?)?,
        Order::InOut => x.matmul(weight)?,
    };
    match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(y.dtype())?),
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

/// The norm of `x` [.., size], in dtype `to`.
pub fn norm(spec: &Norm, weights: &Weights, x: &Tensor, to: candle_core::DType) -> Result<Tensor> {
    let bias = spec.bias.as_ref().map(|bias| weight(weights, &bias.name)).transpose()?;
    ops::norm(spec.kind, spec.eps, x, weight(weights, &spec.weight.name)?, bias, to)
}
