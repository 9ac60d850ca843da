//! Gated DeltaNet, the linear attention of Qwen3-Next and Qwen3.5: a short convolution, then a
//! state per head that decays and is corrected at every token. Yang, Kautz and Hatamizadeh 2024,
//! "Gated Delta Networks".
//!
//! `ops::delta_rule` computes the state. This file has the projections, gates and convolutions
//! around it.

use super::attention::Batch;
use super::linear::{exact_linear, linear, linears, norm};
use crate::error::Result;
use crate::ops::{self, ShortConv, Source};
use crate::record::Site;
use crate::spec::{DeltaInputs, DeltaNet};
use crate::tensor::Tensor;
use crate::vocabulary::Activation;

/// Maps `x` [sequences * positions, hidden] to the same shape.
pub(super) fn delta_net(spec: &DeltaNet<Tensor>, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t, heads) = (batch.sequences, batch.positions, spec.value_heads);
    let Inputs { projected, grouped, z, beta_and_decay } = inputs(spec, x, batch.rounded)?;
    let (a_log, dt_bias) = (&spec.a_log, &spec.dt_bias);
    let projection = |projection| -> Result<Tensor> {
        let op = short_conv(spec, projection, grouped, t);
        ops::short_conv(&projected, &spec.conv, &op)?.reshape((s * heads, t, op.width))
    };
    let (q, k, v) = (projection(Projected::Query)?, projection(Projected::Key)?, projection(Projected::Value)?);
    for (site, part) in [(Site::QDelta, Projected::Query), (Site::KDelta, Projected::Key)] {
        batch.onlookers.show_made(site, || per_key_head(spec, &projected, part, grouped, (s, t)))?;
    }
    drop(projected);
    let beta_and_decay = &beta_and_decay;
    let net = ops::DeltaNet { positions: t, heads, group: spec.group(), beta_and_decay, a_log, dt_bias };
    // [rows, heads, value_dim]
    let y = ops::delta_rule(&q, &k, &v, &net)?;
    drop((q, k, v));
    let y = norm(&spec.norm, &y)?.reshape((s * t, heads * spec.value_dim))?;
    ops::gate(Activation::Silu, &z, &y)?;
    batch.onlookers.show(Site::AttnOut, &y)?;
    linear(&spec.out, &y, batch.rounded)
}

/// Queries or keys as observers see them, [sequences * positions, key_heads * key_dim]: each head
/// once, and not brought to a length.
fn per_key_head(
    spec: &DeltaNet<Tensor>,
    projected: &Tensor,
    part: Projected,
    grouped: bool,
    (sequences, positions): (usize, usize),
) -> Result<Tensor> {
    let mut op = short_conv(spec, part, grouped, positions);
    op.heads = op.heads.into_iter().step_by(spec.group()).collect();
    op.length = None;
    let (heads, width) = (spec.key_heads, spec.key_dim);
    // [sequences, heads, positions, width]
    let values = ops::short_conv(projected, &spec.conv, &op)?.values()?;
    let row = |s: usize, t: usize| {
        let values = &values;
        (0..heads).flat_map(move |head| &values[((s * heads + head) * positions + t) * width..][..width])
    };
    let rows = (0..sequences).flat_map(|s| (0..positions).map(move |t| (s, t)));
    let ordered: Vec<f32> = rows.flat_map(|(s, t)| row(s, t)).copied().collect();
    Tensor::from_vec(ordered, (sequences * positions, heads * width), &projected.device())
}

/// The projections of a DeltaNet.
struct Inputs {
    /// Queries, keys and values before the convolution.
    projected: Tensor,
    /// True if they are grouped per key head: q, k, the value heads of the group, and their output
    /// gates.
    grouped: bool,
    /// Gates of the output, [rows, heads * value_dim].
    z: Tensor,
    /// [rows, 2 * heads]: for each key head, the beta of its group, then the input of the decay.
    beta_and_decay: Tensor,
}

fn inputs(spec: &DeltaNet<Tensor>, x: &Tensor, rounded: bool) -> Result<Inputs> {
    let (rows, width) = (x.dims()[0], spec.group() * spec.value_dim);
    let values = spec.value_heads * spec.value_dim;
    Ok(match &spec.inputs {
        DeltaInputs::Grouped { qkvz, ba } => {
            let projected = linear(qkvz, x, rounded)?;
            let before = 2 * spec.key_dim + width;
            let z = projected.reshape((rows, spec.key_heads, before + width))?.columns(before, width)?;
            let z = z.reshape((rows, values))?;
            Inputs { projected, grouped: true, z, beta_and_decay: exact_linear(ba, x)? }
        }
        DeltaInputs::Separate { qkv, z, b, a } => {
            let [projected, z] = linears([qkv, z], x, rounded)?;
            let per_key = |y: Tensor| y.reshape((rows, spec.key_heads, spec.group()));
            let (b, a) = (per_key(exact_linear(b, x)?)?, per_key(exact_linear(a, x)?)?);
            let beta_and_decay = b.concat_columns(&a)?.reshape((rows, 2 * spec.value_heads))?;
            Inputs { projected, grouped: false, z, beta_and_decay }
        }
    })
}

impl<W> DeltaNet<W> {
    /// Number of value heads per key head.
    fn group(&self) -> usize {
        self.value_heads / self.key_heads
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Projected {
    Query,
    Key,
    Value,
}

/// The convolution of queries, keys (repeated for each value head of their group) or values.
fn short_conv(spec: &DeltaNet<Tensor>, projection: Projected, grouped: bool, positions: usize) -> ShortConv {
    let (dk, dv, group) = (spec.key_dim, spec.value_dim, spec.group());
    let columns = 2 * dk + 2 * group * dv;
    let source = |head: usize| {
        let key_head = head / group;
        let (in_group, first_channel) = match projection {
            Projected::Query => (0, key_head * dk),
            Projected::Key => (dk, (spec.key_heads + key_head) * dk),
            Projected::Value => (2 * dk + head % group * dv, 2 * spec.key_heads * dk + head * dv),
        };
        Source { first_column: if grouped { key_head * columns + in_group } else { first_channel }, first_channel }
    };
    let length = match projection {
        // The factor of q·k is applied to the queries.
        Projected::Query => Some((dk as f32).powf(-0.5)),
        Projected::Key => Some(1.0),
        Projected::Value => None,
    };
    let width = if projection == Projected::Value { dv } else { dk };
    ShortConv { positions, width, heads: (0..spec.value_heads).map(source).collect(), length }
}
