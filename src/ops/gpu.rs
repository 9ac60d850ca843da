//! The operations in the memory of a GPU. Work is put on its stream; nothing here waits for it.

use super::operands::{Attend, DeltaNet, FeedForward, Projection, ShortConv, score_queries, scores};
use crate::cuda::{Array, Element, HeadSizes, Heads, Indices, Operands, Precision, product, table};
use crate::error::{Error, Result, fault};
use crate::vocabulary::{Activation, NormKind, Order};

pub fn norm(kind: NormKind, eps: f64, x: &Array, weight: &Array, bias: Option<&Array>) -> Result<Array> {
    let (rows, size) = x.dims2();
    let out = x.like()?;
    let (kind, bias) = match kind {
        NormKind::Rms | NormKind::RmsRoundedOnce => (0, None),
        NormKind::RmsZeroCentred => (1, None),
        NormKind::Layer => (2, bias),
    };
    table::RowNorm { rows, out: &out, x, weight, bias, size, eps: eps as f32, kind }.launch()?;
    Ok(out)
}

/// `x` as an operand next to `weight`: both in bf16 where that is allowed, both in f32 elsewhere.
fn operands(x: &Array, weight: &Array, rounded: bool) -> Result<(Array, Array)> {
    Ok(match (weight.element(), rounded) {
        (Element::Bf16, true) if x.element() == Element::Bf16 => (x.clone(), weight.clone()),
        (Element::Bf16, true) => (narrowed(x)?, weight.clone()),
        (Element::Bf16, false) => {
            let wide = Array::new(x.context(), weight.dims(), Element::F32)?;
            table::WidenBf16 { out: &wide, x: weight, count: wide.len() }.launch()?;
            (x.clone(), wide)
        }
        _ => (x.clone(), weight.clone()),
    })
}

fn narrowed(x: &Array) -> Result<Array> {
    let narrow = Array::new(x.context(), x.dims(), Element::Bf16)?;
    table::NarrowToBf16 { out: &narrow, x, count: x.len() }.launch()?;
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
            table::AddBias { y: &y, bias: bias.cuda()?, count: y.len(), columns: out }.launch()?;
        }
        outs.push(y);
    }
    Ok(outs)
}

pub fn add_expert(residual: &Array, x: &Array, network: &FeedForward, rows: &[u32], weights: &[f32]) -> Result<()> {
    let (_, hidden) = x.dims2();
    let FeedForward { gate, up, down, activation, rounded } = network;
    let context = x.context();
    let count = rows.len();
    let rows = &Indices::uploaded(context, rows, 1)?;
    let shares = Array::uploaded(context, bytemuck::cast_slice(weights), &[count], Element::F32)?;
    let bf16 = *rounded && up.weight.cuda()?.element() == Element::Bf16;
    let own = Array::new(context, &[count, hidden], if bf16 { Element::Bf16 } else { Element::F32 })?;
    match bf16 {
        true => table::GatherBf16 { out: &own, x, rows, count: own.len(), hidden }.launch()?,
        false => table::Gather { out: &own, x, rows, count: own.len(), hidden }.launch()?,
    }
    let inner = match (gate, activation) {
        (_, Activation::ClampedSwiglu { limit }) => interleaved_swiglu(&project(&own, &[*up], *rounded)?[0], *limit)?,
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
    table::Scatter { to: residual, y: &y, rows, weights: &shares, count: y.len(), hidden }.launch()
}

/// Sequence by sequence and some queries at a time, as many as `SCORE_BYTES` of scores allow; a product per chunk serves all
/// heads, and meets only keys that one of its queries sees.
pub fn attend(q: &Array, k: &Array, v: &Array, sinks: Option<&Array>, op: Attend) -> Result<Array> {
    let Attend { positions, heads, kv_heads, head_dim, window, scale, rounded } = op;
    let context = q.context();
    let out = q.like()?;
    let precision = if rounded { Precision::Tensor32 } else { Precision::Exact };
    let sequences = q.len() / (positions * heads * head_dim);
    let mut chunk = score_queries(heads, positions);
    let scores = loop {
        match Array::new(context, &[scores(heads, chunk, positions, window)], Element::F32) {
            Err(error) if error.is_full() && chunk > 1 => chunk = chunk.div_ceil(2),
            allocated => break allocated?,
        }
    };
    let mut of_heads = Heads::new(context, HeadSizes { heads, group: heads / kv_heads, head_dim })?;
    let in_rows = |array: &Array, width: usize| array.reshaped(&[array.len() / width, width]);
    let (q, results) = (in_rows(q, heads * head_dim)?, in_rows(&out, heads * head_dim)?);
    let (k, v) = (in_rows(k, kv_heads * head_dim)?, in_rows(v, kv_heads * head_dim)?);
    for (sequence, first) in (0..sequences).flat_map(|s| (0..positions).step_by(chunk).map(move |first| (s, first))) {
        let queries = chunk.min(positions - first);
        let first_key = window.map_or(0, |window| (first + 1).saturating_sub(window));
        let keys = first + queries - first_key;
        let (of_queries, of_keys) = (sequence * positions + first, sequence * positions + first_key);
        let piece = of_heads.piece(Operands {
            q: q.rows(of_queries, queries)?,
            out: results.rows(of_queries, queries)?,
            k: k.rows(of_keys, keys)?,
            v: v.rows(of_keys, keys)?,
            scores: scores.clone(),
        })?;
        piece.scores(precision)?;
        table::Softmax {
            rows: heads * queries,
            scores: &scores,
            sinks,
            queries,
            keys,
            first_query: first,
            first_key,
            window: window.unwrap_or(0),
            scale,
        }
        .launch()?;
        piece.results(precision)?;
    }
    Ok(out)
}

pub fn delta_rule(q: &Array, k: &Array, v: &Array, net: &DeltaNet) -> Result<Array> {
    let DeltaNet { positions, heads, group, .. } = *net;
    let (dk, dv) = (q.dims2().1, v.dims2().1);
    if dk > 256 || dv > 1024 {
        let sizes = format!("heads of {dk} and {dv} channels are larger than the 256 and 1024 that GPUs compute here");
        return Err(Error::unsupported(sizes).hint("device: \"cpu\" has no such limit"));
    }
    let blocks = q.len() / (positions * dk);
    let out = Array::new(q.context(), &[blocks / heads * positions, heads, dv], Element::F32)?;
    table::DeltaRule {
        blocks,
        out: &out,
        q,
        k,
        v,
        gates: net.beta_and_decay.cuda()?,
        a_log: net.a_log.cuda()?,
        dt_bias: net.dt_bias.cuda()?,
        heads,
        group,
        positions,
        dk,
        dv,
    }
    .launch()?;
    Ok(out)
}

pub fn short_conv(x: &Array, weight: &Array, op: &ShortConv) -> Result<Array> {
    let (rows, columns) = x.dims2();
    let (heads, kernel) = (op.heads.len(), weight.dims2().1);
    let sources: Vec<u32> =
        op.heads.iter().flat_map(|head| [head.first_column as u32, head.first_channel as u32]).collect();
    let sources = Indices::uploaded(x.context(), &sources, 2)?;
    let sequences = rows / op.positions;
    let out = Array::new(x.context(), &[sequences, heads, op.positions, op.width], Element::F32)?;
    table::ShortConv {
        blocks: rows * heads,
        out: &out,
        x,
        taps: weight,
        sources: &sources,
        heads,
        positions: op.positions,
        columns,
        width: op.width,
        kernel,
        length: op.length.unwrap_or(0.0),
    }
    .launch()?;
    Ok(out)
}

pub fn rotate(x: &Array, cos: &Array, sin: &Array) -> Result<()> {
    let [_, positions, heads, head_dim] = *x.dims() else { fault!("expected four dimensions") };
    let half = cos.dims2().1;
    let count = x.len() / head_dim * half;
    table::Rotate { x, cosines: cos, sines: sin, count, positions, heads, head_dim, half }.launch()
}

pub fn add(residual: &Array, x: &Array) -> Result<()> {
    table::Add { to: residual, x, count: x.len() }.launch()
}

/// What the kernels call an activation.
fn number(activation: Activation) -> Result<usize> {
    Ok(match activation {
        Activation::Silu => 0,
        Activation::Relu => 1,
        Activation::GeluTanh => 2,
        Activation::GeluErf => 3,
        Activation::ClampedSwiglu { .. } => fault!("gate and up are interleaved: not elementwise"),
    })
}

pub fn activate(activation: Activation, x: &Array) -> Result<()> {
    table::Activate { x, count: x.len(), kind: number(activation)? }.launch()
}

pub fn gate(activation: Activation, gate: &Array, x: &Array) -> Result<()> {
    table::Gate { x, gates: gate, count: x.len(), kind: number(activation)? }.launch()
}

pub fn sigmoid_gate(x: &Array, gate: &Array) -> Result<()> {
    let per_gate = x.len() / gate.len().max(1);
    table::SigmoidGate { x, gates: gate, count: x.len(), per_gate }.launch()
}

pub fn interleaved_swiglu(x: &Array, limit: f32) -> Result<Array> {
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") /= 2;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    table::InterleavedSwiglu { out: &out, x, count: out.len(), limit }.launch()?;
    Ok(out)
}
