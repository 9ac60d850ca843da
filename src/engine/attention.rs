//! Grouped-query attention over whole sequences: projections, norms, rotary embedding, and output
//! projection.

use super::latent;
use super::linear::{linear, linears, norm};
use super::observe::Onlookers;
use super::rotary::Rotary;
use crate::error::{Result, fault};
use crate::ops::{self, Attend};
use crate::record::{SINK_POSITIONS, Site};
use crate::spec::{Attention, Gate, HeadNorm, Norm, Qkv, QueryGrowth};
use crate::tensor::Tensor;
use crate::vocabulary::NormKind;

/// The batch, as token mixers need it.
pub(super) struct Batch<'a, 'o> {
    pub sequences: usize,
    pub positions: usize,
    /// True if large projections may round their inputs to bf16 where that is faster, because the
    /// compute dtype is bf16.
    pub rounded: bool,
    pub rotary: &'a Rotary,
    /// Keys and values that an attention without its own uses, [sequences * positions, kv_heads *
    /// size] each.
    pub borrowed: Option<[Tensor; 2]>,
    /// Where it leaves its own, of the same shapes, for later layers.
    pub lends: Option<[Tensor; 2]>,
    /// The observers of the sites in a mixer.
    pub onlookers: &'a Onlookers<'a, 'o>,
}

/// Queries, keys and values, if they are its own, [rows, heads * size] each, and the output gate,
/// before norms.
type Projected = (Tensor, Option<(Tensor, Tensor)>, Option<Tensor>);

/// Maps `x` [sequences * positions, hidden] to the same shape.
pub(super) fn attention(spec: &Attention<Tensor>, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let t = batch.positions;
    let Attention { heads, kv_heads, head_dim, value_dim, span, .. } = *spec;
    let (q, own, gate) = projections(spec, x, batch.rounded)?;
    let norms = spec.qk_norm.as_ref();
    let q = placed(spec, q, norms.map(|norms| &norms.q), batch)?;
    batch.onlookers.show_made(Site::Q, || in_order(spec, &q))?;
    let [k, v] = match (own, &batch.borrowed) {
        (Some((k, v)), _) => {
            let v = match spec.value_norm {
                Some(eps) => rms_normalise(&v, value_dim, eps)?,
                None => v,
            };
            let k = placed(spec, k, norms.and_then(|norms| norms.k.as_ref()), batch)?;
            batch.onlookers.show_made(Site::K, || in_order(spec, &k))?;
            [k, clipped(spec, v)?]
        }
        (None, Some(of_another)) => of_another.clone(),
        (None, None) => fault!("keys and values of an earlier layer were not kept"),
    };
    if let Some([keys, values]) = &batch.lends {
        keys.set_rows(&k, 0)?;
        values.set_rows(&v, 0)?;
    }
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
    let sinks = spec.sinks.as_ref();
    let out = if batch.onlookers.want_attention() {
        let (out, received) = ops::attend_and_count(&q, &k, &v, sinks, op, SINK_POSITIONS)?;
        batch.onlookers.show_attention(&received)?;
        out
    } else {
        ops::attend(&q, &k, &v, sinks, op)?
    };
    drop((q, k, v));
    if let Some(gate) = gate {
        ops::sigmoid_gate(&out, &gate)?;
    }
    batch.onlookers.show(Site::AttnOut, &out)?;
    linear(&spec.out, &out, batch.rounded)
}

/// Queries or keys as observers see them: in the order of the model's own implementation, which
/// `latent` changes.
fn in_order(spec: &Attention<Tensor>, x: &Tensor) -> Result<Tensor> {
    match &spec.qkv {
        Qkv::Latent(latent) => latent::in_order(spec, latent, x),
        _ => Ok(x.clone()),
    }
}

/// Queries or keys [rows, heads * head_dim] as scores are made of them: normed, clamped and turned.
fn placed(spec: &Attention<Tensor>, x: Tensor, norm: Option<&HeadNorm<Tensor>>, batch: &Batch) -> Result<Tensor> {
    let head_dim = spec.head_dim;
    let after_rope = spec.qk_norm.as_ref().is_some_and(|norms| norms.after_rope);
    let normed = |x: Tensor, here: bool| match norm {
        Some(norm) if here => head_norm(norm, head_dim, &x),
        _ => Ok(x),
    };
    let x = clipped(spec, normed(x, !after_rope)?)?;
    if let Some((rope, (cos, sin))) = spec.rope.as_ref().and_then(|rope| Some((rope, batch.rotary.get(rope)?))) {
        let heads = x.dims()[1] / head_dim;
        ops::rotate(&x.reshape((batch.sequences, batch.positions, heads, head_dim))?, cos, sin, rope.pairs)?;
    }
    normed(x, after_rope)
}

fn clipped(spec: &Attention<Tensor>, x: Tensor) -> Result<Tensor> {
    match spec.clip {
        Some(clip) => x.clamp(clip),
        None => Ok(x),
    }
}

fn projections(spec: &Attention<Tensor>, x: &Tensor, rounded: bool) -> Result<Projected> {
    let rows = x.dims()[0];
    let (q_size, kv_size) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let (mut q, own) = match &spec.qkv {
        Qkv::Separate { q, k, v } => {
            let [q, k, v] = linears([q, k, v], x, rounded)?;
            (q, Some((k, v)))
        }
        Qkv::Borrowed { q, .. } => (linear(q, x, rounded)?, None),
        Qkv::Fused(fused) => {
            let all = linear(fused, x, rounded)?;
            let part = |start, size| all.columns(start, size);
            (part(0, q_size)?, Some((part(q_size, kv_size)?, part(q_size + kv_size, kv_size)?)))
        }
        Qkv::KeyIsValue { q, k } => {
            let [q, k] = linears([q, k], x, rounded)?;
            let v = k.columns(0, k.dims()[1])?;
            (q, Some((k, v)))
        }
        Qkv::Grouped(fused) => {
            let group = spec.heads / spec.kv_heads * spec.head_dim;
            let all = linear(fused, x, rounded)?.reshape((rows, spec.kv_heads, group + 2 * spec.head_dim))?;
            let part = |start, size| all.columns(start, size)?.reshape((rows, spec.kv_heads * size));
            (part(0, group)?, Some((part(group, spec.head_dim)?, part(group + spec.head_dim, spec.head_dim)?)))
        }
        Qkv::Latent(latent) => {
            let (q, k, v) = latent::projections(spec, latent, x, rounded)?;
            (q, Some((k, v)))
        }
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
    Ok((q, own, gate))
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
        let size = weights[0].dims().iter().product::<usize>();
        let all = Tensor::zeros(weights.len() * size, &device)?;
        for (i, weight) in weights.iter().enumerate() {
            all.set_rows(weight, i * size)?;
        }
        Ok(Some(all))
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
