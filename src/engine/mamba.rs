//! Mamba-2, and the gated convolution of LFM2: token mixers whose state does not grow with the
//! sequence.
//!
//! Dao and Gu 2024, "Transformers are SSMs"; Liquid AI 2025, "LFM2".

use super::attention::Batch;
use super::linear::{linear, norm};
use crate::error::Result;
use crate::ops::{self, CausalConv, Scan};
use crate::record::Site;
use crate::spec::{GatedConv, Mamba2};
use crate::tensor::Tensor;
use crate::vocabulary::Activation;

/// Maps `x` [sequences * positions, hidden] to the same shape.
pub(super) fn mamba2(spec: &Mamba2<Tensor>, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let Mamba2 { heads, head_dim, groups, state, min_step, .. } = *spec;
    let (inner, channels) = (heads * head_dim, heads * head_dim + 2 * groups * state);
    let projected = linear(&spec.input, x, batch.rounded)?;
    let gate = projected.columns(0, inner)?;
    let steps = projected.columns(inner + channels, heads)?;
    let conv = CausalConv { positions: batch.positions, silu: true };
    let mixed = ops::causal_conv(&projected.columns(inner, channels)?, &spec.conv, spec.conv_bias.as_ref(), conv)?;
    drop(projected);
    let scan = Scan { positions: batch.positions, heads, head_dim, groups, state, min_step: min_step as f32 };
    let y = ops::selective_scan(&mixed, &steps, (&spec.dt_bias, &spec.a_log, &spec.d), scan)?;
    ops::gate(Activation::Silu, &gate, &y)?;
    let rows = y.dims()[0];
    let y = norm(&spec.norm, &y.reshape((rows * groups, inner / groups))?)?.reshape((rows, inner))?;
    batch.onlookers.show(Site::AttnOut, &y)?;
    linear(&spec.out, &y, batch.rounded)
}

/// Maps `x` [sequences * positions, hidden] to the same shape.
pub(super) fn gated_conv(spec: &GatedConv<Tensor>, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let hidden = x.dims()[1];
    let projected = linear(&spec.input, x, batch.rounded)?;
    let part = |i: usize| projected.columns(i * hidden, hidden);
    let (before, behind, read) = (part(0)?, part(1)?, part(2)?);
    ops::multiply(&read, &before)?;
    let conv = CausalConv { positions: batch.positions, silu: false };
    let y = ops::causal_conv(&read, &spec.conv, spec.conv_bias.as_ref(), conv)?;
    ops::multiply(&y, &behind)?;
    batch.onlookers.show(Site::AttnOut, &y)?;
    linear(&spec.out, &y, batch.rounded)
}
