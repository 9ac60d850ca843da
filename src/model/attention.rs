//! Grouped-query attention over whole sequences, in chunks of queries so that scores stay small.
//!
//! A chunk multiplies only with the keys it can see: those up to its last query, and with a sliding window only those
//! from its first query's window on.

use candle_core::{D, Result, Tensor};

use super::linear::{linear, norm, weight};
use super::ops::{self, Window};
use super::reader::Weights;
use super::spec::{Attention, QkNorm, Qkv};

/// What a token mixer needs to know of the batch.
pub struct Batch<'a> {
    pub sequences: usize,
    pub positions: usize,
    /// Rotary tables [positions, dim / 2] in f32, where the mixer uses them.
    pub rotary: Option<&'a (Tensor, Tensor)>,
    /// Bytes that scores may take.
    pub score_budget: usize,
}

/// Fewest queries per chunk, however small the budget: below this the products get too thin.
const MIN_QUERIES: usize = 16;

/// `x` [sequences * positions, hidden] to the same shape.
pub fn attention(spec: &Attention, weights: &Weights, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t) = (batch.sequences, batch.positions);
    let Attention { heads, kv_heads, head_dim, .. } = *spec;
    let group = heads / kv_heads;
    let (q, k, v, gate) = projections(spec, weights, x)?;
    if let Some((cos, sin)) = batch.rotary {
        ops::rotate(&q.reshape((s, t, heads, head_dim))?, cos, sin)?;
        ops::rotate(&k.reshape((s, t, kv_heads, head_dim))?, cos, sin)?;
    }
    // [sequences, kv_heads, group, positions, head_dim]
    let q = q.reshape((s, t, kv_heads, group, head_dim))?.permute((0, 2, 3, 1, 4))?;
    // [sequences * kv_heads, positions, head_dim]
    let by_head = |x: Tensor| {
        let x = x.reshape((s, t, kv_heads, head_dim))?.transpose(1, 2)?;
        x.contiguous()?.reshape((s * kv_heads, t, head_dim))
    };
    // Taken by value, so that only one copy of keys and values stays in memory.
    let (k, v) = (by_head(k)?, by_head(v)?);
    let sinks = spec.sinks.as_ref().map(|sinks| weight(weights, &sinks.name)?.to_vec1::<f32>()).transpose()?;
    let mut window =
        Window { first_query: 0, first_key: 0, queries: 0, width: spec.window, scale: spec.scale as f32, sinks };
    let span = spec.window.map_or(t, |width| t.min(2 * width));
    let chunk = (batch.score_budget / (s * heads * span * 4)).clamp(MIN_QUERIES.min(t), t);
    let mut chunks = Vec::new();
    for first in (0..t).step_by(chunk) {
        let queries = chunk.min(t - first);
        window.first_query = first;
        window.first_key = spec.window.map_or(0, |width| (first + 1).saturating_sub(width));
        window.queries = queries;
        let keys = first + queries - window.first_key;
        let q = q.narrow(3, first, queries)?.contiguous()?.reshape((s * kv_heads, group * queries, head_dim))?;
        let scores = q.matmul(&k.narrow(1, window.first_key, keys)?.t()?)?;
        ops::masked_softmax(&scores, &window)?;
        let out = scores.matmul(&v.narrow(1, window.first_key, keys)?.contiguous()?)?;
        // [sequences, queries, heads * head_dim]
        let out = out.reshape((s, kv_heads, group, queries, head_dim))?.permute((0, 3, 1, 2, 4))?;
        chunks.push(out.contiguous()?.reshape((s, queries, heads * head_dim))?);
    }
    let mut out = Tensor::cat(&chunks, 1)?.reshape((s * t, heads * head_dim))?;
    if let Some(gate) = gate {
        out = ops::sigmoid_gate(&out, &gate)?;
    }
    linear(&spec.out, weights, &out)
}

/// q, k, v and the output gate, [rows, heads * head_dim] each, after norms and clipping.
fn projections(spec: &Attention, weights: &Weights, x: &Tensor) -> Result<(Tensor, Tensor, Tensor, Option<Tensor>)> {
    let (q_size, kv_size) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let (mut q, mut k, mut v) = match &spec.qkv {
        Qkv::Separate { q, k, v } => (linear(q, weights, x)?, linear(k, weights, x)?, linear(v, weights, x)?),
        Qkv::Fused(fused) => {
            let all = linear(fused, weights, x)?;
            let part = |start, size| all.narrow(D::Minus1, start, size)?.contiguous();
            (part(0, q_size)?, part(q_size, kv_size)?, part(q_size + kv_size, kv_size)?)
        }
    };
    let mut gate = None;
    if spec.gated {
        let rows = x.dim(0)?;
        let halves = q.reshape((rows, spec.heads, 2 * spec.head_dim))?;
        let half = |i| halves.narrow(2, i * spec.head_dim, spec.head_dim)?.contiguous()?.reshape((rows, q_size));
        gate = Some(half(1)?);
        q = half(0)?;
    }
    if let Some(QkNorm { q: q_norm, k: k_norm, per_head }) = &spec.qk_norm {
        let rows = x.dim(0)?;
        let apply = |spec_norm, x: &Tensor, size: usize| {
            let width = if *per_head { spec.head_dim } else { size };
            norm(spec_norm, weights, &x.reshape((rows * size / width, width))?)?.reshape((rows, size))
        };
        (q, k) = (apply(q_norm, &q, q_size)?, apply(k_norm, &k, kv_size)?);
    }
    if let Some(clip) = spec.clip {
        (q, k, v) = (q.clamp(-clip, clip)?, k.clamp(-clip, clip)?, v.clamp(-clip, clip)?);
    }
    Ok((q, k, v, gate))
}
