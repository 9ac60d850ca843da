//! Mixture of experts for a prefill: all tokens of all sequences are grouped by expert, one product per expert.
//!
//! Experts stream through one by one as their weights arrive; those that no token chose are never read.

use super::attempt::{Changed, split_on_oom};
use super::linear::{self, weight};
use super::routing::Assignment;
use crate::error::{Error, Result};
use crate::ops::{self, FeedForward, Projection};
use crate::spec::{Experts, Moe, SharedExpert, StackedWeight};
use crate::tensor::Tensor;
use crate::vocabulary::Order;
use crate::weights::reader::Weights;

/// Router logits of `x` [rows, hidden], in f32 and row-major [rows, experts].
pub fn router_logits(moe: &Moe, weights: &Weights, x: &Tensor) -> Result<Vec<f32>> {
    linear::exact_linear(&moe.router.linear, weights, x)?.values()
}

/// residual += what the shared expert makes of `x`; both [rows, hidden].
pub fn shared_expert(shared: &SharedExpert, weights: &Weights, x: &Tensor) -> Result<Tensor> {
    let y = linear::mlp(&shared.mlp, weights, x)?;
    if let Some(gate) = &shared.gate {
        ops::sigmoid_gate(&y, &linear::exact_linear(gate, weights, x)?)?;
    }
    Ok(y)
}

/// An expert and who goes to it.
pub struct Chosen<'a> {
    pub expert: usize,
    pub assignment: &'a Assignment,
    pub rows_per_product: usize,
    /// Memory for what is between the products, kept from expert to expert.
    pub room: &'a ops::Room,
}

/// residual += routed weight * the expert of its tokens; `x` and `residual` hold all tokens, [tokens, hidden].
pub fn routed_expert(moe: &Moe, weights: &Weights, of: &Chosen, x: &Tensor, residual: &Tensor) -> Result<()> {
    let network = network(&moe.experts, weights, of.expert)?;
    let rows = of.assignment.rows[of.expert].chunks(of.rows_per_product);
    for (rows, routed) in rows.zip(of.assignment.weights[of.expert].chunks(of.rows_per_product)) {
        split_on_oom(0..rows.len(), &mut |piece| {
            let (rows, routed) = (&rows[piece.clone()], &routed[piece]);
            ops::add_expert(residual, x, &network, rows, routed, of.room).map(|()| Changed(Ok(())))
        })?;
    }
    Ok(())
}

fn network<'a>(experts: &Experts, weights: &'a Weights, e: usize) -> Result<FeedForward<'a>> {
    match experts {
        Experts::Separate(mlps) => linear::feed_forward(&mlps[e], weights),
        Experts::Stacked { gate_up, gate_up_bias, down, down_bias, activation } => {
            let projection = |stacked: &StackedWeight, bias: &str| {
                let (name, order) = match stacked {
                    StackedWeight::Dense(tensor) => (&tensor.name, Order::InOut),
                    StackedWeight::Mxfp4 { blocks, .. } => (&blocks.name, Order::OutIn),
                };
                let bias = Some(weight(weights, bias)?);
                Ok::<_, Error>(Projection { weight: weight(weights, name)?, order, bias })
            };
            Ok(FeedForward {
                gate: None,
                up: projection(gate_up, &gate_up_bias.name)?,
                down: projection(down, &down_bias.name)?,
                activation: *activation,
                rounded: weights.rounded(),
            })
        }
    }
}
