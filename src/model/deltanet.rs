//! Gated DeltaNet, the linear attention of Qwen3-Next: a short convolution, then a state per head that decays and is
//! corrected at every token. Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks".
//!
//! The state runs over chunks of positions: within a chunk everything is a product of matrices, only from chunk to chunk
//! is the order sequential (the WY form of Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule").

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::attention::Batch;
use super::linear::{linear, norm, weight};
use super::ops::{self, ShortConv, Source};
use super::reader::Weights;
use super::spec::{Activation, DeltaNet};

/// Positions per chunk (the reference's `chunk_size`).
const CHUNK: usize = 64;
/// Above this ln(1 + exp(x)) is x in f32 (the reference's `softplus`).
const SOFTPLUS_LINEAR: f32 = 20.0;

/// `x` [sequences * positions, hidden] to the same shape.
pub fn delta_net(spec: &DeltaNet, weights: &Weights, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (s, t, heads) = (batch.sequences, batch.positions, spec.value_heads);
    // [rows, key_heads * (q | k | v of the group | z of the group)]
    let projected = linear(&spec.in_qkvz, weights, x)?;
    let ba = linear(&spec.in_ba, weights, x)?.flatten_all()?.to_vec1::<f32>()?;
    let numbers = |name: &str| weight(weights, name)?.to_vec1::<f32>();
    let gates = Gates::new(spec, &ba, &numbers(&spec.a_log.name)?, &numbers(&spec.dt_bias.name)?, t);
    let log_decay = Tensor::from_vec(gates.log_decay, (s * heads, t), x.device())?;
    let beta = Tensor::from_vec(gates.beta, (s * heads, t, 1), x.device())?;
    let conv = weight(weights, &spec.conv.name)?;
    let part = |part| -> Result<Tensor> {
        let op = short_conv(spec, part, t);
        ops::short_conv(&projected, conv, &op)?.reshape((s * heads, t, op.width))
    };
    let (q, k, v) = (part(Part::Query)?, part(Part::Key)?, part(Part::Value)?);
    let y = all_heads(&q, &k, &v, &log_decay, &beta)?;
    drop((q, k, v));
    // [rows, heads, value_dim]
    let y = y.reshape((s, heads, t, spec.value_dim))?.transpose(1, 2)?.contiguous()?;
    let y = norm(&spec.norm, weights, &y)?.reshape((s * t, heads * spec.value_dim))?;
    let (begin, width) = (2 * spec.key_dim + spec.group() * spec.value_dim, spec.group() * spec.value_dim);
    let z = projected.reshape((s * t, spec.key_heads, begin + width))?.narrow(2, begin, width)?.contiguous()?;
    let y = ops::gated(Activation::Silu, &z.reshape(y.shape())?, &y)?;
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
                sum = if t % CHUNK == 0 { decay } else { sum + decay };
                log_decay.push(sum);
            }
        }
        Self { log_decay, beta }
    }
}

fn softplus(x: f32) -> f32 {
    if x > SOFTPLUS_LINEAR { x } else { x.exp().ln_1p() }
}

/// `delta_rule` for every head by itself, on all cores: the products are too small to be split further.
fn all_heads(q: &Tensor, k: &Tensor, v: &Tensor, log_decay: &Tensor, beta: &Tensor) -> Result<Tensor> {
    let out = Tensor::zeros(v.shape(), DType::F32, v.device())?;
    (0..v.dim(0)?).into_par_iter().try_for_each(|head| {
        let of = |x: &Tensor| x.narrow(0, head, 1);
        delta_rule(&of(q)?, &of(k)?, &of(v)?, &of(log_decay)?, &of(beta)?, &of(&out)?)
    })?;
    Ok(out)
}

/// `q`, `k` [heads, positions, key_dim], `v` and `out` [heads, positions, value_dim], `log_decay` [heads, positions] as
/// in `Gates`, `beta` [heads, positions, 1]; all f32.
fn delta_rule(q: &Tensor, k: &Tensor, v: &Tensor, log_decay: &Tensor, beta: &Tensor, out: &Tensor) -> Result<()> {
    let (_, positions, dv) = v.dims3()?;
    let dk = q.dim(2)?;
    // What the chunks so far have left, [heads, key_dim, value_dim].
    let mut state: Option<Tensor> = None;
    for first in (0..positions).step_by(CHUNK) {
        let length = CHUNK.min(positions - first);
        let of = |x: &Tensor| x.narrow(1, first, length)?.contiguous();
        let (q, k, v, beta, log) = (of(q)?, of(k)?, of(v)?, of(beta)?, of(log_decay)?);
        let between = ops::pairwise_decay(&log)?;
        let log = log.unsqueeze(2)?;
        let since_start = log.exp()?;
        let until_end = log.narrow(1, length - 1, 1)?.broadcast_sub(&log)?.exp()?;
        // Each correction takes off what those before it in the chunk have added: a triangular system, solved for the
        // new values and for the keys that read the old state. [heads, length, value_dim + key_dim]
        let k_beta = k.broadcast_mul(&beta)?;
        let system = (k_beta.matmul(&k.t()?)? * &between)?;
        let corrections = Tensor::cat(&[v.broadcast_mul(&beta)?, k_beta.broadcast_mul(&since_start)?], 2)?;
        ops::solve_unit_lower(&system, &corrections)?;
        let mut values = corrections.narrow(2, 0, dv)?.contiguous()?;
        if let Some(state) = &state {
            let read = corrections.narrow(2, dv, dk)?.contiguous()?;
            values = (values - read.matmul(state)?)?;
        }
        let scores = (q.matmul(&k.t()?)? * &between)?;
        let mut y = scores.matmul(&values)?;
        if let Some(state) = &state {
            y = (y + q.broadcast_mul(&since_start)?.matmul(state)?)?;
        }
        out.slice_set(&y, 1, first)?;
        let added = k.broadcast_mul(&until_end)?.t()?.matmul(&values)?;
        state = Some(match state {
            Some(state) => (state.broadcast_mul(&since_start.narrow(1, length - 1, 1)?)? + added)?,
            None => added,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::{Rng, SeedableRng};

    use super::*;

    const HEADS: usize = 3;
    const POSITIONS: usize = 2 * CHUNK + 17;
    const KEY_DIM: usize = 8;
    const VALUE_DIM: usize = 5;

    fn random(rng: &mut impl Rng, count: usize, low: f32, high: f32) -> Vec<f32> {
        (0..count).map(|_| rng.random_range(low..high)).collect()
    }

    /// The definition: S = exp(g) S; S += k (beta (v - S^T k))^T; y = S^T q.
    fn token_by_token(q: &[f32], k: &[f32], v: &[f32], decay: &[f32], beta: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        for head in 0..HEADS {
            let mut state = [[0f64; VALUE_DIM]; KEY_DIM];
            for row in head * POSITIONS..(head + 1) * POSITIONS {
                let (q, k) = (&q[row * KEY_DIM..][..KEY_DIM], &k[row * KEY_DIM..][..KEY_DIM]);
                for i in 0..VALUE_DIM {
                    state.iter_mut().for_each(|state| state[i] *= (decay[row] as f64).exp());
                    let memory: f64 = state.iter().zip(k).map(|(state, k)| state[i] * *k as f64).sum();
                    let delta = beta[row] as f64 * (v[row * VALUE_DIM + i] as f64 - memory);
                    state.iter_mut().zip(k).for_each(|(state, k)| state[i] += *k as f64 * delta);
                    out.push(state.iter().zip(q).map(|(state, q)| state[i] * *q as f64).sum::<f64>() as f32);
                }
            }
        }
        out
    }

    #[test]
    fn chunks_equal_the_recurrence_token_by_token() {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let rows = HEADS * POSITIONS;
        let (q, k) = (random(rng, rows * KEY_DIM, -0.5, 0.5), random(rng, rows * KEY_DIM, -0.5, 0.5));
        let v = random(rng, rows * VALUE_DIM, -1.0, 1.0);
        // Some heads forget at once, some hardly ever.
        let decay: Vec<f32> =
            (0..rows).map(|row| -[0.001, 0.3, 8.0][row / POSITIONS] * rng.random_range(0.1..1.0f32)).collect();
        let beta = random(rng, rows, 0.0, 1.0);
        let mut log_decay = decay.clone();
        for row in (0..rows).filter(|row| !(row % POSITIONS).is_multiple_of(CHUNK)) {
            log_decay[row] += log_decay[row - 1];
        }
        let tensor = |x: &[f32], width| Tensor::from_slice(x, (HEADS, POSITIONS, width), &Device::Cpu).unwrap();
        let log_decay = Tensor::from_slice(&log_decay, (HEADS, POSITIONS), &Device::Cpu).unwrap();
        let y = all_heads(
            &tensor(&q, KEY_DIM),
            &tensor(&k, KEY_DIM),
            &tensor(&v, VALUE_DIM),
            &log_decay,
            &tensor(&beta, 1),
        );
        let y = y.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = token_by_token(&q, &k, &v, &decay, &beta);
        let worst = y.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-5, "largest difference {worst}");
    }
}
