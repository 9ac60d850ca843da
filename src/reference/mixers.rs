//! Token mixers of one sequence, position by position.

use super::arithmetic::{Array, Row, Rows, dot, linear, norm, normed, sigmoid, silu, softplus};
use crate::spec::{
    Attention, DeltaInputs, DeltaNet, Gate, GatedConv, HeadNorm, Latent, LatentQuery, Mamba2, Mixer, Norm, Qkv,
};
use crate::vocabulary::{NormKind, Pairs};

/// The number that is added to the sum of squares of queries and keys of a DeltaNet (transformers
/// `l2norm`).
const UNIT_EPS: f64 = 1e-6;

/// The keys and values of each token in each layer, with contiguous heads. They are empty for
/// layers without attention.
pub(super) type Kept = Vec<Vec<(Row, Row)>>;

/// The output of a mixer for input `x`. Earlier layers have added their keys and values to `kept`,
/// and this one adds its own.
pub(super) fn mix(mixer: &Mixer<Array>, x: &Rows, kept: &mut Kept) -> Rows {
    match mixer {
        Mixer::Attention(of) => attention(of, x, kept),
        Mixer::DeltaNet(of) => delta_net(of, x),
        Mixer::GatedConv(of) => gated_conv(of, x),
        Mixer::Mamba2(of) => mamba2(of, x),
    }
}

/// A token's queries, keys, values and gate, with contiguous heads.
struct Heads {
    q: Row,
    k: Row,
    v: Row,
    gate: Option<Row>,
}

fn attention(of: &Attention<Array>, x: &Rows, kept: &mut Kept) -> Rows {
    let Attention { heads, kv_heads, head_dim, value_dim, .. } = *of;
    let tables = of.rope.as_ref().map(|rope| (rope, rope.tables(x.len())));
    let tokens: Vec<Heads> = x
        .iter()
        .map(|x| projections(of, x))
        .enumerate()
        .map(|(t, mut token)| {
            let after = of.qk_norm.as_ref().is_some_and(|norms| norms.after_rope);
            let norms = |token: &mut Heads| {
                if let Some(norms) = &of.qk_norm {
                    token.q = head_norm(&norms.q, head_dim, &token.q);
                    token.k = norms.k.as_ref().map_or(token.k.clone(), |of| head_norm(of, head_dim, &token.k));
                }
            };
            if let Some(eps) = of.value_norm {
                let ones = vec![1.0; value_dim];
                token.v = token.v.chunks(value_dim).flat_map(|v| normed(NormKind::Rms, eps, &ones, None, v)).collect();
            }
            if !after {
                norms(&mut token);
            }
            if let Some(clip) = of.clip {
                let all = token.q.iter_mut().chain(&mut token.k).chain(&mut token.v);
                all.for_each(|value| *value = value.clamp(-clip, clip));
            }
            if let Some((rope, tables)) = &tables {
                let half = rope.dim / 2;
                let (cos, sin) = (&tables.cos[t * half..][..half], &tables.sin[t * half..][..half]);
                for head in token.q.chunks_mut(head_dim).chain(token.k.chunks_mut(head_dim)) {
                    for j in 0..half {
                        let (a, b) = if rope.pairs == Pairs::Halves { (j, j + half) } else { (2 * j, 2 * j + 1) };
                        let (cos, sin) = (f64::from(cos[j]), f64::from(sin[j]));
                        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
                    }
                }
            }
            if after {
                norms(&mut token);
            }
            if let Some(growth) = of.growth {
                let factor = 1.0 + growth.beta * (1.0 + ((t + growth.offset) as f64 / growth.original).floor()).ln();
                token.q.iter_mut().for_each(|q| *q *= factor);
            }
            if let Qkv::Borrowed { from, .. } = of.qkv {
                (token.k, token.v) = kept[from][t].clone();
            }
            token
        })
        .collect();
    kept.push(tokens.iter().map(|token| (token.k.clone(), token.v.clone())).collect());
    let out = |t: usize| {
        let mut out = Row::new();
        for head in 0..heads {
            let kv = head / (heads / kv_heads);
            let keys = of.span.first_key(t)..=t;
            let score = |key: usize| {
                let q = &tokens[t].q[head * head_dim..][..head_dim];
                let score = dot(q, &tokens[key].k[kv * head_dim..][..head_dim]) * of.scale;
                let capped = of.softcap.map_or(score, |cap| cap * (score / cap).tanh());
                capped
                    + of.alibi.as_ref().map_or(0.0, |alibi| {
                        let bias = alibi.slopes[head] * key as f32;
                        alibi.rounded.map_or(f64::from(bias), |f| half::bf16::from_f32(bias).to_f64() * f64::from(f))
                    })
            };
            let scores: Row = keys.clone().map(score).collect();
            let sink = of.sinks.as_ref().map(|sinks| sinks.values[head]);
            let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
            let weights: Row = scores.iter().map(|score| (score - max).exp()).collect();
            let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - max).exp());
            let value = |d: usize| {
                let v = keys.clone().map(|key| tokens[key].v[kv * value_dim + d]);
                v.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / sum
            };
            out.extend((0..value_dim).map(value));
        }
        if let Some(gate) = &tokens[t].gate {
            out.iter_mut().zip(gate).for_each(|(out, gate)| *out *= sigmoid(*gate));
        }
        linear(&of.out, &out)
    };
    (0..x.len()).map(out).collect()
}

fn projections(of: &Attention<Array>, x: &[f64]) -> Heads {
    let Attention { heads, kv_heads, head_dim, .. } = *of;
    let (q_size, kv_size) = (heads * head_dim, kv_heads * head_dim);
    let (q, k, v) = match &of.qkv {
        Qkv::Separate { q, k, v } => (linear(q, x), linear(k, x), linear(v, x)),
        Qkv::Borrowed { q, .. } => (linear(q, x), Row::new(), Row::new()),
        Qkv::KeyIsValue { q, k } => (linear(q, x), linear(k, x), linear(k, x)),
        Qkv::Fused(all) => {
            let all = linear(all, x);
            let (q, rest) = all.split_at(q_size);
            (q.to_vec(), rest[..kv_size].to_vec(), rest[kv_size..].to_vec())
        }
        Qkv::Grouped(all) => {
            let (mut q, mut k, mut v) = (Row::new(), Row::new(), Row::new());
            for group in linear(all, x).chunks(q_size / kv_heads + 2 * head_dim) {
                let (queries, rest) = group.split_at(q_size / kv_heads);
                q.extend(queries);
                k.extend(&rest[..head_dim]);
                v.extend(&rest[head_dim..]);
            }
            (q, k, v)
        }
        Qkv::Latent(of_latent) => latent(of, of_latent, x),
    };
    match &of.gate {
        None => Heads { q, k, v, gate: None },
        Some(Gate::Own(gate)) => Heads { q, k, v, gate: Some(linear(gate, x)) },
        Some(Gate::InQuery) => {
            let part = |skip| q.chunks(2 * head_dim).flat_map(|head| head[skip..skip + head_dim].to_vec()).collect();
            let (q, gate) = (part(0), part(head_dim));
            Heads { q, k, v, gate: Some(gate) }
        }
    }
}

/// The rotated part of a head comes first.
fn latent(of: &Attention<Array>, latent: &Latent<Array>, x: &[f64]) -> (Row, Row, Row) {
    let q = match &latent.query {
        LatentQuery::Direct(q) => linear(q, x),
        LatentQuery::Low { down, norm: of, up } => linear(up, &norm(of, &linear(down, x))),
    };
    let turned = |head: &[f64]| [&head[latent.nope_dim..], &head[..latent.nope_dim]].concat();
    let q = q.chunks(of.head_dim).flat_map(turned).collect();
    let down = linear(&latent.kv_down, x);
    let (low, turning) = down.split_at(down.len() - (of.head_dim - latent.nope_dim));
    let (mut k, mut v) = (Row::new(), Row::new());
    for head in linear(&latent.kv_up, &norm(&latent.kv_norm, low)).chunks(latent.nope_dim + of.value_dim) {
        k.extend(turning);
        k.extend(&head[..latent.nope_dim]);
        v.extend(&head[latent.nope_dim..]);
    }
    (q, k, v)
}

fn head_norm(of: &HeadNorm<Array>, head_dim: usize, x: &Row) -> Row {
    let heads = x.chunks(head_dim).enumerate();
    match of {
        HeadNorm::Unweighted { eps } => {
            let ones = vec![1.0; head_dim];
            x.chunks(head_dim).flat_map(|x| normed(NormKind::Rms, *eps, &ones, None, x)).collect()
        }
        HeadNorm::Together(of) => norm(of, x),
        HeadNorm::Own(each) => heads.flat_map(|(h, x)| norm(&each[h], x)).collect(),
        HeadNorm::Each(of) => {
            let Norm { kind, weight, bias, eps } = of;
            let of_head = |values: &'_ [f64], h: usize| {
                let weights = values.len() / head_dim;
                values[h % weights * head_dim..][..head_dim].to_vec()
            };
            let one = |(h, x): (usize, &[f64])| {
                let bias = bias.as_ref().map(|bias| of_head(&bias.values, h));
                normed(*kind, *eps, &of_head(&weight.values, h), bias.as_deref(), x)
            };
            heads.flat_map(one).collect()
        }
    }
}

/// A depthwise causal convolution of channel sequences, weight [channels, 1, kernel].
fn convolved(x: &Rows, weight: &Array, bias: Option<&Array>) -> Rows {
    let kernel = weight.values.len() / x[0].len();
    let at = |t: usize, c: usize| {
        let taps = (0..kernel.min(t + 1)).map(|back| weight.values[c * kernel + kernel - 1 - back] * x[t - back][c]);
        taps.sum::<f64>() + bias.map_or(0.0, |bias| bias.values[c])
    };
    (0..x.len()).map(|t| (0..x[t].len()).map(|c| at(t, c)).collect()).collect()
}

fn delta_net(of: &DeltaNet<Array>, x: &Rows) -> Rows {
    let DeltaNet { key_heads, value_heads, key_dim, value_dim, .. } = *of;
    let group = value_heads / key_heads;
    // The channels are all q, all k and all v. Then follow z, b and a by value head.
    let inputs = |x: &Row| match &of.inputs {
        DeltaInputs::Separate { qkv, z, b, a } => [linear(qkv, x), linear(z, x), linear(b, x), linear(a, x)],
        DeltaInputs::Grouped { qkvz, ba } => {
            let (mut q, mut k, mut v, mut z) = (Row::new(), Row::new(), Row::new(), Row::new());
            for g in linear(qkvz, x).chunks(2 * key_dim + 2 * group * value_dim) {
                q.extend(&g[..key_dim]);
                k.extend(&g[key_dim..2 * key_dim]);
                v.extend(&g[2 * key_dim..2 * key_dim + group * value_dim]);
                z.extend(&g[2 * key_dim + group * value_dim..]);
            }
            let ba = linear(ba, x);
            let part = |skip| ba.chunks(2 * group).flat_map(|g| g[skip..skip + group].to_vec()).collect();
            [[q, k, v].concat(), z, part(0), part(group)]
        }
    };
    let tokens: Vec<[Row; 4]> = x.iter().map(inputs).collect();
    let channels: Rows = tokens.iter().map(|token| token[0].clone()).collect();
    let mut channels = convolved(&channels, &of.conv, None);
    channels.iter_mut().flatten().for_each(|c| *c = silu(*c));
    let mut states = vec![vec![vec![0.0; value_dim]; key_dim]; value_heads];
    let mut out = Rows::new();
    for (channels, [_, z, b, a]) in channels.iter().zip(&tokens) {
        let mut y = Row::new();
        for (head, state) in states.iter_mut().enumerate() {
            let unit = |first: usize| {
                let x = &channels[first + head / group * key_dim..][..key_dim];
                let length = (dot(x, x) + UNIT_EPS).sqrt();
                x.iter().map(|x| x / length).collect::<Row>()
            };
            let (q, k) = (unit(0), unit(key_heads * key_dim));
            let v = &channels[2 * key_heads * key_dim + head * value_dim..][..value_dim];
            let decay = (-of.a_log.values[head].exp() * softplus(a[head] + of.dt_bias.values[head])).exp();
            state.iter_mut().flatten().for_each(|s| *s *= decay);
            let recalled = |d: usize| state.iter().zip(&k).map(|(row, k)| row[d] * k).sum::<f64>();
            let delta: Row = (0..value_dim).map(|d| sigmoid(b[head]) * (v[d] - recalled(d))).collect();
            for (row, k) in state.iter_mut().zip(&k) {
                row.iter_mut().zip(&delta).for_each(|(s, delta)| *s += k * delta);
            }
            let scale = (key_dim as f64).powf(-0.5);
            let o: Row =
                (0..value_dim).map(|d| state.iter().zip(&q).map(|(row, q)| row[d] * q * scale).sum()).collect();
            let z = &z[head * value_dim..][..value_dim];
            y.extend(norm(&of.norm, &o).iter().zip(z).map(|(o, z)| o * silu(*z)));
        }
        out.push(linear(&of.out, &y));
    }
    out
}

fn gated_conv(of: &GatedConv<Array>, x: &Rows) -> Rows {
    let hidden = x[0].len();
    let parts: Rows = x.iter().map(|x| linear(&of.input, x)).collect();
    let read: Rows = parts.iter().map(|p| (0..hidden).map(|i| p[i] * p[2 * hidden + i]).collect()).collect();
    let mixed = convolved(&read, &of.conv, of.conv_bias.as_ref());
    let gated = |(y, p): (&Row, &Row)| -> Row { (0..hidden).map(|i| y[i] * p[hidden + i]).collect() };
    mixed.iter().zip(&parts).map(gated).map(|y| linear(&of.out, &y)).collect()
}

fn mamba2(of: &Mamba2<Array>, x: &Rows) -> Rows {
    let Mamba2 { heads, head_dim, groups, state, min_step, .. } = *of;
    let (inner, channels) = (heads * head_dim, heads * head_dim + 2 * groups * state);
    let parts: Rows = x.iter().map(|x| linear(&of.input, x)).collect();
    let mixed: Rows = parts.iter().map(|p| p[inner..inner + channels].to_vec()).collect();
    let mut mixed = convolved(&mixed, &of.conv, of.conv_bias.as_ref());
    mixed.iter_mut().flatten().for_each(|c| *c = silu(*c));
    let mut states = vec![vec![vec![0.0; state]; head_dim]; heads];
    let mut out = Rows::new();
    for (mixed, parts) in mixed.iter().zip(&parts) {
        let mut y = Row::new();
        for (head, memory) in states.iter_mut().enumerate() {
            let group = head / (heads / groups);
            let (b, c) =
                (&mixed[inner + group * state..][..state], &mixed[inner + (groups + group) * state..][..state]);
            let step = softplus(parts[inner + channels + head] + of.dt_bias.values[head]).max(min_step);
            let decay = (-of.a_log.values[head].exp() * step).exp();
            for (memory, x) in memory.iter_mut().zip(&mixed[head * head_dim..][..head_dim]) {
                memory.iter_mut().zip(b).for_each(|(s, b)| *s = decay * *s + step * x * b);
                y.push(dot(memory, c) + of.d.values[head] * x);
            }
        }
        y.iter_mut().zip(&parts[..inner]).for_each(|(y, gate)| *y *= silu(*gate));
        let size = inner / groups;
        let weights = of.norm.weight.values.chunks(size);
        let normed: Row =
            y.chunks(size).zip(weights).flat_map(|(y, w)| normed(NormKind::Rms, of.norm.eps, w, None, y)).collect();
        out.push(linear(&of.out, &normed));
    }
    out
}
