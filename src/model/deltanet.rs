//! Gated DeltaNet, the linear attention of Qwen3-Next: a short convolution, then a state per head that decays and is
//! corrected at every token. Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks".
//!
//! `ops::delta_rule` runs the state; here are the projections, gates and convolutions around it.

use candle_core::{Result, Tensor};

use super::attention::Batch;
use super::linear::{exact_linear, linear, norm, weight};
use super::ops::{self, DELTA_CHUNK, DeltaRule, ShortConv, Source};
use super::reader::Weights;
use super::spec::{Activation, DeltaNet};

/// Above this ln(1 + exp(x)) is x in f32 (the reference's `softplus`).
const SOFTPLUS_LINEAR: f32 = 20.0;

/// `x` [sequences * positions, hidden] to the same shape.
pub fn delta_net(spec: &DeltaNet, weights: &Weights, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t, heads) = (batch.sequences, batch.positions, spec.value_heads);
    // [rows, key_heads * (q | k | v of the group | z of the group)]
    let projected = linear(&spec.in_qkvz, weights, x)?;
    let ba = exact_linear(&spec.in_ba, weights, x)?.flatten_all()?.to_vec1::<f32>()?;
    let numbers = |name: &str| weight(weights, name)?.to_vec1::<f32>();
    let gates = Gates::new(spec, &ba, &numbers(&spec.a_log.name)?, &numbers(&spec.dt_bias.name)?, t);
    let conv = weight(weights, &spec.conv.name)?;
    let part = |part| -> Result<Tensor> {
        let op = short_conv(spec, part, t);
        ops::short_conv(&projected, conv, &op)?.reshape((s * heads, t, op.width))
    };
    let (q, k, v) = (part(Part::Query)?, part(Part::Key)?, part(Part::Value)?);
    let op = DeltaRule { heads, positions: t, log_decay: gates.log_decay, beta: gates.beta };
    // [rows, heads, value_dim]
    let y = ops::delta_rule(&q, &k, &v, &op)?;
    drop((q, k, v, op));
    let y = norm(&spec.norm, weights, &y)?.reshape((s * t, heads * spec.value_dim))?;
    let (begin, width) = (2 * spec.key_dim + spec.group() * spec.value_dim, spec.group() * spec.value_dim);
    let z = projected.reshape((s * t, spec.key_heads, begin + width))?.narrow(2, begin, width)?.contiguous()?;
    ops::gate(Activation::Silu, &z.reshape(y.shape())?, &y)?;
    linear(&spec.out, weights, &y)
}

impl DeltaNet {
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
fn short_conv(spec: &DeltaNet, part: Part, positions: usize) -> ShortConv {
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

/// Two numbers per value head and position, [sequences, value_heads, positions].
struct Gates {
    /// Sum of the log decays since the start of the chunk, this position's included.
    log_decay: Vec<f32>,
    /// How far the state moves towards the new value.
    beta: Vec<f32>,
}

impl Gates {
    /// `ba` [sequences * positions, key_heads * (b of the group | a of the group)].
    fn new(spec: &DeltaNet, ba: &[f32], a_log: &[f32], dt_bias: &[f32], positions: usize) -> Self {
        let (heads, group) = (spec.value_heads, spec.group());
        let sequences = ba.len() / (2 * heads * positions);
        let (mut log_decay, mut beta) = (Vec::with_capacity(ba.len() / 2), Vec::with_capacity(ba.len() / 2));
        for (s, head) in (0..sequences).flat_map(|s| (0..heads).map(move |head| (s, head))) {
            let column = head / group * 2 * group + head % group;
            let mut sum = 0.0;
            for t in 0..positions {
                let row = &ba[(s * positions + t) * 2 * heads..][..2 * heads];
                beta.push(1.0 / (1.0 + (-row[column]).exp()));
                let decay = -a_log[head].exp() * softplus(row[column + group] + dt_bias[head]);
                sum = if t % DELTA_CHUNK == 0 { decay } else { sum + decay };
                log_decay.push(sum);
            }
        }
        Self { log_decay, beta }
    }
}

fn softplus(x: f32) -> f32 {
    if x > SOFTPLUS_LINEAR { x } else { x.exp().ln_1p() }
}
