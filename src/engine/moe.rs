//! Mixture of experts for a prefill: the tokens of all sequences are grouped by expert, and each
//! expert computes its tokens in one product.
//!
//! Experts are computed one by one as their weights arrive. Experts without tokens are not read.

use super::attempt::{Changed, split_on_oom};
use super::linear;
use super::routing::Assignment;
use crate::error::Result;
use crate::ops::{self, Computed};
use crate::spec::{Mlp, Moe, SharedExpert};
use crate::tensor::Tensor;

/// Router logits of `x` [rows, hidden] in f32, row-major [rows, experts].
pub(super) fn router_logits(moe: &Moe<Tensor>, x: &Tensor) -> Result<Vec<f32>> {
    let mut logits = linear::exact_linear(&moe.router.linear, x)?.values()?;
    if moe.router.logit_factor != 1.0 {
        logits.iter_mut().for_each(|logit| *logit *= moe.router.logit_factor as f32);
    }
    Ok(logits)
}

/// The output of the shared expert for `x` [rows, hidden], with its gate and its norm. `shown`
/// receives the input of its down projection.
pub(super) fn shared_expert(
    shared: &SharedExpert<Tensor>,
    x: &Tensor,
    rounded: bool,
    shown: impl FnOnce(&Tensor) -> Result<()>,
) -> Result<Tensor> {
    let y = linear::mlp(&shared.mlp, x, rounded, shown)?;
    if let Some(gate) = &shared.gate {
        ops::sigmoid_gate(&y, &linear::exact_linear(gate, x)?)?;
    }
    match &shared.write_norm {
        Some(norm) => linear::norm(norm, &y),
        None => Ok(y),
    }
}

/// An expert with its tokens.
pub(super) struct Chosen<'a> {
    pub expert: usize,
    pub assignment: &'a Assignment,
    pub rows_per_product: usize,
    /// True if the routing weight multiplies the input of the expert in place of its output.
    pub on_input: bool,
    /// True if products may round their inputs to bf16.
    pub rounded: bool,
    /// Scratch memory that is reused between experts.
    pub room: &'a ops::ExpertScratch,
}

/// Receives rows of an expert, their routing weights, and what the expert computed for them.
pub(super) type Shown<'a> = dyn Fn(&[u32], &[f32], &Computed) -> Result<()> + 'a;

/// residual += routing weight * expert(x) for the tokens of the expert. `x` and `residual` are
/// [tokens, hidden] for all tokens.
pub(super) fn routed_expert(
    expert: &Mlp<Tensor>,
    of: &Chosen,
    x: &Tensor,
    residual: &Tensor,
    shown: Option<&Shown>,
) -> Result<()> {
    if let Some(rounding) = &expert.up.rounding {
        return rounded_expert(expert, of, rounding.rows, x, residual);
    }
    let network = linear::feed_forward(expert, of.on_input, of.rounded)?;
    let rows = of.assignment.rows[of.expert].chunks(of.rows_per_product);
    for (rows, routed) in rows.zip(of.assignment.weights[of.expert].chunks(of.rows_per_product)) {
        split_on_oom(0..rows.len(), &mut |piece| {
            let (rows, routed) = (&rows[piece.clone()], &routed[piece]);
            let computed = ops::add_expert(residual, x, &network, (rows, routed), of.room, shown.is_some())?;
            let show = |(shown, computed): (&Shown, Computed)| shown(rows, routed, &computed);
            Ok(Changed(shown.zip(computed).map_or(Ok(()), show)))
        })?;
    }
    Ok(())
}

/// The same for an expert whose inputs are rounded, sequence by sequence of so many positions. The
/// tokens of a sequence are one tensor, with the scales of one.
fn rounded_expert(expert: &Mlp<Tensor>, of: &Chosen, positions: usize, x: &Tensor, residual: &Tensor) -> Result<()> {
    let (_, width) = x.dims2()?;
    let all = &of.assignment.rows[of.expert];
    let mut weights = &of.assignment.weights[of.expert][..];
    for rows in all.chunk_by(|a, b| *a as usize / positions == *b as usize / positions) {
        let (routed, rest) = weights.split_at(rows.len());
        weights = rest;
        let ones = vec![1.0; rows.len()];
        let (before, after) = if of.on_input { (routed, &ones[..]) } else { (&ones[..], routed) };
        let mut read = Vec::with_capacity(rows.len() * width);
        for (row, weight) in rows.iter().zip(before) {
            x.rows(*row as usize, 1)?.with_values(|x| read.extend(x.iter().map(|x| x * weight)))?;
        }
        let read = Tensor::from_vec(read, (rows.len(), width), &x.device())?;
        let y = linear::mlp(expert, &read, of.rounded, |_| Ok(()))?;
        ops::add_rows(residual, &y, rows, after)?;
    }
    Ok(())
}
