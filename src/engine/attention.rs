//! Grouped-query attention over whole sequences: projections, norms, rotary embedding, and output
//! projection.

use super::latent;
use super::linear::{linear, linears, norm};
use super::rotary::Rotary;
use crate::error::{Result, fault};
use crate::ops::{self, Attend};
use crate::spec::{Attention, Gate, HeadNorm, Norm, Qkv, QueryGrowth};
use crate::tensor::Tensor;
use crate::vocabulary::NormKind;

/// The batch, as token mixers need it.
pub struct Batch<'a> {
    pub sequences: usize,
    pub positions: usize,
    /// True if large projections may round their inputs to bf16 where that is faster, because the
    /// compute dtype is bf16.
    pub rounded: bool,
    pub rotary: &'a Rotary,
}

/// Maps `x` [sequences * positions, hidden] to the same shape.
pub fn attention(spec: &Attention<Tensor>, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t) = (batch.sequences, batch.positions);
    let Attention { heads, kv_heads, head_dim, value_dim, span, .. } = *spec;
    let (mut q, mut k, v, gate) = projections(spec, x, batch.rounded)?;
    let v = match spec.value_norm {
        Some(eps) => rms_normalise(&v, value_dim, eps)?,
        None => v,
    };
    let after_rope = spec.qk_norm.as_ref().is_some_and(|norms| norms.after_rope);
    if !after_rope {
        (q, k) = apply_qk_norms(spec, q, k)?;
    }
    let (q, k, v) = match spec.clip {
        Some(clip) => (q.clamp(clip)?, k.clamp(clip)?, v.clamp(clip)?),
        None => (q, k, v),
    };
    if let Some((rope, (cos, sin))) = spec.rope.as_ref().and_then(|rope| Some((rope, batch.rotary.get(rope)?))) {
        ops::rotate(&q.reshape((s, t, heads, head_dim))?, cos, sin, rope.pairs)?;
        ops::rotate(&k.reshape((s, t, kv_heads, head_dim))?, cos, sin, rope.pairs)?;
    }
    let (q, k) = if after_rope { apply_qk_norms(spec, q, k)? } else { (q, k) };
    if let Some(growth) = spec.growth {
        ops::scale_rows(&q, &growth.factors(t))?;
    }
    let alibi = spec.alibi.as_ref().map(|alibi| (&alibi.slopes[..], alibi.rounded));
    let op = Attend {
        positions: t,
        heads,
        kv_heads,
        head_dim,
        value_dim,
        span,
        scale: spec.scale as f32,
        softcap: spec.softcap.map(|cap| cap as f32),
        alibi,
        rounded: batch.rounded,
    };
    let out = ops::attend(&q, &k, &v, spec.sinks.as_ref(), op)?;
    drop((q, k, v));
    if let Some(gate) = gate {
        ops::sigmoid_gate(&out, &gate)?;
    }
    linear(&spec.out, &out, batch.rounded)
}

/// Queries, keys and values, [rows, heads * size] each, and the output gate, before norms.
fn projections(
    spec: &Attention<Tensor>,
    x: &Tensor,
    rounded: bool,
) -> Result<(Tensor, Tensor, Tensor, Option<Tensor>)> {
    let rows = x.dims()[0];
    let (q_size, kv_size) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let (mut q, k, v) = match &spec.qkv {
        Qkv::Separate { q, k, v } => linears([q, k, v], x, rounded)?.into(),
        Qkv::Fused(fused) => {
            let all = linear(fused, x, rounded)?;
            let part = |start, size| all.columns(start, size);
            (part(0, q_size)?, part(q_size, kv_size)?, part(q_size + kv_size, kv_size)?)
        }
        Qkv::KeyIsValue { q, k } => {
            let [q, k] = linears([q, k], x, rounded)?;
            let v = k.columns(0, k.dims()[1])?;
            (q, k, v)
        }
        Qkv::Grouped(fused) => {
            let group = spec.heads / spec.kv_heads * spec.head_dim;
            let all = linear(fused, x, rounded)?.reshape((rows, spec.kv_heads, group + 2 * spec.head_dim))?;
            let part = |start, size| all.columns(start, size)?.reshape((rows, spec.kv_heads * size));
            (part(0, group)?, part(group, spec.head_dim)?, part(group + spec.head_dim, spec.head_dim)?)
        }
        Qkv::Latent(latent) => latent::projections(spec, latent, x, rounded)?,
    };
    let gate = match &spec.gate {
        None => None,
        Some(Gate::Own(gate)) => Some(linear(gate, x, rounded)?),
        Some(Gate::InQuery) => {
            let halves = q.reshape((rows, spec.heads, 2 * spec.head_dim))?;
            let half = |i| halves.columns(i * spec.head_dim, spec.head_dim)?.reshape((rows, q_size));
            let gate = half(1)?;
            q = half(0)?;
            Some(gate)
        }
    };
    Ok((q, k, v, gate))
}

/// Applies the norms of queries and keys, if there are any.
fn apply_qk_norms(spec: &Attention<Tensor>, q: Tensor, k: Tensor) -> Result<(Tensor, Tensor)> {
    let Some(norms) = &spec.qk_norm else { return Ok((q, k)) };
    Ok((head_norm(&norms.q, spec.head_dim, &q)?, head_norm(&norms.k, spec.head_dim, &k)?))
}

/// Applies a norm to `x` [rows, heads * head_dim].
fn head_norm(norms: &HeadNorm<Tensor>, head_dim: usize, x: &Tensor) -> Result<Tensor> {
    let (rows, size) = x.dims2()?;
    let each = |of| norm(of, &x.reshape((rows * size / head_dim, head_dim))?)?.reshape((rows, size));
    match norms {
        HeadNorm::Each(of) => each(of),
        HeadNorm::Together(of) => norm(of, x),
        HeadNorm::Own(of) => each(&concat_head_norms(of)?),
        HeadNorm::Unweighted { eps } => rms_normalise(x, head_dim, *eps),
    }
}

/// Divides each head of `x` [rows, heads * size] by its root mean square.
fn rms_normalise(x: &Tensor, size: usize, eps: f64) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    let ones = Tensor::from_vec(vec![1f32; size], size, &x.device())?;
    ops::norm(NormKind::Rms, eps, &x.reshape((rows * columns / size, size))?, &ones, None)?.reshape((rows, columns))
}

/// Concatenates the norms of heads whose weights are separate tensors.
fn concat_head_norms(norms: &[Norm<Tensor>]) -> Result<Norm<Tensor>> {
    let [first, ..] = norms else { fault!("norms of no heads") };
    let device = first.weight.device();
    let of = |weight: &dyn Fn(&Norm<Tensor>) -> Option<Tensor>| -> Result<Option<Tensor>> {
        let weights: Option<Vec<Tensor>> = norms.iter().map(weight).collect();
        let Some(weights) = weights else { return Ok(None) };
        let values = weights.iter().map(Tensor::values).collect::<Result<Vec<_>>>()?.concat();
        let count = values.len();
        Tensor::from_vec(values, count, &device).map(Some)
    };
    let Some(weight) = of(&|norm| Some(norm.weight.clone()))? else { fault!("norms without weights") };
    Ok(Norm { weight, bias: of(&|norm| norm.bias.clone())?, ..first.clone() })
}

impl QueryGrowth {
    /// The factors of the queries at each position.
    fn factors(&self, positions: usize) -> Vec<f32> {
        let factor = |t: usize| 1.0 + self.beta * (1.0 + ((t + self.offset) as f64 / self.original).floor()).ln();
        (0..positions).map(|t| factor(t) as f32).collect()
    }
}
