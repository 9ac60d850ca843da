//! Fused operations that the forward pass needs and the tensor library lacks, each on the device where its operands are: one
//! pass over memory each, f32 inside.

mod cpu;
mod delta_net;
mod gpu;
mod scores;

pub use cpu::{Attend, DELTA_CHUNK, FeedForward, Projection, Room, ShortConv, Source, chunk_queries};
pub(crate) use cpu::{values, vectorised};
pub use delta_net::DeltaNet;
pub use scores::{score_queries, scores};

use candle_core::Result;

use crate::tensor::Tensor;
use crate::tensor::is_full;
use crate::vocabulary::{Activation, NormKind};

/// `x` [.., size], `weight` and `bias` [size], all f32.
pub fn norm(kind: NormKind, eps: f64, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match x {
        Tensor::Cpu(x) => {
            let bias = bias.map(Tensor::cpu).transpose()?;
            cpu::norm(kind, eps, x, weight.cpu()?, bias).map(Tensor::Cpu)
        }
        Tensor::Cuda(x) => {
            let bias = bias.map(Tensor::cuda).transpose()?;
            gpu::norm(kind, eps, x, weight.cuda()?, bias).map(Tensor::Cuda)
        }
    }
}

/// `x` [rows, input] in f32 through each of `projections`, to [rows, out] each. `rounded`: x may be rounded to bf16 where the
/// weights are bf16 and the device multiplies that faster.
pub fn project(x: &Tensor, projections: &[Projection], rounded: bool) -> Result<Vec<Tensor>> {
    match x {
        Tensor::Cpu(x) => Ok(cpu::project(x, projections, rounded)?.into_iter().map(Tensor::Cpu).collect()),
        Tensor::Cuda(x) => Ok(gpu::project(x, projections, rounded)?.into_iter().map(Tensor::Cuda).collect()),
    }
}

/// residual[rows[i]] += weights[i] * network(x[rows[i]]); the rows are distinct, `residual` and `x` are [tokens, hidden] in
/// f32.
pub fn add_expert(
    residual: &Tensor,
    x: &Tensor,
    network: &FeedForward,
    rows: &[u32],
    weights: &[f32],
    room: &Room,
) -> Result<()> {
    match residual {
        Tensor::Cpu(residual) => cpu::add_expert(residual, x.cpu()?, network, rows, weights, room),
        Tensor::Cuda(residual) => gpu::add_expert(residual, x.cuda()?, network, rows, weights),
    }
}

/// `q` [rows, heads * head_dim], `k` and `v` [rows, kv_heads * head_dim], to the shape of `q`; rows are sequences after
/// sequences, all f32. `sinks`: one logit per head, which takes part in the sum and is then dropped.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, sinks: Option<&Tensor>, op: Attend) -> Result<Tensor> {
    match q {
        Tensor::Cpu(q) => {
            let sinks = sinks.map(Tensor::values).transpose()?;
            cpu::attend(q, k.cpu()?, v.cpu()?, sinks, op).map(Tensor::Cpu)
        }
        Tensor::Cuda(q) => {
            let sinks = sinks.map(Tensor::cuda).transpose()?;
            gpu::attend(q, k.cuda()?, v.cuda()?, sinks, op).map(Tensor::Cuda)
        }
    }
}

/// `q`, `k` [sequences * heads, positions, key_dim], `v` [sequences * heads, positions, value_dim], to
/// [sequences * positions, heads, value_dim].
pub fn delta_rule(q: &Tensor, k: &Tensor, v: &Tensor, net: &DeltaNet) -> Result<Tensor> {
    match q {
        Tensor::Cpu(q) => {
            let DeltaNet { positions, heads, group, .. } = *net;
            let (ba, a_log, dt_bias) = (net.beta_and_decay.values()?, net.a_log.values()?, net.dt_bias.values()?);
            let op = cpu::DeltaRule::new(heads, group, positions, &ba, &a_log, &dt_bias);
            cpu::delta_rule(q, k.cpu()?, v.cpu()?, &op).map(Tensor::Cpu)
        }
        Tensor::Cuda(q) => gpu::delta_rule(q, k.cuda()?, v.cuda()?, net).map(Tensor::Cuda),
    }
}

/// `x` [sequences * positions, columns], `weight` [channels, 1, kernel] in f32, to [sequences, heads, positions, width].
pub fn short_conv(x: &Tensor, weight: &Tensor, op: &ShortConv) -> Result<Tensor> {
    match x {
        Tensor::Cpu(x) => cpu::short_conv(x, weight.cpu()?, op).map(Tensor::Cpu),
        Tensor::Cuda(x) => gpu::short_conv(x, weight.cuda()?, op).map(Tensor::Cuda),
    }
}

/// Turns `x` [sequences, positions, heads, head_dim] by tables [positions, dim / 2] in f32, in place.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => cpu::rotate(x, cos.cpu()?, sin.cpu()?),
        Tensor::Cuda(x) => gpu::rotate(x, cos.cuda()?, sin.cuda()?),
    }
}

/// residual += x, both [rows, size] in f32.
pub fn add(residual: &Tensor, x: &Tensor) -> Result<()> {
    match residual {
        Tensor::Cpu(residual) => cpu::add(residual, x.cpu()?),
        Tensor::Cuda(residual) => gpu::add(residual, x.cuda()?),
    }
}

/// x = f(x), elementwise and in place.
pub fn activate(activation: Activation, x: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => cpu::activate(activation, x),
        Tensor::Cuda(x) => gpu::activate(activation, x),
    }
}

/// x = f(gate) * x, elementwise and in place.
pub fn gate(activation: Activation, gate: &Tensor, x: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => cpu::gate(activation, gate.cpu()?, x),
        Tensor::Cuda(x) => gpu::gate(activation, gate.cuda()?, x),
    }
}

/// x = x * sigmoid(gate), elementwise and in place; the gate may also be one number per row, [rows, 1].
pub fn sigmoid_gate(x: &Tensor, gate: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => cpu::sigmoid_gate(x, gate.cpu()?),
        Tensor::Cuda(x) => gpu::sigmoid_gate(x, gate.cuda()?),
    }
}

/// [rows, 2 * size] with gate and up interleaved to [rows, size]: (up + 1) * gate * sigmoid(1.702 gate), gate <= limit,
/// |up| <= limit.
pub fn interleaved_swiglu(x: &Tensor, limit: f32) -> Result<Tensor> {
    match x {
        Tensor::Cpu(x) => cpu::interleaved_swiglu(x, limit).map(Tensor::Cpu),
        Tensor::Cuda(x) => gpu::interleaved_swiglu(x, limit).map(Tensor::Cuda),
    }
}

/// Calls `f` on `count` rows or sequences from `first` on; where that is too much for the device, on halves of them.
///
/// `f` fails on the outside as long as it has changed nothing, on the inside from then on.
pub fn halving<E>(
    first: usize,
    count: usize,
    full: &impl Fn(&E) -> bool,
    f: &mut impl FnMut(usize, usize) -> std::result::Result<std::result::Result<(), E>, E>,
) -> std::result::Result<(), E> {
    match f(first, count) {
        Ok(done) => done,
        Err(error) if count > 1 && full(&error) => {
            halving(first, count / 2, full, f)?;
            halving(first + count / 2, count - count / 2, full, f)
        }
        Err(error) => Err(error),
    }
}

/// residual += f(x) on matching pieces of at most `rows` rows.
pub fn in_pieces(x: &Tensor, residual: &Tensor, rows: usize, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let all = x.dims()[0];
    for start in (0..all).step_by(rows) {
        halving(start, rows.min(all - start), &is_full, &mut |start, count| {
            let y = f(&x.rows(start, count)?)?;
            Ok(add(&residual.rows(start, count)?, &y))
        })?;
    }
    Ok(())
}
