//! The operations in the memory of a GPU. Work is put on its stream; nothing here waits for it.

use super::cpu;
use super::operands::{Attend, DeltaNet, FeedForward, Projection, ShortConv, score_queries, scores};
use crate::cuda::{Arg, Array, Batch, Element, Precision, Sizes, Stream, THREADS, product, products};
use crate::error::{Error, Result, fault};
use crate::tensor::Tensor;
use crate::vocabulary::{Activation, NormKind, Order, Pairs, Span};

/// For what has no kernel: `x` to the memory of the CPU, through `f`, and back as an array of this shape.
fn by_the_cpu(x: &Array, dims: &[usize], f: impl FnOnce(Vec<f32>) -> Result<Vec<f32>>) -> Result<Array> {
    let values = f(downloaded(x)?)?;
    Array::uploaded(x.context(), bytemuck::cast_slice(&values), dims, Element::F32)
}

fn downloaded(x: &Array) -> Result<Vec<f32>> {
    let mut values = vec![0f32; x.len()];
    x.download(bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// The same in place.
fn changed_by_the_cpu(x: &Array, f: impl FnOnce(&mut [f32])) -> Result<()> {
    let (rows, size) = x.dims2();
    let changed = by_the_cpu(x, &[rows, size], |mut values| {
        f(&mut values);
        Ok(values)
    })?;
    x.reshaped(&[rows, size]).set_rows(&changed, 0)
}

pub fn norm(kind: NormKind, eps: f64, x: &Array, weight: &Array, bias: Option<&Array>) -> Result<Array> {
    let (rows, size) = x.dims2();
    if weight.len() != size || kind == NormKind::LayerZeroCentred || kind == NormKind::Layer && bias.is_none() {
        let (weight, bias) = (downloaded(weight)?, bias.map(downloaded).transpose()?);
        return by_the_cpu(x, x.dims(), |x| Ok(cpu::norm(kind, eps, &x, size, &weight, bias.as_deref())));
    }
    let out = x.like()?;
    let (kind, bias) = match kind {
        NormKind::Rms | NormKind::RmsRoundedOnce => (0, None),
        NormKind::RmsZeroCentred => (1, None),
        NormKind::Layer | NormKind::LayerZeroCentred => (2, bias),
    };
    let bias = bias.map_or(Arg::Address(0), Array::arg);
    let args = [out.arg(), x.arg(), weight.arg(), bias, Arg::size(size), Arg::F32(eps as f32), Arg::U32(kind)];
    x.context().launch(Stream::Compute, "row_norm", blocks(rows)?, THREADS, &args)?;
    Ok(out)
}

/// One block per row.
fn blocks(rows: usize) -> Result<(u32, u32)> {
    match u32::try_from(rows) {
        Ok(rows) if rows < 1 << 31 => Ok((rows, 1)),
        _ => {
            Err(Error::unsupported(format!("{rows} rows are too many for one kernel"))
                .hint("use a smaller memory_budget"))
        }
    }
}

/// `x` as an operand next to `weight`: both in bf16 where that is allowed, both in f32 elsewhere.
fn operands(x: &Array, weight: &Array, rounded: bool) -> Result<(Array, Array)> {
    Ok(match (weight.element(), rounded) {
        (Element::Bf16, true) if x.element() == Element::Bf16 => (x.clone(), weight.clone()),
        (Element::Bf16, true) => (narrowed(x)?, weight.clone()),
        (Element::Bf16, false) => {
            let wide = Array::new(x.context(), weight.dims(), Element::F32)?;
            x.each("widen_bf16", wide.len(), &[wide.arg(), weight.arg(), Arg::count(wide.len())])?;
            (x.clone(), wide)
        }
        _ => (x.clone(), weight.clone()),
    })
}

fn narrowed(x: &Array) -> Result<Array> {
    let narrow = Array::new(x.context(), x.dims(), Element::Bf16)?;
    x.each("narrow_to_bf16", x.len(), &[narrow.arg(), x.arg(), Arg::count(x.len())])?;
    Ok(narrow)
}

pub fn project(x: &Array, projections: &[Projection], rounded: bool) -> Result<Vec<Array>> {
    let (rows, _) = x.dims2();
    // Rounded once for all of them.
    let mut narrow: Option<Array> = None;
    let mut outs = Vec::new();
    for p in projections {
        let (_, out) = p.sizes()?;
        let weight = p.weight.cuda()?;
        let (x, weight) = operands(narrow.as_ref().filter(|_| rounded).unwrap_or(x), weight, rounded)?;
        if x.element() == Element::Bf16 {
            narrow = Some(x.clone());
        }
        let y = Array::new(x.context(), &[rows, out], Element::F32)?;
        product(&y, &x, &weight, p.order == Order::InOut, Precision::Exact)?;
        if let Some(bias) = p.bias {
            let args = [y.arg(), bias.cuda()?.arg(), Arg::count(y.len()), Arg::size(out)];
            y.each("add_bias", y.len(), &args)?;
        }
        outs.push(y);
    }
    Ok(outs)
}

pub fn add_expert(residual: &Array, x: &Array, network: &FeedForward, rows: &[u32], weights: &[f32]) -> Result<()> {
    let (_, hidden) = x.dims2();
    let FeedForward { gate, up, down, activation, on_input, rounded } = network;
    let context = x.context();
    let count = rows.len();
    let list = Array::uploaded(context, bytemuck::cast_slice(rows), &[count], Element::F32)?;
    let shares = Array::uploaded(context, bytemuck::cast_slice(weights), &[count], Element::F32)?;
    let bf16 = *rounded && up.weight.cuda()?.element() == Element::Bf16;
    let (kernel, element) = if bf16 { ("gather_bf16", Element::Bf16) } else { ("gather", Element::F32) };
    let own = Array::new(context, &[count, hidden], element)?;
    let args = [own.arg(), x.arg(), list.arg(), Arg::count(own.len()), Arg::size(hidden)];
    x.each(kernel, own.len(), &args)?;
    let (own, shares) = if *on_input {
        // Scattered into zeros, row by row, with its weight.
        let weighed = Array::zeros(context, &[count, hidden], Element::F32)?;
        let every: Vec<u32> = (0..count as u32).collect();
        let every = Array::uploaded(context, bytemuck::cast_slice(&every), &[count], Element::F32)?;
        let wide = Array::new(context, &[count, hidden], Element::F32)?;
        x.each("gather", own.len(), &[wide.arg(), x.arg(), list.arg(), Arg::count(own.len()), Arg::size(hidden)])?;
        let args = [weighed.arg(), wide.arg(), every.arg(), shares.arg(), Arg::count(wide.len()), Arg::size(hidden)];
        x.each("scatter", wide.len(), &args)?;
        let ones = vec![1f32; count];
        (weighed, Array::uploaded(context, bytemuck::cast_slice(&ones), &[count], Element::F32)?)
    } else {
        (own, shares)
    };
    let inner = match (gate, activation) {
        (_, Activation::ClampedSwiglu { limit }) => interleaved_swiglu(&project(&own, &[*up], *rounded)?[0], *limit)?,
        (_, Activation::SwigluHalves) => swiglu_halves(&project(&own, &[*up], *rounded)?[0])?,
        (Some(gate), activation) => {
            let [gates, inner] = &project(&own, &[*gate, *up], *rounded)?[..] else { fault!("two products") };
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
    x.each("scatter", y.len(), &args)
}

/// Sequence by sequence and some queries at a time, as many as `SCORE_BYTES` of scores allow; a product per chunk serves all
/// heads, and meets only keys that one of its queries sees.
pub fn attend(q: &Array, k: &Array, v: &Array, sinks: Option<&Array>, op: Attend) -> Result<Array> {
    let Attend { positions, heads, kv_heads, head_dim, value_dim, span, scale, softcap, alibi, rounded } = op;
    let window = match span {
        Span::All => None,
        Span::Window(width) => Some(width),
        Span::Chunk(_) => return attend_by_the_cpu(q, k, v, sinks, &op),
    };
    if value_dim != head_dim || softcap.is_some() || alibi.is_some() {
        return attend_by_the_cpu(q, k, v, sinks, &op);
    }
    let context = q.context();
    let out = q.like()?;
    let precision = if rounded { Precision::Tensor32 } else { Precision::Exact };
    let sequences = q.len() / (positions * heads * head_dim);
    let mut chunk = score_queries(heads, positions);
    let scores = loop {
        match Array::new(context, &[scores(heads, chunk, positions, span)], Element::F32) {
            Err(error) if error.is_full() && chunk > 1 => chunk = chunk.div_ceil(2),
            allocated => break allocated?,
        }
    };
    let lists = Array::new(context, &[5 * heads * 8], Element::U8)?;
    let list = |i: usize| lists.address() + (i * heads * 8) as u64;
    let (stride, kv_stride) = (heads * head_dim, kv_heads * head_dim);
    let sinks = sinks.map_or(Arg::Address(0), Array::arg);
    for (sequence, first) in (0..sequences).flat_map(|s| (0..positions).step_by(chunk).map(move |first| (s, first))) {
        let queries = chunk.min(positions - first);
        let first_key = span.first_key(first);
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
        context.each(Stream::Compute, "addresses", heads, &args)?;
        let batch = |i, stride| Batch { list: list(i), stride };
        let (q, k, v) = (batch(0, stride), batch(1, kv_stride), batch(2, kv_stride));
        let (s, y) = (batch(3, keys), batch(4, stride));
        let sizes = Sizes { rows: queries, input: head_dim, out: keys, count: heads };
        products(context, (s, q, k), sizes, false, precision)?;
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
        context.launch(Stream::Compute, "softmax", blocks(heads * queries)?, THREADS, &args)?;
        let sizes = Sizes { rows: queries, input: keys, out: head_dim, count: heads };
        products(context, (y, s, v), sizes, true, precision)?;
    }
    Ok(out)
}

fn attend_by_the_cpu(q: &Array, k: &Array, v: &Array, sinks: Option<&Array>, op: &Attend) -> Result<Array> {
    let (k, v, sinks) = (downloaded(k)?, downloaded(v)?, sinks.map(downloaded).transpose()?);
    let dims = [q.dims2().0, op.heads * op.value_dim];
    by_the_cpu(q, &dims, |q| Ok(cpu::attend(&q, &k, &v, sinks.as_deref(), op)))
}

pub fn delta_rule(q: &Array, k: &Array, v: &Array, net: &DeltaNet) -> Result<Array> {
    let DeltaNet { positions, heads, group, .. } = *net;
    let (dk, dv) = (q.dims2().1, v.dims2().1);
    if dk > 256 || dv > 1024 {
        let sizes = format!("heads of {dk} and {dv} channels are larger than the 256 and 1024 that GPUs compute here");
        return Err(Error::unsupported(sizes).hint("device: \"cpu\" has no such limit"));
    }
    let blocks_of = q.len() / (positions * dk);
    let out = Array::new(q.context(), &[blocks_of / heads * positions, heads, dv], Element::F32)?;
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
    q.context().launch(Stream::Compute, kernel, blocks(blocks_of)?, threads, &args)?;
    Ok(out)
}

pub fn short_conv(x: &Array, weight: &Array, op: &ShortConv) -> Result<Array> {
    let (rows, columns) = x.dims2();
    let (heads, kernel) = (op.heads.len(), weight.dims2().1);
    let sources: Vec<u32> =
        op.heads.iter().flat_map(|head| [head.first_column as u32, head.first_channel as u32]).collect();
    let sources = Array::uploaded(x.context(), bytemuck::cast_slice(&sources), &[heads, 2], Element::F32)?;
    let sequences = rows / op.positions;
    let out = Array::new(x.context(), &[sequences, heads, op.positions, op.width], Element::F32)?;
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
    x.context().launch(Stream::Compute, "short_conv", blocks(rows * heads)?, THREADS, &args)?;
    Ok(out)
}

pub fn rotate(x: &Array, cos: &Array, sin: &Array, pairs: Pairs) -> Result<()> {
    let [_, positions, heads, head_dim] = *x.dims() else { fault!("expected four dimensions") };
    if pairs == Pairs::Adjacent {
        let (cos, sin) = (downloaded(cos)?, downloaded(sin)?);
        return changed_by_the_cpu(x, |x| cpu::rotate(x, &cos, &sin, pairs, (positions, heads, head_dim)));
    }
    let half = cos.dims2().1;
    let count = x.len() / head_dim * half;
    let sizes = [Arg::size(positions), Arg::size(heads), Arg::size(head_dim), Arg::size(half)];
    let args = [&[x.arg(), cos.arg(), sin.arg(), Arg::count(count)][..], &sizes].concat();
    x.each("rotate", count, &args)
}

pub fn add(residual: &Array, x: &Array) -> Result<()> {
    x.each("add", x.len(), &[residual.arg(), x.arg(), Arg::count(x.len())])
}

pub fn scale(x: &Array, factor: f32) -> Result<()> {
    changed_by_the_cpu(x, |x| cpu::scale(x, factor))
}

pub fn scale_rows(x: &Array, factors: &[f32]) -> Result<()> {
    let (_, size) = x.dims2();
    changed_by_the_cpu(x, |x| cpu::scale_rows(x, factors, size))
}

pub fn swiglu_halves(x: &Array) -> Result<Array> {
    let (_, both) = x.dims2();
    let half = |first| Tensor::Cuda(x.clone()).columns(first, both / 2);
    let (gates, up) = (half(0)?, half(both / 2)?);
    gate(Activation::Silu, gates.cuda()?, up.cuda()?)?;
    up.cuda().cloned()
}

fn number(activation: Activation) -> Result<Arg> {
    Ok(Arg::U32(match activation {
        Activation::Silu => 0,
        Activation::Relu => 1,
        Activation::GeluTanh => 2,
        Activation::GeluErf => 3,
        _ => fault!("{activation:?} has no number among the kernels"),
    }))
}

pub fn activate(activation: Activation, x: &Array) -> Result<()> {
    match activation {
        // relu(x) * x
        Activation::ReluSquared => return gate(Activation::Relu, x, x),
        Activation::XIelu { .. } => return changed_by_the_cpu(x, |x| cpu::activate(activation, None, x, 1)),
        _ => (),
    }
    x.each("activate", x.len(), &[x.arg(), Arg::count(x.len()), number(activation)?])
}

pub fn gate(activation: Activation, gate: &Array, x: &Array) -> Result<()> {
    if activation == Activation::ReluSquared {
        self::gate(Activation::Relu, gate, x)?;
        return self::gate(Activation::Relu, gate, x);
    }
    x.each("gate", x.len(), &[x.arg(), gate.arg(), Arg::count(x.len()), number(activation)?])
}

pub fn sigmoid_gate(x: &Array, gate: &Array) -> Result<()> {
    let per_gate = x.len() / gate.len().max(1);
    x.each("sigmoid_gate", x.len(), &[x.arg(), gate.arg(), Arg::count(x.len()), Arg::count(per_gate)])
}

pub fn interleaved_swiglu(x: &Array, limit: f32) -> Result<Array> {
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") /= 2;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    x.each("interleaved_swiglu", out.len(), &[out.arg(), x.arg(), Arg::count(out.len()), Arg::F32(limit)])?;
    Ok(out)
}
