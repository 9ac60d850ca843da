//! Mixture of experts for a prefill: all tokens of all sequences are grouped by expert, one product per expert.
//!
//! Experts stream through one by one as their weights arrive; those that no token chose are never read.

use candle_core::{Tensor, bail};

use super::linear::{self, project, weight};
use super::ops;
use super::reader::Weights;
use super::routing::Assignment;
use super::spec::{Activation, Experts, Moe, Order, StackedWeight};

/// Router logits of `x` [rows, hidden], in f32 and row-major [rows, experts].
pub fn router_logits(moe: &Moe, weights: &Weights, x: &Tensor) -> candle_core::Result<Vec<f32>> {
    linear::linear(&moe.router.linear, weights, x)?.flatten_all()?.to_vec1()
}

/// residual += what the shared expert makes of `x`; both [rows, hidden].
pub fn shared_expert(moe: &Moe, weights: &Weights, x: &Tensor, residual: &Tensor) -> candle_core::Result<()> {
    let Some(shared) = &moe.shared else { return Ok(()) };
    let mut y = linear::mlp(&shared.mlp, weights, x)?;
    if let Some(gate) = &shared.gate {
        y = ops::sigmoid_gate(&y, &linear::linear(gate, weights, x)?)?;
    }
    ops::add(residual, &y)
}

/// residual += routed weight * expert `e` of its tokens; `x` and `residual` hold all tokens, [tokens, hidden].
pub fn routed_expert(
    moe: &Moe,
    weights: &Weights,
    e: usize,
    assignment: &Assignment,
    x: &Tensor,
    residual: &Tensor,
    rows_per_product: usize,
) -> candle_core::Result<()> {
    let pieces = assignment.rows[e].chunks(rows_per_product).zip(assignment.weights[e].chunks(rows_per_product));
    for (rows, routed) in pieces {
        let chosen = x.index_select(&Tensor::new(rows, x.device())?, 0)?;
        let y = expert(moe, weights, e, &chosen)?;
        ops::add_rows(residual, &y, rows, routed)?;
    }
    Ok(())
}

fn expert(moe: &Moe, weights: &Weights, e: usize, x: &Tensor) -> candle_core::Result<Tensor> {
    match &moe.experts {
        Experts::Separate(mlps) => linear::mlp(&mlps[e], weights, x),
        Experts::Stacked { gate_up, gate_up_bias, down, down_bias, activation } => {
            let Activation::ClampedSwiglu { limit } = *activation else {
                bail!("stacked experts interleave gate and up")
            };
            let product = |x: &Tensor, stacked: &StackedWeight, bias: &str| {
                let bias = Some(weight(weights, bias)?);
                match stacked {
                    StackedWeight::Dense(tensor) => project(x, weight(weights, &tensor.name)?, Order::InOut, bias),
                    StackedWeight::Mxfp4 { blocks, .. } => {
                        project(x, weight(weights, &blocks.name)?, Order::OutIn, bias)
                    }
                }
            };
            let inner = ops::interleaved_swiglu(&product(x, gate_up, &gate_up_bias.name)?, limit)?;
            product(&inner, down, &down_bias.name)
        }
    }
}
