//! The gated delta rule in chunks of positions. Within a chunk everything is a matrix product, and
//! only the chunks are sequential (the WY form of Yang et al. 2024, "Parallelizing Linear
//! Transformers with the Delta Rule"). A task computes one head of one sequence in f32.

use std::cell::Cell;

use rayon::prelude::*;

use super::gates::Gates;
use crate::gemm::{Dst, Kind, Lhs, Rhs, Scratch, Shared, Values, gemm_on_this_thread};
use crate::vector::{exp, vectorised};
use crate::vocabulary::Order;

pub(crate) use super::gates::CHUNK;

/// Sizes of the operands of a delta rule.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Number of heads in a sequence.
    pub heads: usize,
    pub positions: usize,
    pub key_dim: usize,
    pub value_dim: usize,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// One head of one sequence.
struct Head<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    log_decay: &'a [f32],
    beta: &'a [f32],
    key_dim: usize,
    value_dim: usize,
}

/// y = x · w on this thread. `x` has rows of `columns` values that are `stride` apart.
fn matmul(
    x: &[f32],
    (rows, columns, stride): (usize, usize, usize),
    w: &[f32],
    (order, out): (Order, usize),
    y: &mut [f32],
) {
    let x = Lhs { values: x, stride, rows, columns, indices: None };
    let row = if order == Order::OutIn { columns } else { out };
    let w = Rhs { values: Values::F32(w), stride: row, order, input: columns, out };
    gemm_on_this_thread(Kind::best(false), &x, &w, Dst { values: y, stride: out });
}

/// Splits the first `count` values off a buffer.
fn split_front<'a>(rest: &mut &'a mut [f32], count: usize) -> &'a mut [f32] {
    let (front, after) = std::mem::take(rest).split_at_mut(count);
    *rest = after;
    front
}

impl Head<'_> {
    /// Calls `emit` for every position with its output [value_dim].
    fn run(&self, scratch: &mut Scratch, mut emit: impl FnMut(usize, &[f32])) {
        let (dk, dv) = (self.key_dim, self.value_dim);
        let both = dv + dk;
        let size = 2 * dk * dv + CHUNK * (3 * CHUNK + 3 * dk + 4 * dv + both);
        let mut rest = scratch.reserve(size);
        let rest = &mut rest;
        let (state, added) = (split_front(rest, dk * dv), split_front(rest, dk * dv));
        let (pairwise_decay, system, scores) =
            (split_front(rest, CHUNK * CHUNK), split_front(rest, CHUNK * CHUNK), split_front(rest, CHUNK * CHUNK));
        let (k_beta, q_decayed, k_transposed) =
            (split_front(rest, CHUNK * dk), split_front(rest, CHUNK * dk), split_front(rest, CHUNK * dk));
        let (corrections, values, read) =
            (split_front(rest, CHUNK * both), split_front(rest, CHUNK * dv), split_front(rest, CHUNK * dv));
        let (y, old) = (split_front(rest, CHUNK * dv), split_front(rest, CHUNK * dv));
        state.fill(0.0);
        for first in (0..self.log_decay.len()).step_by(CHUNK) {
            let length = CHUNK.min(self.log_decay.len() - first);
            let (q, k) = (&self.q[first * dk..][..length * dk], &self.k[first * dk..][..length * dk]);
            let v = &self.v[first * dv..][..length * dv];
            let (log, beta) = (&self.log_decay[first..][..length], &self.beta[first..][..length]);
            let last = log[length - 1];
            // Each correction subtracts the contributions of earlier positions in the chunk. This
            // is a triangular system, solved for the new values and for the keys that read the old
            // state.
            vectorised!(|| {
                for i in 0..length {
                    let since_start = exp(log[i]);
                    let until_end = exp(last - log[i]);
                    let row = &mut corrections[i * both..][..both];
                    let (row_v, row_k) = row.split_at_mut(dv);
                    row_v.iter_mut().zip(&v[i * dv..][..dv]).for_each(|(to, v)| *to = v * beta[i]);
                    for d in 0..dk {
                        let (q, k) = (q[i * dk + d], k[i * dk + d]);
                        k_beta[i * dk + d] = k * beta[i];
                        row_k[d] = k * beta[i] * since_start;
                        q_decayed[i * dk + d] = q * since_start;
                        k_transposed[d * length + i] = k * until_end;
                    }
                    for j in 0..=i {
                        pairwise_decay[i * length + j] = exp(log[i] - log[j]);
                    }
                }
            });
            matmul(k_beta, (length, dk, dk), k, (Order::OutIn, length), system);
            matmul(q, (length, dk, dk), k, (Order::OutIn, length), scores);
            vectorised!(|| {
                for i in 0..length {
                    let (row, decay) = (i * length, &pairwise_decay[i * length..][..=i]);
                    system[row..][..=i].iter_mut().zip(decay).for_each(|(to, decay)| *to *= decay);
                    scores[row..][..=i].iter_mut().zip(decay).for_each(|(to, decay)| *to *= decay);
                    scores[row + i + 1..row + length].fill(0.0);
                }
                solve_unit_lower(system, corrections, length, both);
            });
            matmul(&corrections[dv..], (length, dk, both), state, (Order::InOut, dv), read);
            matmul(q_decayed, (length, dk, dk), state, (Order::InOut, dv), old);
            vectorised!(|| {
                for i in 0..length {
                    let corrected = corrections[i * both..].iter().zip(&read[i * dv..][..dv]);
                    values[i * dv..][..dv].iter_mut().zip(corrected).for_each(|(to, (new, read))| *to = new - read);
                }
            });
            matmul(scores, (length, length, length), values, (Order::InOut, dv), y);
            vectorised!(|| y.iter_mut().zip(old.iter()).for_each(|(y, old)| *y += old));
            for (i, y) in y.chunks_exact(dv).enumerate().take(length) {
                emit(first + i, y);
            }
            matmul(k_transposed, (dk, length, length), values, (Order::InOut, dv), added);
            let kept = exp(last);
            vectorised!(|| state
                .iter_mut()
                .zip(added.iter())
                .for_each(|(state, added)| *state = *state * kept + added));
        }
    }
}

/// Solves (1 + L) y = `rhs` in place, where L is the strictly lower triangle of `system` [length,
/// length] and `rhs` is [length, width].
#[inline(always)]
fn solve_unit_lower(system: &[f32], rhs: &mut [f32], length: usize, width: usize) {
    for i in 1..length {
        let (solved, rest) = rhs.split_at_mut(i * width);
        let row = &mut rest[..width];
        for (factor, solved) in system[i * length..][..i].iter().zip(solved.chunks_exact(width)) {
            row.iter_mut().zip(solved).for_each(|(y, solved)| *y -= factor * solved);
        }
    }
}

/// `q`, `k` [sequences * heads, positions, key_dim], `v` [sequences * heads, positions, value_dim],
/// to [sequences * positions, heads, value_dim].
pub(crate) fn delta_rule(q: &[f32], k: &[f32], v: &[f32], sizes: Heads, gates: &Gates) -> Vec<f32> {
    let Heads { heads, positions, key_dim, value_dim } = sizes;
    let mut out = vec![0f32; v.len()];
    let to = Shared::of(&mut out);
    (0..v.len() / (positions * value_dim)).into_par_iter().with_max_len(1).for_each(|i| {
        let of = |x, width: usize| {
            let x: &[f32] = x;
            &x[i * positions * width..(i + 1) * positions * width]
        };
        let (log_decay, beta) = (of(&gates.log_decay, 1), of(&gates.beta, 1));
        let head =
            Head { q: of(q, key_dim), k: of(k, key_dim), v: of(v, value_dim), log_decay, beta, key_dim, value_dim };
        let mut scratch = SCRATCH.take();
        head.run(&mut scratch, |t, y| {
            let row = (i / heads * positions + t) * heads + i % heads;
            // SAFETY: a row belongs to one head of one sequence, and so to this task alone.
            let row = unsafe { to.part(row * value_dim, value_dim) };
            row.copy_from_slice(y);
        });
        SCRATCH.set(scratch);
    });
    out
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    const HEADS: usize = 3;
    const POSITIONS: usize = 2 * CHUNK + 17;
    const KEY_DIM: usize = 8;
    const VALUE_DIM: usize = 5;

    fn random(rng: &mut impl Rng, count: usize, low: f32, high: f32) -> Vec<f32> {
        (0..count).map(|_| rng.random_range(low..high)).collect()
    }

    /// The definition: S = exp(g) S; S += k (beta (v - S^T k))^T; y = S^T q; [positions, heads,
    /// value_dim].
    fn token_by_token(q: &[f32], k: &[f32], v: &[f32], decay: &[f32], beta: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; HEADS * POSITIONS * VALUE_DIM];
        for head in 0..HEADS {
            let mut state = [[0f64; VALUE_DIM]; KEY_DIM];
            for row in head * POSITIONS..(head + 1) * POSITIONS {
                let (q, k) = (&q[row * KEY_DIM..][..KEY_DIM], &k[row * KEY_DIM..][..KEY_DIM]);
                for i in 0..VALUE_DIM {
                    state.iter_mut().for_each(|state| state[i] *= (decay[row] as f64).exp());
                    let memory: f64 = state.iter().zip(k).map(|(state, k)| state[i] * *k as f64).sum();
                    let delta = beta[row] as f64 * (v[row * VALUE_DIM + i] as f64 - memory);
                    state.iter_mut().zip(k).for_each(|(state, k)| state[i] += *k as f64 * delta);
                    let y = state.iter().zip(q).map(|(state, q)| state[i] * *q as f64).sum::<f64>();
                    out[(row % POSITIONS * HEADS + head) * VALUE_DIM + i] = y as f32;
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
        // The heads forget slowly, faster, and at once.
        let decay: Vec<f32> =
            (0..rows).map(|row| -[0.001, 0.3, 8.0][row / POSITIONS] * rng.random_range(0.1..1.0f32)).collect();
        let beta = random(rng, rows, 0.0, 1.0);
        let mut log_decay = decay.clone();
        for row in (0..rows).filter(|row| !(row % POSITIONS).is_multiple_of(CHUNK)) {
            log_decay[row] += log_decay[row - 1];
        }
        let sizes = Heads { heads: HEADS, positions: POSITIONS, key_dim: KEY_DIM, value_dim: VALUE_DIM };
        let y = delta_rule(&q, &k, &v, sizes, &Gates { log_decay, beta: beta.clone() });
        let expected = token_by_token(&q, &k, &v, &decay, &beta);
        let worst = y.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-5, "largest difference {worst}");
    }
}
