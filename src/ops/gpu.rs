//! GPU implementations of the operations of `ops`. They put work on the compute stream and do not
//! wait for it.

use super::operands::{
    Attend, CausalConv, DeltaNet, FeedForward, Projection, Scan, ShortConv, queries_per_chunk, score_count,
};
use crate::cuda::{Array, Element, HeadSizes, Heads, Indices, Operands, Precision, gemm, table};
use crate::error::{Error, Result, fault};
use crate::tensor::Tensor;
use crate::vocabulary::{Activation, NormKind, Order, Pairs, Span};

pub(super) fn norm(kind: NormKind, eps: f64, x: &Array, weight: &Array, bias: Option<&Array>) -> Result<Array> {
    let (rows, size) = x.dims2();
    let out = x.uninit_like()?;
    // The bits are those of `norm.cu`.
    let (kind, bias) = match kind {
        NormKind::Rms | NormKind::RmsRoundedOnce => (0, None),
        NormKind::Layer => (1, bias),
        NormKind::RmsZeroCentred => (2, None),
        NormKind::LayerZeroCentred => (3, bias),
    };
    let weights = weight.len() / size.max(1);
    table::RowNorm { rows, out: &out, x, weight, bias, size, weights, eps: eps as f32, kind }.launch()?;
    Ok(out)
}

/// Converts `x` and `weight` to a common type: bf16 if the weight is bf16 and rounding is allowed,
/// else f32.
fn operands(x: &Array, weight: &Array, rounded: bool) -> Result<(Array, Array)> {
    Ok(match (weight.element(), rounded) {
        (Element::Bf16, true) if x.element() == Element::Bf16 => (x.clone(), weight.clone()),
        (Element::Bf16, true) => (to_bf16(x)?, weight.clone()),
        (Element::Bf16, false) => {
            let wide = Array::new(x.context(), weight.dims(), Element::F32)?;
            table::WidenBf16 { out: &wide, x: weight, count: wide.len() }.launch()?;
            (x.clone(), wide)
        }
        _ => (x.clone(), weight.clone()),
    })
}

fn to_bf16(x: &Array) -> Result<Array> {
    let narrow = Array::new(x.context(), x.dims(), Element::Bf16)?;
    table::NarrowToBf16 { out: &narrow, x, count: x.len() }.launch()?;
    Ok(narrow)
}

pub(super) fn project(x: &Array, projections: &[Projection], rounded: bool) -> Result<Vec<Array>> {
    let (rows, _) = x.dims2();
    // The rounded `x` is reused for all projections.
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
        gemm(&y, &x, &weight, p.order == Order::InOut, Precision::F32)?;
        if let Some(bias) = p.bias {
            table::AddBias { y: &y, bias: bias.cuda()?, count: y.len(), columns: out }.launch()?;
        }
        outs.push(y);
    }
    Ok(outs)
}

pub(super) fn add_expert(
    residual: &Array,
    x: &Array,
    network: &FeedForward,
    rows: &[u32],
    weights: &[f32],
) -> Result<[Array; 2]> {
    let (_, hidden) = x.dims2();
    let FeedForward { gate, up, down, activation, on_input, rounded } = network;
    let context = x.context();
    let count = rows.len();
    let rows = &Indices::uploaded(context, rows, 1)?;
    let shares = Array::uploaded(context, bytemuck::cast_slice(weights), &[count], Element::F32)?;
    let bf16 = *rounded && up.weight.cuda()?.element() == Element::Bf16;
    let wide = |element| Array::new(context, &[count, hidden], element);
    let (own, shares) = match (on_input, bf16) {
        (true, _) => {
            // The rows are gathered, and scattered into zeros with their weights.
            let (gathered, weighed) = (wide(Element::F32)?, Array::zeros(context, &[count, hidden], Element::F32)?);
            table::Gather { out: &gathered, x, rows, count: gathered.len(), hidden }.launch()?;
            let every: Vec<u32> = (0..count as u32).collect();
            let every = &Indices::uploaded(context, &every, 1)?;
            table::Scatter { to: &weighed, y: &gathered, rows: every, weights: &shares, count: gathered.len(), hidden }
                .launch()?;
            let ones = vec![1f32; count];
            (weighed, Array::uploaded(context, bytemuck::cast_slice(&ones), &[count], Element::F32)?)
        }
        (false, true) => {
            let own = wide(Element::Bf16)?;
            table::GatherBf16 { out: &own, x, rows, count: own.len(), hidden }.launch()?;
            (own, shares)
        }
        (false, false) => {
            let own = wide(Element::F32)?;
            table::Gather { out: &own, x, rows, count: own.len(), hidden }.launch()?;
            (own, shares)
        }
    };
    let inner = match (gate, activation) {
        (_, Activation::ClampedSwiglu { limit }) => interleaved_swiglu(&project(&own, &[*up], *rounded)?[0], *limit)?,
        (_, Activation::Halves(act)) => gate_halves(**act, &project(&own, &[*up], *rounded)?[0])?,
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
    table::Scatter { to: residual, y: &y, rows, weights: &shares, count: y.len(), hidden }.launch()?;
    Ok([inner, y])
}

pub(super) fn add_rows(to: &Array, y: &Array, rows: &[u32], weights: &[f32]) -> Result<()> {
    let (context, (_, hidden)) = (to.context(), y.dims2());
    let weights = &Array::uploaded(context, bytemuck::cast_slice(weights), &[rows.len()], Element::F32)?;
    let rows = &Indices::uploaded(context, rows, 1)?;
    table::Scatter { to, y, rows, weights, count: y.len(), hidden }.launch()
}

/// Attention by sequences and chunks of queries. The scores of a chunk fit into `SCORE_BYTES`. One
/// batched product serves all heads, and reads only keys that some query of the chunk attends to.
pub(super) fn attend(q: &Array, k: &Array, v: &Array, sinks: Option<&Array>, op: Attend) -> Result<Array> {
    let Attend { positions, heads, kv_heads, head_dim, value_dim, span, scale, softcap, alibi, rounded } = op;
    let (window, chunk_size) = match span {
        Span::All => (0, 0),
        Span::Window(width) => (width, 0),
        Span::Chunk(size) => (0, size),
    };
    let context = q.context();
    let precision = if rounded { Precision::Tf32 } else { Precision::F32 };
    let rows = q.len() / (heads * head_dim);
    let sequences = rows / positions;
    let out = Array::new(context, &[rows, heads * value_dim], Element::F32)?;
    let slopes =
        alibi.map(|(slopes, _)| Array::uploaded(context, bytemuck::cast_slice(slopes), &[heads], Element::F32));
    let slopes = slopes.transpose()?;
    let mut chunk = queries_per_chunk(heads, positions);
    let scores = loop {
        match Array::new(context, &[score_count(heads, chunk, positions, span)], Element::F32) {
            Err(error) if error.is_oom() && chunk > 1 => chunk = chunk.div_ceil(2),
            allocated => break allocated?,
        }
    };
    let mut of_heads = Heads::new(context, HeadSizes { heads, group: heads / kv_heads, head_dim, value_dim })?;
    let in_rows = |array: &Array, width: usize| array.reshaped(&[array.len() / width, width]);
    let q = in_rows(q, heads * head_dim)?;
    let (k, v) = (in_rows(k, kv_heads * head_dim)?, in_rows(v, kv_heads * value_dim)?);
    for (sequence, first) in (0..sequences).flat_map(|s| (0..positions).step_by(chunk).map(move |first| (s, first))) {
        let queries = chunk.min(positions - first);
        let first_key = span.first_key(first);
        let keys = first + queries - first_key;
        let (of_queries, of_keys) = (sequence * positions + first, sequence * positions + first_key);
        let piece = of_heads.bind(Operands {
            q: q.rows(of_queries, queries)?,
            out: out.rows(of_queries, queries)?,
            k: k.rows(of_keys, keys)?,
            v: v.rows(of_keys, keys)?,
            scores: scores.clone(),
        })?;
        piece.scores(precision)?;
        if softcap.is_some() || alibi.is_some() {
            let factor = alibi.and_then(|(_, factor)| factor);
            table::ShapeScores {
                scores: &scores,
                slopes: slopes.as_ref(),
                count: heads * queries * keys,
                queries,
                keys,
                first_key,
                scale,
                cap: softcap.unwrap_or(0.0),
                rounded: usize::from(factor.is_some()),
                factor: factor.unwrap_or(1.0),
            }
            .launch()?;
        }
        table::Softmax {
            rows: heads * queries,
            scores: &scores,
            sinks,
            queries,
            keys,
            first_query: first,
            first_key,
            window,
            chunk: chunk_size,
            scale: if softcap.is_some() || alibi.is_some() { 1.0 } else { scale },
        }
        .launch()?;
        piece.outputs(precision)?;
    }
    Ok(out)
}

pub(super) fn delta_rule(q: &Array, k: &Array, v: &Array, net: &DeltaNet) -> Result<Array> {
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

pub(super) fn short_conv(x: &Array, weight: &Array, op: &ShortConv) -> Result<Array> {
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

pub(super) fn rotate(x: &Array, cos: &Array, sin: &Array, pairs: Pairs) -> Result<()> {
    let [_, positions, heads, head_dim] = *x.dims() else { fault!("expected four dimensions") };
    let half = cos.dims2().1;
    let (step, apart) = match pairs {
        Pairs::Halves => (1, half),
        Pairs::Adjacent => (2, 1),
    };
    let count = x.len() / head_dim * half;
    table::Rotate { x, cosines: cos, sines: sin, count, positions, heads, head_dim, half, step, apart }.launch()
}

pub(super) fn add(residual: &Array, x: &Array) -> Result<()> {
    table::Add { to: residual, x, count: x.len() }.launch()
}

pub(super) fn causal_conv(x: &Array, weight: &Array, bias: Option<&Array>, op: CausalConv) -> Result<Array> {
    let CausalConv { positions, silu } = op;
    let (_, channels) = x.dims2();
    let (out, kernel) = (x.uninit_like()?, weight.len() / channels.max(1));
    let (count, silu) = (out.len(), usize::from(silu));
    table::CausalConv { out: &out, x, taps: weight, bias, count, positions, channels, kernel, silu }.launch()?;
    Ok(out)
}

/// `per_head` are the biases of the time steps, the logarithms of the decay rates, and the factors
/// of x in the output.
pub(super) fn selective_scan(mixed: &Array, steps: &Array, per_head: [&Array; 3], op: &Scan) -> Result<Array> {
    let Scan { positions, heads, head_dim, groups, state, min_step } = *op;
    if state > 256 || head_dim > 1024 {
        let sizes = format!(
            "{head_dim} channels with states of {state} are more than the 1024 with 256 that GPUs compute here"
        );
        return Err(Error::unsupported(sizes).hint("device: \"cpu\" has no such limit"));
    }
    let (rows, _) = mixed.dims2();
    let blocks = rows / positions * heads;
    let out = Array::new(mixed.context(), &[rows, heads * head_dim], Element::F32)?;
    let [dt_bias, a_log, d] = per_head;
    table::SelectiveScan {
        blocks,
        out: &out,
        mixed,
        steps,
        dt_bias,
        a_log,
        d,
        heads,
        groups,
        positions,
        head_dim,
        state,
        min_step,
    }
    .launch()?;
    Ok(out)
}

pub(super) fn multiply(x: &Array, y: &Array) -> Result<()> {
    table::Multiply { x, y, count: x.len() }.launch()
}

pub(super) fn scale(x: &Array, factor: f32) -> Result<()> {
    table::Scale { x, count: x.len(), factor }.launch()
}

pub(super) fn scale_rows(x: &Array, factors: &[f32]) -> Result<()> {
    let ((_, size), repeat) = (x.dims2(), factors.len());
    let factors = &Array::uploaded(x.context(), bytemuck::cast_slice(factors), &[repeat], Element::F32)?;
    table::ScaleRows { x, factors, count: x.len(), size, repeat }.launch()
}

pub(super) fn gate_halves(activation: Activation, x: &Array) -> Result<Array> {
    let (_, both) = x.dims2();
    let half = |first| Tensor::Cuda(x.clone()).columns(first, both / 2);
    let (gates, up) = (half(0)?, half(both / 2)?);
    gate(activation, gates.cuda()?, up.cuda()?)?;
    up.cuda().cloned()
}

/// The factor in `quick_gelu`.
const QUICK: f32 = 1.702;

/// The number of an activation in the kernels.
fn kernel_code(activation: Activation) -> Result<usize> {
    Ok(match activation {
        Activation::Silu => 0,
        Activation::Relu => 1,
        Activation::GeluTanh => 2,
        Activation::GeluErf => 3,
        Activation::GeluClipped => 4,
        Activation::Relu6 => 5,
        Activation::LeakyRelu => 6,
        Activation::Mish => 7,
        Activation::Laplace => 8,
        Activation::Sigmoid => 9,
        Activation::Tanh => 10,
        Activation::HardSwish => 11,
        Activation::SqrtSoftplus => 12,
        Activation::Linear => 13,
        _ => fault!("{activation:?} has no number among the kernels"),
    })
}

pub(super) fn activate(activation: Activation, x: &Array) -> Result<()> {
    match activation {
        // relu(x)^2 is relu(x) * x.
        Activation::ReluSquared => return gate(Activation::Relu, x, x),
        // x * sigmoid(a x) is silu(a x) / a.
        Activation::GeluQuick => {
            scale(x, QUICK)?;
            activate(Activation::Silu, x)?;
            return scale(x, QUICK.recip());
        }
        Activation::XIelu { alpha_p, alpha_n, beta, eps } => {
            return table::XIelu { x, gates: None, count: x.len(), alpha_p, alpha_n, beta, eps }.launch();
        }
        _ => (),
    }
    table::Activate { x, count: x.len(), kind: kernel_code(activation)? }.launch()
}

pub(super) fn gate(activation: Activation, gate: &Array, x: &Array) -> Result<()> {
    match activation {
        Activation::ReluSquared => {
            self::gate(Activation::Relu, gate, x)?;
            return self::gate(Activation::Relu, gate, x);
        }
        Activation::GeluQuick => {
            scale(gate, QUICK)?;
            self::gate(Activation::Silu, gate, x)?;
            scale(gate, QUICK.recip())?;
            return scale(x, QUICK.recip());
        }
        Activation::XIelu { alpha_p, alpha_n, beta, eps } => {
            return table::XIelu { x, gates: Some(gate), count: x.len(), alpha_p, alpha_n, beta, eps }.launch();
        }
        _ => (),
    }
    table::Gate { x, gates: gate, count: x.len(), kind: kernel_code(activation)? }.launch()
}

pub(super) fn sigmoid_gate(x: &Array, gate: &Array) -> Result<()> {
    let per_gate = x.len() / gate.len().max(1);
    table::SigmoidGate { x, gates: gate, count: x.len(), per_gate }.launch()
}

pub(super) fn interleaved_swiglu(x: &Array, limit: f32) -> Result<Array> {
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") /= 2;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    table::InterleavedSwiglu { out: &out, x, count: out.len(), limit }.launch()?;
    Ok(out)
}
