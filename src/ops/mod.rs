//! Fused operations for the forward pass that the tensor library lacks. Each runs on the device of
//! its operands, makes one pass over memory, and computes in f32.

mod cpu;
mod gpu;
mod operands;
mod seen;

pub(crate) use cpu::{DELTA_CHUNK, chunk_queries};
pub use operands::{
    Attend, CausalConv, DeltaNet, ExpertScratch, FeedForward, Projection, Received, Scan, ShortConv, Source,
    queries_per_chunk, score_count,
};
pub use seen::{products_seen, seen_columns, seen_rows};

use crate::error::{Result, fault};
use crate::tensor::{Tensor, View, modify_in_place};
use crate::vocabulary::{Activation, NormKind, Pairs};

/// `x` [.., size], `weight` and `bias` [size], all f32.
///
/// A `weight` with several times `size` elements has a weight for each of that many rows, which
/// repeat (for example one per head).
pub fn norm(kind: NormKind, eps: f64, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match x {
        Tensor::Cpu(x) => {
            let (weight, bias) = (View::of(weight.cpu()?)?, bias.map(|bias| View::of(bias.cpu()?)).transpose()?);
            let bias = bias.as_ref().map(View::values).transpose()?;
            let size = x.dims().last().copied().unwrap_or(1);
            let out = cpu::norm(kind, eps, View::of(x)?.values()?, size, weight.values()?, bias);
            on_cpu(out, x.dims())
        }
        _ => {
            let x = x.cuda()?;
            let bias = bias.map(Tensor::cuda).transpose()?;
            gpu::norm(kind, eps, x, weight.cuda()?, bias).map(Tensor::Cuda)
        }
    }
}

fn on_cpu(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &crate::tensor::Device::Cpu)
}

/// Multiplies `x` [rows, input] in f32 with each of `projections`, to [rows, out] each. If
/// `rounded`, `x` may be rounded to bf16 where the weights are bf16 and the device multiplies bf16
/// faster.
pub fn project(x: &Tensor, projections: &[Projection], rounded: bool) -> Result<Vec<Tensor>> {
    let (rows, input) = x.dims2()?;
    for projection in projections {
        let expected = projection.sizes()?.0;
        if expected != input {
            fault!("a projection of {expected} inputs meets rows of {input}");
        }
    }
    match x {
        Tensor::Cpu(x) => {
            let products = cpu::project(View::of(x)?.values()?, input, projections, rounded)?;
            let tensor = |(values, p): (Vec<f32>, &Projection)| on_cpu(values, &[rows, p.sizes()?.1]);
            products.into_iter().zip(projections).map(tensor).collect()
        }
        _ => Ok(gpu::project(x.cuda()?, projections, rounded)?.into_iter().map(Tensor::Cuda).collect()),
    }
}

/// What an expert computes for some rows.
pub struct Computed {
    /// The input of the down projection, [rows, intermediate].
    pub inner: Tensor,
    /// The output before the routing weight, [rows, hidden].
    pub output: Tensor,
}

/// residual[rows[i]] += weights[i] * network(x[rows[i]]). The rows are distinct and ascending, and
/// `residual` and `x` are [tokens, hidden] in f32. If `keep`, it returns what the network computed.
pub fn add_expert(
    residual: &Tensor,
    x: &Tensor,
    network: &FeedForward,
    (rows, weights): (&[u32], &[f32]),
    scratch: &ExpertScratch,
    keep: bool,
) -> Result<Option<Computed>> {
    let (tokens, hidden) = x.dims2()?;
    if residual.dims() != x.dims() || rows.iter().any(|row| *row as usize >= tokens) {
        fault!("rows of an expert lie outside the residual stream");
    }
    if !rows.is_sorted_by(|a, b| a < b) || rows.len() != weights.len() {
        fault!("rows of an expert are not ascending, each with its weight");
    }
    match residual {
        Tensor::Cpu(residual) => {
            let (x, mut buffers) = (View::of(x.cpu()?)?, scratch.lock().expect("no panic under this lock"));
            let (x, width) = (x.values()?, network.down.sizes()?.0);
            modify_in_place(residual, |residual| {
                cpu::add_expert(residual, x, hidden, network, (rows, weights), &mut buffers)
            })?;
            if !keep {
                return Ok(None);
            }
            let [inner, output] = cpu::computed(&mut buffers, rows.len(), (network.up.sizes()?.1, width), hidden);
            let [inner, output] = [(inner, width), (output, hidden)].map(|(x, width)| on_cpu(x, &[rows.len(), width]));
            Ok(Some(Computed { inner: inner?, output: output? }))
        }
        _ => {
            let [inner, output] = gpu::add_expert(residual.cuda()?, x.cuda()?, network, rows, weights)?;
            Ok(keep.then_some(Computed { inner: Tensor::Cuda(inner), output: Tensor::Cuda(output) }))
        }
    }
}

/// to[rows[i]] += weights[i] * y[i]. The rows are distinct and ascending; `to` is [tokens, hidden]
/// and `y` [rows, hidden], in f32.
pub fn add_rows(to: &Tensor, y: &Tensor, rows: &[u32], weights: &[f32]) -> Result<()> {
    let (_, hidden) = y.dims2()?;
    match to {
        Tensor::Cpu(to) => {
            let y = View::of(y.cpu()?)?;
            let y = y.values()?;
            modify_in_place(to, |to| {
                cpu::add_rows(to, y, hidden, (rows, weights));
                Ok(())
            })
        }
        _ => gpu::add_rows(to.cuda()?, y.cuda()?, rows, weights),
    }
}

/// Attention of `q` [rows, heads * head_dim], `k` [rows, kv_heads * head_dim] and `v` [rows,
/// kv_heads * value_dim], to [rows, heads * value_dim]. Rows are the positions of one sequence
/// after another, all f32. `sinks` has one logit per head, which adds to the softmax's denominator
/// and has no value.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, sinks: Option<&Tensor>, op: Attend) -> Result<Tensor> {
    match q {
        Tensor::Cpu(q) => {
            let sinks = sinks.map(Tensor::values).transpose()?;
            let (k, v) = (View::of(k.cpu()?)?, View::of(v.cpu()?)?);
            let out = cpu::attend(View::of(q)?.values()?, k.values()?, v.values()?, sinks.as_deref(), &op);
            on_cpu(out, &[q.dims()[0], op.heads * op.value_dim])
        }
        _ => {
            let q = q.cuda()?;
            let sinks = sinks.map(Tensor::cuda).transpose()?;
            gpu::attend(q, k.cuda()?, v.cuda()?, sinks, op).map(Tensor::Cuda)
        }
    }
}

/// As `attend`, and adds up the attention that each position receives: from all positions, and from
/// the `first` ones alone. For tensors on a GPU it computes these sums on the CPU.
pub fn attend_and_count(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sinks: Option<&Tensor>,
    op: Attend,
    first: usize,
) -> Result<(Tensor, Received)> {
    let of_sinks = sinks.map(Tensor::values).transpose()?;
    let count = |q: &[f32], k: &[f32], v: &[f32]| cpu::attend_and_count(q, k, v, of_sinks.as_deref(), &op, first);
    match q {
        Tensor::Cpu(of) => {
            let (k, v) = (View::of(k.cpu()?)?, View::of(v.cpu()?)?);
            let (out, received) = count(View::of(of)?.values()?, k.values()?, v.values()?);
            Ok((on_cpu(out, &[q.dims()[0], op.heads * op.value_dim])?, received))
        }
        _ => {
            let (_, received) = count(&q.values()?, &k.values()?, &v.values()?);
            Ok((attend(q, k, v, sinks, op)?, received))
        }
    }
}

/// `q`, `k` [sequences * heads, positions, key_dim], `v` [sequences * heads, positions, value_dim],
/// to [sequences * positions, heads, value_dim].
pub fn delta_rule(q: &Tensor, k: &Tensor, v: &Tensor, net: &DeltaNet) -> Result<Tensor> {
    match q {
        Tensor::Cpu(q) => {
            let ([all, positions, key_dim], [.., value_dim]) = (q.dims(), v.dims()) else {
                fault!("queries and values of a delta rule have three dimensions")
            };
            let DeltaNet { heads, group, .. } = *net;
            let (ba, a_log, dt_bias) = (net.beta_and_decay.values()?, net.a_log.values()?, net.dt_bias.values()?);
            let gates = cpu::Gates::new(heads, group, *positions, &ba, &a_log, &dt_bias);
            let (k, v) = (View::of(k.cpu()?)?, View::of(v.cpu()?)?);
            let heads_of = cpu::Heads { heads, positions: *positions, key_dim: *key_dim, value_dim: *value_dim };
            let out = cpu::delta_rule(View::of(q)?.values()?, k.values()?, v.values()?, heads_of, &gates);
            on_cpu(out, &[all / heads * positions, heads, *value_dim])
        }
        _ => gpu::delta_rule(q.cuda()?, k.cuda()?, v.cuda()?, net).map(Tensor::Cuda),
    }
}

/// `x` [sequences * positions, columns], `weight` [channels, 1, kernel] in f32, to [sequences,
/// heads, positions, width].
pub fn short_conv(x: &Tensor, weight: &Tensor, op: &ShortConv) -> Result<Tensor> {
    match x {
        Tensor::Cpu(_) => {
            let (rows, columns) = x.dims2()?;
            let &[_, _, kernel] = weight.dims() else { fault!("the weight of a convolution has three dimensions") };
            let (x, weight) = (View::of(x.cpu()?)?, View::of(weight.cpu()?)?);
            let out = cpu::short_conv(op, x.values()?, columns, weight.values()?, kernel);
            on_cpu(out, &[rows / op.positions, op.heads.len(), op.positions, op.width])
        }
        _ => gpu::short_conv(x.cuda()?, weight.cuda()?, op).map(Tensor::Cuda),
    }
}

/// `x` [sequences * positions, channels], `weight` [channels, 1, kernel] and `bias` [channels] in
/// f32, to the shape of `x`.
pub fn causal_conv(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, op: CausalConv) -> Result<Tensor> {
    match x {
        Tensor::Cpu(_) => {
            let (_, channels) = x.dims2()?;
            let (weight, bias) = (weight.values()?, bias.map(Tensor::values).transpose()?);
            let out = cpu::causal_conv(op, View::of(x.cpu()?)?.values()?, channels, &weight, bias.as_deref());
            on_cpu(out, x.dims())
        }
        _ => {
            let bias = bias.map(Tensor::cuda).transpose()?;
            gpu::causal_conv(x.cuda()?, weight.cuda()?, bias, op).map(Tensor::Cuda)
        }
    }
}

/// The selective scan of Mamba-2. `mixed` [sequences * positions, heads * head_dim + 2 * groups *
/// state] contains x, B and C. `steps` [sequences * positions, heads] are the time steps before
/// bias and softplus. `dt_bias`, `a_log` (the logarithm of the decay rate) and `d` (the factor of x
/// in the output) are [heads]. The output is [sequences * positions, heads * head_dim].
pub fn selective_scan(
    mixed: &Tensor,
    steps: &Tensor,
    (dt_bias, a_log, d): (&Tensor, &Tensor, &Tensor),
    op: Scan,
) -> Result<Tensor> {
    match mixed {
        Tensor::Cpu(_) => {
            let per_head = cpu::PerHead { dt_bias: dt_bias.values()?, a_log: a_log.values()?, d: d.values()? };
            let dims = [mixed.dims2()?.0, op.heads * op.head_dim];
            let (mixed, steps) = (View::of(mixed.cpu()?)?, View::of(steps.cpu()?)?);
            on_cpu(cpu::selective_scan(&op, mixed.values()?, steps.values()?, &per_head), &dims)
        }
        _ => {
            let per_head = [dt_bias.cuda()?, a_log.cuda()?, d.cuda()?];
            gpu::selective_scan(mixed.cuda()?, steps.cuda()?, per_head, &op).map(Tensor::Cuda)
        }
    }
}

/// x = y * x, elementwise and in place.
pub fn multiply(x: &Tensor, y: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => {
            let y = View::of(y.cpu()?)?;
            let y = y.values()?;
            modify_in_place(x, |x| {
                cpu::multiply(x, y);
                Ok(())
            })
        }
        _ => gpu::multiply(x.cuda()?, y.cuda()?),
    }
}

/// Rotates `x` [sequences, positions, heads, head_dim] by the angles of the tables [positions, dim
/// / 2] in f32, in place.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: Pairs) -> Result<()> {
    match x {
        Tensor::Cpu(x) => {
            let &[_, positions, heads, head_dim] = x.dims() else { fault!("expected four dimensions") };
            let (cos, sin) = (View::of(cos.cpu()?)?, View::of(sin.cpu()?)?);
            let (cos, sin) = (cos.values()?, sin.values()?);
            modify_in_place(x, |x| {
                cpu::rotate(x, cos, sin, pairs, (positions, heads, head_dim));
                Ok(())
            })
        }
        _ => gpu::rotate(x.cuda()?, cos.cuda()?, sin.cuda()?, pairs),
    }
}

/// residual += x, both [rows, size] in f32.
pub fn add(residual: &Tensor, x: &Tensor) -> Result<()> {
    match residual {
        Tensor::Cpu(residual) => {
            let x = View::of(x.cpu()?)?;
            let x = x.values()?;
            modify_in_place(residual, |residual| {
                cpu::add(residual, x);
                Ok(())
            })
        }
        _ => gpu::add(residual.cuda()?, x.cuda()?),
    }
}

/// x = factor * x, elementwise and in place.
pub fn scale(x: &Tensor, factor: f32) -> Result<()> {
    match x {
        Tensor::Cpu(x) => modify_in_place(x, |x| {
            cpu::scale(x, factor);
            Ok(())
        }),
        _ => gpu::scale(x.cuda()?, factor),
    }
}

/// Multiplies row r of `x` [rows, size] by factors[r % factors.len()], in place.
pub fn scale_rows(x: &Tensor, factors: &[f32]) -> Result<()> {
    match x {
        Tensor::Cpu(x) => modify_in_place(x, |values| {
            cpu::scale_rows(values, factors, x.dims()[x.dims().len() - 1]);
            Ok(())
        }),
        _ => gpu::scale_rows(x.cuda()?, factors),
    }
}

/// x = f(x), elementwise and in place.
pub fn activate(activation: Activation, x: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => modify_in_place(x, |x| {
            cpu::activate(activation, None, x, 1);
            Ok(())
        }),
        _ => gpu::activate(activation, x.cuda()?),
    }
}

/// x = f(gate) * x, elementwise and in place.
pub fn gate(activation: Activation, gate: &Tensor, x: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => {
            let gate = View::of(gate.cpu()?)?;
            let gate = gate.values()?;
            modify_in_place(x, |x| {
                cpu::activate(activation, Some(gate), x, 1);
                Ok(())
            })
        }
        _ => gpu::gate(activation, gate.cuda()?, x.cuda()?),
    }
}

/// x = x * sigmoid(gate), elementwise and in place. The gate may also be one number per row, [rows,
/// 1].
pub fn sigmoid_gate(x: &Tensor, gate: &Tensor) -> Result<()> {
    match x {
        Tensor::Cpu(x) => {
            let gate = View::of(gate.cpu()?)?;
            let gate = gate.values()?;
            modify_in_place(x, |x| {
                cpu::sigmoid_gate(x, gate);
                Ok(())
            })
        }
        _ => gpu::sigmoid_gate(x.cuda()?, gate.cuda()?),
    }
}

/// act(gate) * up of rows with gate in the first half and up in the second, [rows, 2 * size] to
/// [rows, size].
pub fn gate_halves(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let (rows, both) = x.dims2()?;
    match x {
        Tensor::Cpu(x) => on_cpu(cpu::gate_halves(activation, View::of(x)?.values()?, both), &[rows, both / 2]),
        _ => gpu::gate_halves(activation, x.cuda()?).map(Tensor::Cuda),
    }
}

/// (up + 1) * gate * sigmoid(1.702 gate) of rows with gate and up interleaved, [rows, 2 * size] to
/// [rows, size], with gate <= limit and |up| <= limit.
pub fn interleaved_swiglu(x: &Tensor, limit: f32) -> Result<Tensor> {
    match x {
        Tensor::Cpu(_) => {
            let (rows, both) = x.dims2()?;
            let out = cpu::interleaved_swiglu(View::of(x.cpu()?)?.values()?, limit);
            on_cpu(out, &[rows, both / 2])
        }
        _ => gpu::interleaved_swiglu(x.cuda()?, limit).map(Tensor::Cuda),
    }
}
