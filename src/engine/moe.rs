//! Mixture of experts for a prefill: all tokens of all sequences are grouped by expert, one product per expert.
//!
//! Experts stream through one by one as their weights arrive; those that no token chose are never read.

use super::attempt::{Changed, split_on_oom};
use super::linear;
use super::routing::Assignment;
use crate::error::Result;
use crate::ops;
use crate::spec::{Mlp, Moe, SharedExpert};
use crate::tensor::Tensor;

/// Router logits of `x` [rows, hidden], in f32 and row-major [rows, experts].
pub fn router_logits(moe: &Moe<Tensor>, x: &Tensor) -> Result<Vec<f32>> {
    linear::exact_linear(&moe.router.linear, x)?.values()
}

/// residual += what the shared expert makes of `x`; both [rows, hidden].
pub fn shared_expert(shared: &SharedExpert<Tensor>, x: &Tensor, rounded: bool) -> Result<Tensor> {
    let y = linear::mlp(&shared.mlp, x, rounded)?;
    if let Some(gate) = &shared.gate {
        ops::sigmoid_gate(&y, &linear::exact_linear(gate, x)?)?;
    }
    Ok(y)
}

/// An expert and who goes to it.
pub struct Chosen<'a> {
    pub expert: usize,
    pub assignment: &'a Assignment,
    pub rows_per_product: usize,
    /// The routed weight multiplies what the expert reads, not what it writes.
    pub on_input: bool,
    /// Whether products may round what they read to bf16.
    pub rounded: bool,
    /// Memory for what is between the products, kept from expert to expert.
    pub room: &'a ops::ExpertScratch,
}

/// residual += routed weight * the expert of its tokens; `x` and `residual` hold all tokens, [tokens, hidden].
pub fn routed_expert(expert: &Mlp<Tensor>, of: &Chosen, x: &Tensor, residual: &Tensor) -> Result<()> {
    let network = linear::feed_forward(expert, of.on_input, of.rounded)?;
    let rows = of.assignment.rows[of.expert].chunks(of.rows_per_product);
    for (rows, routed) in rows.zip(of.assignment.weights[of.expert].chunks(of.rows_per_product)) {
        split_on_oom(0..rows.len(), &mut |piece| {
            let (rows, routed) = (&rows[piece.clone()], &routed[piece]);
            ops::add_expert(residual, x, &network, rows, routed, of.room).map(|()| Changed(Ok(())))
        })?;
    }
    Ok(())
}
