//! Gated DeltaNet, the linear attention of Qwen3-Next: a short convolution, then a state per head that decays and is
//! corrected at every token. Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks".
//!
//! `ops::delta_rule` runs the state; here are the projections, gates and convolutions around it.

use super::attention::Batch;
use super::linear::{exact_linear, linear, norm};
use crate::error::Result;
use crate::ops::{self, ShortConv, Source};
use crate::spec::DeltaNet;
use crate::tensor::Tensor;
use crate::vocabulary::Activation;

/// `x` [sequences * positions, hidden] to the same shape.
pub fn delta_net(spec: &DeltaNet<Tensor>, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t, heads) = (batch.sequences, batch.positions, spec.value_heads);
    // [rows, key_heads * (q | k | v of the group | z of the group)]
    let projected = linear(&spec.in_qkvz, x, batch.rounded)?;
    let beta_and_decay = &exact_linear(&spec.in_ba, x)?;
    let (a_log, dt_bias) = (&spec.a_log, &spec.dt_bias);
    let part = |part| -> Result<Tensor> {
        let op = short_conv(spec, part, t);
        ops::short_conv(&projected, &spec.conv, &op)?.reshape((s * heads, t, op.width))
    };
    let (q, k, v) = (part(Part::Query)?, part(Part::Key)?, part(Part::Value)?);
    let net = ops::DeltaNet { positions: t, heads, group: spec.group(), beta_and_decay, a_log, dt_bias };
    // [rows, heads, value_dim]
    let y = ops::delta_rule(&q, &k, &v, &net)?;
    drop((q, k, v));
    let y = norm(&spec.norm, &y)?.reshape((s * t, heads * spec.value_dim))?;
    let (begin, width) = (2 * spec.key_dim + spec.group() * spec.value_dim, spec.group() * spec.value_dim);
    let z = projected.reshape((s * t, spec.key_heads, begin + width))?.columns(begin, width)?;
    ops::gate(Activation::Silu, &z.reshape(y.dims())?, &y)?;
    linear(&spec.out, &y, batch.rounded)
}

impl<W> DeltaNet<W> {
    /// Value heads per key head.
    fn group(&self) -> usize {
        self.value_heads / self.key_heads
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Query,
    Key,
    Value,
}

/// The convolution that yields queries, keys (repeated for each value head of their group) or values.
fn short_conv(spec: &DeltaNet<Tensor>, part: Part, positions: usize) -> ShortConv {
    let (dk, dv, group) = (spec.key_dim, spec.value_dim, spec.group());
    let columns = 2 * dk + 2 * group * dv;
    let source = |head: usize| {
        let key_head = head / group;
        let (in_group, first_channel) = match part {
            Part::Query => (0, key_head * dk),
            Part::Key => (dk, (spec.key_heads + key_head) * dk),
            Part::Value => (2 * dk + head % group * dv, 2 * spec.key_heads * dk + head * dv),
        };
        Source { first_column: key_head * columns + in_group, first_channel }
    };
    let length = match part {
        // The factor on q·k is in the queries.
        Part::Query => Some((dk as f32).powf(-0.5)),
        Part::Key => Some(1.0),
        Part::Value => None,
    };
    let width = if part == Part::Value { dv } else { dk };
    ShortConv { positions, width, heads: (0..spec.value_heads).map(source).collect(), length }
}
