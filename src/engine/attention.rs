//! Grouped-query attention over whole sequences: projections, norms, rotary embedding, and the way back.

use super::linear::{linear, linears, norm, weight};
use crate::error::Result;
use crate::ops::{self, Attend};
use crate::spec::{Attention, QkNorm, Qkv};
use crate::tensor::Tensor;
use crate::weights::reader::Weights;

/// What a token mixer needs to know of the batch.
pub struct Batch<'a> {
    pub sequences: usize,
    pub positions: usize,
    /// Rotary tables [positions, dim / 2] in f32, where the mixer uses them.
    pub rotary: Option<&'a (Tensor, Tensor)>,
}

/// `x` [sequences * positions, hidden] to the same shape.
pub fn attention(spec: &Attention, weights: &Weights, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t) = (batch.sequences, batch.positions);
    let Attention { heads, kv_heads, head_dim, .. } = *spec;
    let (q, k, v, gate) = projections(spec, weights, x)?;
    if let Some((cos, sin)) = batch.rotary {
        ops::rotate(&q.reshape((s, t, heads, head_dim))?, cos, sin)?;
        ops::rotate(&k.reshape((s, t, kv_heads, head_dim))?, cos, sin)?;
    }
    let sinks = spec.sinks.as_ref().map(|sinks| weight(weights, &sinks.name)).transpose()?;
    let (window, scale) = (spec.window, spec.scale as f32);
    let out = ops::attend(
        &q,
        &k,
        &v,
        sinks,
        Attend { positions: t, heads, kv_heads, head_dim, window, scale, rounded: weights.rounded() },
    )?;
    drop((q, k, v));
    if let Some(gate) = gate {
        ops::sigmoid_gate(&out, &gate)?;
    }
    linear(&spec.out, weights, &out)
}

/// q, k, v and the output gate, [rows, heads * head_dim] each, after norms and clipping.
fn projections(spec: &Attention, weights: &Weights, x: &Tensor) -> Result<(Tensor, Tensor, Tensor, Option<Tensor>)> {
    let (q_size, kv_size) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let (mut q, mut k, mut v) = match &spec.qkv {
        Qkv::Separate { q, k, v } => linears([q, k, v], weights, x)?.into(),
        Qkv::Fused(fused) => {
            let all = linear(fused, weights, x)?;
            let part = |start, size| all.columns(start, size);
            (part(0, q_size)?, part(q_size, kv_size)?, part(q_size + kv_size, kv_size)?)
        }
    };
    let mut gate = None;
    if spec.gated {
        let rows = x.dims()[0];
        let halves = q.reshape((rows, spec.heads, 2 * spec.head_dim))?;
        let half = |i| halves.columns(i * spec.head_dim, spec.head_dim)?.reshape((rows, q_size));
        gate = Some(half(1)?);
        q = half(0)?;
    }
    if let Some(QkNorm { q: q_norm, k: k_norm, per_head }) = &spec.qk_norm {
        let rows = x.dims()[0];
        let apply = |spec_norm, x: &Tensor, size: usize| {
            let width = if *per_head { spec.head_dim } else { size };
            norm(spec_norm, weights, &x.reshape((rows * size / width, width))?)?.reshape((rows, size))
        };
        (q, k) = (apply(q_norm, &q, q_size)?, apply(k_norm, &k, kv_size)?);
    }
    if let Some(clip) = spec.clip {
        (q, k, v) = (q.clamp(clip)?, k.clamp(clip)?, v.clamp(clip)?);
    }
    Ok((q, k, v, gate))
}
