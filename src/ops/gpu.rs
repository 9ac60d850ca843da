//! The operations in the memory of a GPU. Work is put on its stream; nothing here waits for it.

use candle_core::bail;

use super::cpu::{Attend, FeedForward, Projection, ShortConv};
use super::delta_net::DeltaNet;
use super::scores::{score_queries, scores};
use crate::cuda::{Arg, Array, Batch, Element, Precision, Sizes, Stream, THREADS, product, products};
use crate::error;
use crate::tensor::wrapped;
use crate::vocabulary::{Activation, NormKind, Order};

type Result<T> = candle_core::Result<T>;

fn done<T>(result: error::Result<T>) -> Result<T> {
    result.map_err(wrapped)
}

pub fn norm(kind: NormKind, eps: f64, x: &Array, weight: &Array, bias: Option<&Array>) -> Result<Array> {
    let (rows, size) = x.dims2();
    let out = done(x.like())?;
    let (kind, bias) = match kind {
        NormKind::Rms | NormKind::RmsRoundedOnce => (0, None),
        NormKind::RmsZeroCentred => (1, None),
        NormKind::Layer => (2, bias),
    };
    let bias = bias.map_or(Arg::Address(0), Array::arg);
    let args = [out.arg(), x.arg(), weight.arg(), bias, Arg::size(size), Arg::F32(eps as f32), Arg::U32(kind)];
    done(x.context().launch(Stream::Compute, "row_norm", blocks(rows)?, THREADS, &args))?;
    Ok(out)
}

/// One block per row.
fn blocks(rows: usize) -> Result<(u32, u32)> {
    match u32::try_from(rows) {
        Ok(rows) if rows < 1 << 31 => Ok((rows, 1)),
        _ => bail!("{rows} rows are too many for one kernel: use a smaller memory_budget"),
    }
}

/// `x` as an operand next to `weight`: both in bf16 where that is allowed, both in f32 elsewhere.
fn operands(x: &Array, weight: &Array, rounded: bool) -> Result<(Array, Array)> {
    Ok(match (weight.element(), rounded) {
        (Element::Bf16, true) if x.element() == Element::Bf16 => (x.clone(), weight.clone()),
        (Element::Bf16, true) => (narrowed(x)?, weight.clone()),
        (Element::Bf16, false) => {
            let wide = done(Array::new(x.context(), weight.dims(), Element::F32))?;
            done(x.each("widen_bf16", wide.len(), &[wide.arg(), weight.arg(), Arg::count(wide.len())]))?;
            (x.clone(), wide)
        }
        _ => (x.clone(), weight.clone()),
    })
}

fn narrowed(x: &Array) -> Result<Array> {
    let narrow = done(Array::new(x.context(), x.dims(), Element::Bf16))?;
    done(x.each("narrow_to_bf16", x.len(), &[narrow.arg(), x.arg(), Arg::count(x.len())]))?;
    Ok(narrow)
}

pub fn project(x: &Array, projections: &[Projection], rounded: bool) -> Result<Vec<Array>> {
    let (rows, input) = x.dims2();
    // Rounded once for all of them.
    let mut narrow: Option<Array> = None;
    let mut outs = Vec::new();
    for p in projections {
        let (expected, out) = p.sizes()?;
        if expected != input {
            bail!("a projection of {expected} inputs meets rows of {input}");
        }
        let weight = p.weight.cuda()?;
        let (x, weight) = operands(narrow.as_ref().filter(|_| rounded).unwrap_or(x), weight, rounded)?;
        if x.element() == Element::Bf16 {
            narrow = Some(x.clone());
        }
        let y = done(Array::new(x.context(), &[rows, out], Element::F32))?;
        done(product(&y, &x, &weight, p.order == Order::InOut, Precision::Exact))?;
        if let Some(bias) = p.bias {
            let args = [y.arg(), bias.cuda()?.arg(), Arg::count(y.len()), Arg::size(out)];
            done(y.each("add_bias", y.len(), &args))?;
        }
        outs.push(y);
    }
    Ok(outs)
}

pub fn add_expert(residual: &Array, x: &Array, network: &FeedForward, rows: &[u32], weights: &[f32]) -> Result<()> {
    let (tokens, hidden) = x.dims2();
    if residual.len() != x.len() || rows.iter().any(|row| *row as usize >= tokens) || rows.len() != weights.len() {
        bail!("rows of an expert lie outside the residual stream");
    }
    let FeedForward { gate, up, down, activation, rounded } = network;
    let context = x.context();
    let count = rows.len();
    let list = done(Array::uploaded(context, bytemuck::cast_slice(rows), &[count], Element::F32))?;
    let shares = done(Array::uploaded(context, bytemuck::cast_slice(weights), &[count], Element::F32))?;
    let bf16 = *rounded && up.weight.cuda()?.element() == Element::Bf16;
    let (kernel, element) = if bf16 { ("gather_bf16", Element::Bf16) } else { ("gather", Element::F32) };
    let own = done(Array::new(context, &[count, hidden], element))?;
    let args = [own.arg(), x.arg(), list.arg(), Arg::count(own.len()), Arg::size(hidden)];
    done(x.each(kernel, own.len(), &args))?;
    let inner = match (gate, activation) {
        (_, Activation::ClampedSwiglu { limit }) => interleaved_swiglu(&project(&own, &[*up], *rounded)?[0], *limit)?,
        (Some(gate), activation) => {
            let [gates, inner] = &project(&own, &[*gate, *up], *rounded)?[..] else { bail!("two products") };
            self::gate(*activation, gates, inner)?;
            inner.clone()
        }
        (None, activation) => {
            let inner = project(&own, &[*up], *rounded)?.remove(0);
            activate(*activation, &inner)?;
            inner
        }
    };
    let y = project(&inner, &[*down], *rounded)?.remove(0);
    let args = [residual.arg(), y.arg(), list.arg(), shares.arg(), Arg::count(y.len()), Arg::size(hidden)];
    done(x.each("scatter", y.len(), &args))
}

/// Sequence by sequence and some queries at a time, as many as `SCORE_BYTES` of scores allow; a product per chunk serves all
/// heads, and meets only keys that one of its queries sees.
pub fn attend(q: &Array, k: &Array, v: &Array, sinks: Option<&Array>, op: Attend) -> Result<Array> {
    let Attend { positions, heads, kv_heads, head_dim, window, scale, rounded } = op;
    let context = q.context();
    let out = done(q.like())?;
    let precision = if rounded { Precision::Tensor32 } else { Precision::Exact };
    let sequences = q.len() / (positions * heads * head_dim);
    let mut chunk = score_queries(heads, positions);
    let scores = loop {
        match Array::new(context, &[scores(heads, chunk, positions, window)], Element::F32) {
            Err(error) if error.is_full() && chunk > 1 => chunk = chunk.div_ceil(2),
            allocated => break done(allocated)?,
        }
    };
    let lists = done(Array::new(context, &[5 * heads * 8], Element::U8))?;
    let list = |i: usize| lists.address() + (i * heads * 8) as u64;
    let (stride, kv_stride) = (heads * head_dim, kv_heads * head_dim);
    let sinks = sinks.map_or(Arg::Address(0), Array::arg);
    for (sequence, first) in (0..sequences).flat_map(|s| (0..positions).step_by(chunk).map(move |first| (s, first))) {
        let queries = chunk.min(positions - first);
        let first_key = window.map_or(0, |window| (first + 1).saturating_sub(window));
        let keys = first + queries - first_key;
        let at = |array: &Array, row: usize, stride: usize| {
            Arg::Address(array.address() + ((sequence * positions + row) * stride * 4) as u64)
        };
        let args = [
            lists.arg(),
            at(q, first, stride),
            at(k, first_key, kv_stride),
            at(v, first_key, kv_stride),
            scores.arg(),
            at(&out, first, stride),
            Arg::size(heads),
            Arg::size(heads / kv_heads),
            Arg::size(head_dim),
            Arg::count(queries * keys),
        ];
        done(context.each(Stream::Compute, "addresses", heads, &args))?;
        let batch = |i, stride| Batch { list: list(i), stride };
        let (q, k, v) = (batch(0, stride), batch(1, kv_stride), batch(2, kv_stride));
        let (s, y) = (batch(3, keys), batch(4, stride));
        let sizes = Sizes { rows: queries, input: head_dim, out: keys, count: heads };
        done(products(context, (s, q, k), sizes, false, precision))?;
        let args = [
            scores.arg(),
            sinks,
            Arg::size(queries),
            Arg::size(keys),
            Arg::size(first),
            Arg::size(first_key),
            Arg::size(window.unwrap_or(0)),
            Arg::F32(scale),
        ];
        done(context.launch(Stream::Compute, "softmax", blocks(heads * queries)?, THREADS, &args))?;
        let sizes = Sizes { rows: queries, input: keys, out: head_dim, count: heads };
        done(products(context, (y, s, v), sizes, true, precision))?;
    }
    Ok(out)
}

pub fn delta_rule(q: &Array, k: &Array, v: &Array, net: &DeltaNet) -> Result<Array> {
    let DeltaNet { positions, heads, group, .. } = *net;
    let (dk, dv) = (q.dims2().1, v.dims2().1);
    if dk > 256 || dv > 1024 {
        bail!("heads of {dk} and {dv} channels are larger than the kernel's 256 and 1024");
    }
    let blocks_of = q.len() / (positions * dk);
    let out = done(Array::new(q.context(), &[blocks_of / heads * positions, heads, dv], Element::F32))?;
    let kernel = match dk {
        64 => "delta_rule_64",
        128 => "delta_rule_128",
        _ => "delta_rule",
    };
    let args = [
        out.arg(),
        q.arg(),
        k.arg(),
        v.arg(),
        net.beta_and_decay.cuda()?.arg(),
        net.a_log.cuda()?.arg(),
        net.dt_bias.cuda()?.arg(),
        Arg::size(heads),
        Arg::size(group),
        Arg::size(positions),
        Arg::size(dk),
        Arg::size(dv),
    ];
    let threads = (dv as u32).next_multiple_of(32);
    done(q.context().launch(Stream::Compute, kernel, blocks(blocks_of)?, threads, &args))?;
    Ok(out)
}

pub fn short_conv(x: &Array, weight: &Array, op: &ShortConv) -> Result<Array> {
    let (rows, columns) = x.dims2();
    let (heads, kernel) = (op.heads.len(), weight.dims2().1);
    let sources: Vec<u32> =
        op.heads.iter().flat_map(|head| [head.first_column as u32, head.first_channel as u32]).collect();
    let sources = done(Array::uploaded(x.context(), bytemuck::cast_slice(&sources), &[heads, 2], Element::F32))?;
    let sequences = rows / op.positions;
    let out = done(Array::new(x.context(), &[sequences, heads, op.positions, op.width], Element::F32))?;
    let args = [
        out.arg(),
        x.arg(),
        weight.arg(),
        sources.arg(),
        Arg::size(heads),
        Arg::size(op.positions),
        Arg::size(columns),
        Arg::size(op.width),
        Arg::size(kernel),
        Arg::F32(op.length.unwrap_or(0.0)),
    ];
    done(x.context().launch(Stream::Compute, "short_conv", blocks(rows * heads)?, THREADS, &args))?;
    Ok(out)
}

pub fn rotate(x: &Array, cos: &Array, sin: &Array) -> Result<()> {
    let [_, positions, heads, head_dim] = *x.dims() else { bail!("expected four dimensions") };
    let half = cos.dims2().1;
    let count = x.len() / head_dim * half;
    let sizes = [Arg::size(positions), Arg::size(heads), Arg::size(head_dim), Arg::size(half)];
    let args = [&[x.arg(), cos.arg(), sin.arg(), Arg::count(count)][..], &sizes].concat();
    done(x.each("rotate", count, &args))
}

pub fn add(residual: &Array, x: &Array) -> Result<()> {
    done(x.each("add", x.len(), &[residual.arg(), x.arg(), Arg::count(x.len())]))
}

fn number(activation: Activation) -> Result<Arg> {
    Ok(Arg::U32(match activation {
        Activation::Silu => 0,
        Activation::Relu => 1,
        Activation::GeluTanh => 2,
        Activation::GeluErf => 3,
        Activation::ClampedSwiglu { .. } => bail!("gate and up are interleaved: not elementwise"),
    }))
}

pub fn activate(activation: Activation, x: &Array) -> Result<()> {
    done(x.each("activate", x.len(), &[x.arg(), Arg::count(x.len()), number(activation)?]))
}

pub fn gate(activation: Activation, gate: &Array, x: &Array) -> Result<()> {
    done(x.each("gate", x.len(), &[x.arg(), gate.arg(), Arg::count(x.len()), number(activation)?]))
}

pub fn sigmoid_gate(x: &Array, gate: &Array) -> Result<()> {
    let per_gate = x.len() / gate.len().max(1);
    done(x.each("sigmoid_gate", x.len(), &[x.arg(), gate.arg(), Arg::count(x.len()), Arg::count(per_gate)]))
}

pub fn interleaved_swiglu(x: &Array, limit: f32) -> Result<Array> {
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") /= 2;
    let out = done(Array::new(x.context(), &dims, Element::F32))?;
    done(x.each("interleaved_swiglu", out.len(), &[out.arg(), x.arg(), Arg::count(out.len()), Arg::F32(limit)]))?;
    Ok(out)
}
