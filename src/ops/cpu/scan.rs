//! The selective scan of Mamba-2, one head of one sequence at a time, and the causal convolution
//! before it. Both are f32.

use rayon::prelude::*;

use crate::ops::operands::{CausalConv, Scan};
use crate::vector::{exp, sum, vectorised};

/// `x` [sequences * positions, channels], `weight` [channels, kernel], `bias` [channels], to the
/// shape of `x`.
pub(crate) fn causal_conv(
    op: CausalConv,
    x: &[f32],
    channels: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let kernel = weight.len() / channels;
    // [kernel, channels]; the last tap multiplies the position itself
    let taps: Vec<f32> = (0..kernel).flat_map(|j| weight.iter().skip(j).step_by(kernel)).copied().collect();
    let mut out = vec![0f32; x.len()];
    out.par_chunks_exact_mut(channels).enumerate().for_each(|(row, out)| {
        if let Some(bias) = bias {
            out.copy_from_slice(bias);
        }
        let seen = row % op.positions + 1;
        vectorised!(|| {
            for (back, taps) in taps.chunks_exact(channels).rev().enumerate().take(seen) {
                let x = &x[(row - back) * channels..][..channels];
                out.iter_mut().zip(x).zip(taps).for_each(|((out, x), tap)| *out += tap * x);
            }
            if op.silu {
                out.iter_mut().for_each(|y| *y /= 1.0 + exp(-*y));
            }
        });
    });
    out
}

/// The parameters of each head, [heads] each.
pub(crate) struct PerHead {
    pub dt_bias: Vec<f32>,
    pub a_log: Vec<f32>,
    pub d: Vec<f32>,
}

/// `mixed` [rows, heads * head_dim + 2 * groups * state] holds x, B and C, `steps` [rows, heads];
/// to [rows, heads * head_dim].
///
/// S = exp(dt A) S + dt x B^T, y = S C + D x, with A = -exp(a_log) and dt = softplus(step + bias).
pub(crate) fn selective_scan(op: &Scan, mixed: &[f32], steps: &[f32], of: &PerHead) -> Vec<f32> {
    let Scan { positions, heads, head_dim, groups, state, min_step } = *op;
    let (inner, rows) = (heads * head_dim, steps.len() / heads);
    let columns = inner + 2 * groups * state;
    let sequences = rows / positions;
    // [sequences, heads, positions, head_dim]: each task has its own piece.
    let mut by_head = vec![0f32; rows * inner];
    by_head.par_chunks_exact_mut(positions * head_dim).enumerate().for_each(|(task, out)| {
        let (sequence, head) = (task / heads, task % heads);
        let group = head / (heads / groups);
        let rate = -of.a_log[head].exp();
        let mut memory = vec![0f32; head_dim * state];
        for (t, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let row = sequence * positions + t;
            let mixed = &mixed[row * columns..][..columns];
            let x = &mixed[head * head_dim..][..head_dim];
            let b = &mixed[inner + group * state..][..state];
            let c = &mixed[inner + (groups + group) * state..][..state];
            let step = softplus(steps[row * heads + head] + of.dt_bias[head]).max(min_step);
            let decay = (step * rate).exp();
            vectorised!(|| {
                for ((memory, x), out) in memory.chunks_exact_mut(state).zip(x).zip(out.iter_mut()) {
                    let added = step * x;
                    memory.iter_mut().zip(b).for_each(|(s, b)| *s = decay * *s + added * b);
                    *out = dot(memory, c) + of.d[head] * x;
                }
            });
        }
    });
    let mut out = vec![0f32; rows * inner];
    out.par_chunks_exact_mut(inner).enumerate().for_each(|(row, out)| {
        let (sequence, t) = (row / positions, row % positions);
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&by_head[((sequence * heads + head) * positions + t) * head_dim..][..head_dim]);
        }
    });
    debug_assert_eq!(sequences * positions, rows);
    out
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (whole_a, rest_a) = a.as_chunks::<8>();
    let (whole_b, rest_b) = b.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for (a, b) in whole_a.iter().zip(whole_b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    sum(&lanes, |x| x) + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

fn softplus(x: f32) -> f32 {
    // Above 20 this equals x in f32, as in the reference.
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_decays_and_begins_anew_with_each_sequence() {
        let op = Scan { positions: 2, heads: 1, head_dim: 1, groups: 1, state: 1, min_step: 0.0 };
        // Two sequences with x, B and C at each position.
        let mixed = [1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        let steps = [0.0f32; 4];
        let of = PerHead { dt_bias: vec![0.0], a_log: vec![0.0], d: vec![0.5] };
        let (dt, y) = (2f32.ln(), selective_scan(&op, &mixed, &steps, &of));
        let decay = (-dt).exp();
        let first = dt * 2.0;
        let expected = [first * 3.0 + 0.5, decay * first + dt * 4.0 + 2.0, dt + 0.5, decay * dt];
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?} {expected:?}");
    }

    #[test]
    fn taps_look_back_within_the_sequence() {
        let op = CausalConv { positions: 2, silu: false };
        let y = causal_conv(op, &[1.0, 2.0, 10.0, 20.0], 1, &[0.5, 1.0], Some(&[100.0]));
        assert_eq!(y, [101.0, 102.5, 110.0, 125.0]);
    }
}
