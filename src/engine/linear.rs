//! Projections and feed-forward networks on rows of tokens.
//!
//! Activations are f32. Weights are kept as they are stored and converted where they are used, so
//! that bf16 costs only the accuracy of the weights: routers choose experts by margins that rounded
//! activations would change. In bf16 mode, on CPUs that multiply bf16 faster, large projections do
//! round their inputs.

use super::rounding;
use crate::error::{Error, Result};
use crate::ops::{self, FeedForward, Projection};
use crate::spec::{Linear, Mlp, Norm};
use crate::tensor::Tensor;
use crate::vocabulary::Activation;

pub(super) fn projection(linear: &Linear<Tensor>) -> Projection<'_> {
    Projection { weight: &linear.weight, order: linear.order, bias: linear.bias.as_ref() }
}

/// Multiplies `x` [rows, in] in f32 with several projections, to [rows, out] each. If `rounded`, x
/// may be rounded to bf16 where that is faster.
pub(super) fn linears<const N: usize>(all: [&Linear<Tensor>; N], x: &Tensor, rounded: bool) -> Result<[Tensor; N]> {
    let products = match &all[0].rounding {
        Some(rounding) => rounding::products(&all, x, rounding, rounded)?,
        None => ops::project(x, &all.map(projection), rounded)?,
    };
    Ok(products.try_into().expect("as many as were asked for"))
}

pub(super) fn linear(linear: &Linear<Tensor>, x: &Tensor, rounded: bool) -> Result<Tensor> {
    linears([linear], x, rounded).map(|[y]| y)
}

/// As `linear`, without rounding. It serves routers and gates, whose small outputs have large
/// effects.
pub(super) fn exact_linear(one: &Linear<Tensor>, x: &Tensor) -> Result<Tensor> {
    linear(one, x, false)
}

/// Maps `x` [rows, hidden] to [rows, hidden]. `shown` receives the input of the down projection.
pub(super) fn mlp(
    mlp: &Mlp<Tensor>,
    x: &Tensor,
    rounded: bool,
    shown: impl FnOnce(&Tensor) -> Result<()>,
) -> Result<Tensor> {
    let inner = match (&mlp.gate, activation(mlp)?) {
        (_, Activation::Halves(act)) => ops::gate_halves(*act, &linear(&mlp.up, x, rounded)?)?,
        (_, Activation::ClampedSwiglu { limit }) => ops::interleaved_swiglu(&linear(&mlp.up, x, rounded)?, limit)?,
        (Some(gate), activation) => {
            let [gate, up] = linears([gate, &mlp.up], x, rounded)?;
            ops::gate(activation, &gate, &up)?;
            up
        }
        (None, activation) => {
            let up = linear(&mlp.up, x, rounded)?;
            ops::activate(activation, &up)?;
            up
        }
    };
    shown(&inner)?;
    linear(&mlp.down, &inner, rounded)
}

/// The feed-forward network as a parameter of `ops::add_expert`.
pub(super) fn feed_forward(mlp: &Mlp<Tensor>, on_input: bool, rounded: bool) -> Result<FeedForward<'_>> {
    Ok(FeedForward {
        gate: mlp.gate.as_ref().map(projection),
        up: projection(&mlp.up),
        down: projection(&mlp.down),
        activation: activation(mlp)?,
        on_input,
        rounded,
    })
}

/// The activation function with the parameters from the checkpoint. Those of xIELU are stored
/// before their softplus.
fn activation(mlp: &Mlp<Tensor>) -> Result<Activation> {
    let Some(xielu) = &mlp.xielu else { return Ok(mlp.activation) };
    let number = |tensor: &Tensor| Ok::<_, Error>(tensor.values()?.first().copied().unwrap_or(0.0));
    let softplus = |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let (beta, eps) = (number(&xielu.beta)?, number(&xielu.eps)?);
    let (alpha_p, alpha_n) = (softplus(number(&xielu.alpha_p)?), beta + softplus(number(&xielu.alpha_n)?));
    Ok(Activation::XIelu { alpha_p, alpha_n, beta, eps })
}

/// The norm of `x` [.., size].
pub(super) fn norm(norm: &Norm<Tensor>, x: &Tensor) -> Result<Tensor> {
    ops::norm(norm.kind, norm.eps, x, &norm.weight, norm.bias.as_ref())
}
