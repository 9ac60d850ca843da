//! Causal attention within sequences: scores, causal and sliding-window mask, optional sinks,
//! softmax, and the weighted sum of values. A task computes one chunk of queries for one key head.
//!
//! Keys and values are read from the outputs of the projections, once for all query heads of their
//! group. A chunk multiplies only with the keys that its queries attend to: those up to its last
//! query and, with a window, from its first query's window on.

use std::cell::Cell;

use half::bf16;
use rayon::prelude::*;

use super::received::Counts;
use crate::gemm::{Dst, Kind, Lhs, Rhs, Scratch, Shared, Values, gemm_on_this_thread};
use crate::memory;
use crate::ops::operands::{Attend, Received};
use crate::vector::{exp, sum, vectorised};
use crate::vocabulary::Order;

/// Rows of scores per chunk, for all heads of a group together. Chunks begin at fixed queries, so
/// that sums do not depend on the partition of the work.
const CHUNK_ROWS: usize = 96;
/// The smallest number of queries per chunk.
const MIN_QUERIES: usize = 16;

/// Number of queries per chunk for a group of this many heads.
pub(crate) fn chunk_queries(group: usize) -> usize {
    (CHUNK_ROWS / group).max(MIN_QUERIES)
}

/// `q` [rows, heads * head_dim], `k` and `v` [rows, kv_heads * head_dim], to the shape of `q`;
/// `sinks` [heads].
pub(crate) fn attend(q: &[f32], k: &[f32], v: &[f32], sinks: Option<&[f32]>, op: &Attend) -> Vec<f32> {
    Chunked { op, sinks, received: None }.run(q, k, v)
}

/// As `attend`, and adds up the attention that each position receives.
pub(crate) fn attend_and_count(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    sinks: Option<&[f32]>,
    op: &Attend,
    first: usize,
) -> (Vec<f32>, Received) {
    let sequences = q.len() / (op.heads * op.head_dim * op.positions);
    let counts = Counts::new(sequences, op.heads, op.positions, first);
    let out = Chunked { op, sinks, received: Some(&counts) }.run(q, k, v);
    (out, counts.finish())
}

thread_local! {
    static SCORES: Cell<[Scratch; 2]> = Cell::default();
}

/// One chunk: its sequence, its key head and its first query.
struct Task {
    sequence: usize,
    kv_head: usize,
    first: usize,
}

/// The attention with its sinks: one logit per head, which adds to the softmax's denominator and
/// has no value.
struct Chunked<'a> {
    op: &'a Attend<'a>,
    sinks: Option<&'a [f32]>,
    received: Option<&'a Counts>,
}

impl Chunked<'_> {
    fn run(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let (positions, queries) = (self.op.positions, chunk_queries(self.op.heads / self.op.kv_heads));
        let rows = q.len() / (self.op.heads * self.op.head_dim);
        let sequences = rows / positions;
        // The longest chunks come first.
        let chunks = (0..positions).step_by(queries).rev();
        let tasks: Vec<Task> = chunks
            .flat_map(|first| (0..sequences).map(move |sequence| (first, sequence)))
            .flat_map(|(first, sequence)| (0..self.op.kv_heads).map(move |kv_head| Task { sequence, kv_head, first }))
            .collect();
        let mut out: Vec<f32> = memory::uninit_vec(rows * self.op.heads * self.op.value_dim);
        let to = Shared::of(&mut out);
        tasks.into_par_iter().with_max_len(1).for_each(|task| {
            let mut buffers = SCORES.take();
            self.chunk(&task, queries, (q, k, v), to, &mut buffers);
            SCORES.set(buffers);
        });
        out
    }

    fn chunk(
        &self,
        task: &Task,
        queries: usize,
        (q, k, v): (&[f32], &[f32], &[f32]),
        to: Shared,
        buffers: &mut [Scratch; 2],
    ) {
        let Attend { heads, kv_heads, head_dim, value_dim, span, .. } = *self.op;
        let group = heads / kv_heads;
        let queries = queries.min(self.op.positions - task.first);
        let first_key = span.first_key(task.first);
        let keys = task.first + queries - first_key;
        let first_row = task.sequence * self.op.positions;
        // Rows of scores are ordered by head within the group, then by query. Each index is that of
        // a row in [tokens * heads, head_dim].
        let head_rows: Vec<u32> = (0..group)
            .flat_map(|head| (0..queries).map(move |query| (head, query)))
            .map(|(head, query)| ((first_row + task.first + query) * heads + task.kv_head * group + head) as u32)
            .collect();
        let of_head = |values, size| {
            let begin = (first_row + first_key) * kv_heads * size + task.kv_head * size;
            let values: &[f32] = values;
            Values::F32(&values[begin..])
        };
        let [scores, sums] = buffers;
        let scores = scores.reserve(head_rows.len() * keys);
        let kind = Kind::best(self.op.rounded);
        let rows =
            Lhs { values: q, stride: head_dim, rows: head_rows.len(), columns: head_dim, indices: Some(&head_rows) };
        let stride = kv_heads * head_dim;
        let w = Rhs { values: of_head(k, head_dim), stride, order: Order::OutIn, input: head_dim, out: keys };
        gemm_on_this_thread(kind, &rows, &w, Dst { values: scores, stride: keys });
        let mut scales = vec![0f32; head_rows.len()];
        for (row, (scores, factor)) in scores.chunks_exact_mut(keys).zip(&mut scales).enumerate() {
            let query = task.first + row % queries;
            let (begin, end) = (span.first_key(query) - first_key, query + 1 - first_key);
            let head = task.kv_head * group + row / queries;
            let sink = self.sinks.as_ref().map(|sinks| sinks[head]);
            let scale = match (self.op.softcap, self.op.alibi) {
                (None, None) => self.op.scale,
                _ => {
                    self.shape(&mut scores[begin..end], head, first_key + begin);
                    1.0
                }
            };
            *factor = vectorised!(|| softmax(scores, begin, end, scale, sink));
        }
        if let Some(counts) = self.received {
            let of_heads = scores.chunks_exact(queries * keys).zip(scales.chunks_exact(queries));
            for (head, (scores, factors)) in (task.kv_head * group..).zip(of_heads) {
                counts.add((task.sequence, head), (task.first, first_key), scores, factors);
            }
        }
        let rows = Lhs { values: scores, stride: keys, rows: head_rows.len(), columns: keys, indices: None };
        let stride = kv_heads * value_dim;
        let w = Rhs { values: of_head(v, value_dim), stride, order: Order::InOut, input: keys, out: value_dim };
        let sums = sums.reserve(head_rows.len() * value_dim);
        gemm_on_this_thread(kind, &rows, &w, Dst { values: sums, stride: value_dim });
        for ((row, sums), factor) in head_rows.iter().zip(sums.chunks_exact(value_dim)).zip(scales) {
            // SAFETY: a row belongs to one head of one query, and so to this task alone.
            let out = unsafe { to.part(*row as usize * value_dim, value_dim) };
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * factor);
        }
    }
}

impl Chunked<'_> {
    /// Scales the scores of one query of `head` with the keys from `first` on, applies the softcap,
    /// and adds the linear biases.
    fn shape(&self, scores: &mut [f32], head: usize, first: usize) {
        scores.iter_mut().for_each(|score| *score *= self.op.scale);
        if let Some(cap) = self.op.softcap {
            scores.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
        }
        if let Some((slopes, rounded)) = self.op.alibi {
            for (key, score) in (first..).zip(scores) {
                *score += match rounded {
                    None => slopes[head] * key as f32,
                    Some(factor) => round(round(slopes[head]) * round(key as f32)) * factor,
                };
            }
        }
    }
}

/// Rounds to the nearest bf16.
fn round(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

/// Replaces the scores of the keys `begin..end` by exp(scale * score - max) and all others by 0.
/// Returns one over their sum.
#[inline(always)]
fn softmax(scores: &mut [f32], begin: usize, end: usize, scale: f32, sink: Option<f32>) -> f32 {
    scores[..begin].fill(0.0);
    scores[end..].fill(0.0);
    let seen = &mut scores[begin..end];
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (whole, rest) = seen.as_chunks_mut::<16>();
    for chunk in whole {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score *= scale;
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    for (lane, score) in lanes.iter_mut().zip(rest) {
        *score *= scale;
        *lane = if *score > *lane { *score } else { *lane };
    }
    let largest = lanes.iter().fold(sink.unwrap_or(f32::NEG_INFINITY), |a, b| a.max(*b));
    seen.iter_mut().for_each(|score| *score = exp(*score - largest));
    1.0 / (sum(seen, |p| p) + sink.map_or(0.0, |sink| exp(sink - largest)))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::vocabulary::Span;

    const POSITIONS: usize = 2 * CHUNK_ROWS + 7;
    const HEADS: usize = 4;
    const HEAD_DIM: usize = 6;

    /// The definition of attention, computed one number at a time.
    fn attend_reference(op: &Attend, sinks: Option<&[f32]>, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
        let (group, kv) = (op.heads / op.kv_heads, op.kv_heads * op.head_dim);
        let mut out = vec![0f64; q.len() / op.head_dim * op.value_dim];
        for (row, head) in (0..q.len() / (op.heads * op.head_dim)).flat_map(|row| (0..op.heads).map(move |h| (row, h)))
        {
            let (start, query) = (row / op.positions * op.positions, row % op.positions);
            let first = op.span.first_key(query);
            let at = (row * op.heads + head) * op.head_dim;
            let score = |key: usize| {
                let k = &k[(start + key) * kv + head / group * op.head_dim..][..op.head_dim];
                let score = k.iter().zip(&q[at..]).map(|(k, q)| *k as f64 * *q as f64).sum::<f64>() * op.scale as f64;
                let capped = op.softcap.map_or(score, |cap| cap as f64 * (score / cap as f64).tanh());
                capped + op.alibi.map_or(0.0, |(slopes, _)| (slopes[head] * key as f32) as f64)
            };
            let weights: Vec<f64> = (first..=query).map(|key| score(key).exp()).collect();
            let sink = sinks.map_or(0.0, |sinks| (sinks[head] as f64).exp());
            let sum = weights.iter().sum::<f64>() + sink;
            for (key, weight) in (first..=query).zip(&weights) {
                let v = &v[((start + key) * op.kv_heads + head / group) * op.value_dim..][..op.value_dim];
                let at = (row * op.heads + head) * op.value_dim;
                out[at..][..op.value_dim].iter_mut().zip(v).for_each(|(out, v)| *out += weight / sum * *v as f64);
            }
        }
        out
    }

    /// As modeling_falcon computes them: 2^-2.5 rounds to 0.1767578125, position 257 to 256 and 259
    /// to 260, and their products are rounded as well.
    #[test]
    fn rounded_biases_are_made_of_rounded_slopes_and_positions() {
        let slopes = [(-2.5f32).exp2()];
        let op = Attend {
            positions: 600,
            heads: 1,
            kv_heads: 1,
            head_dim: 1,
            value_dim: 1,
            span: Span::All,
            scale: 1.0,
            softcap: None,
            alibi: Some((&slopes, Some(0.5))),
            rounded: false,
        };
        for (key, bias) in [(255, 22.5), (257, 22.625), (259, 23.0)] {
            let mut scores = [0.0];
            Chunked { op: &op, sinks: None, received: None }.shape(&mut scores, 0, key);
            assert_eq!(scores, [bias], "{key}");
        }
    }

    #[test]
    fn chunks_windows_groups_and_sinks_follow_the_definition() {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let sinks: Vec<f32> = (0..HEADS).map(|_| rng.random_range(-1.0..2.0)).collect();
        let slopes = [0.5, 0.25, 0.125, 0.0625];
        let (alibi, window) = (Some((&slopes[..], None)), Span::Window);
        for (kv_heads, span, sinks, softcap, alibi, value_dim) in [
            (4, Span::All, None, None, None, HEAD_DIM),
            (2, window(5), None, None, None, HEAD_DIM),
            (1, window(60), Some(sinks), None, None, HEAD_DIM),
            (2, window(500), None, None, None, HEAD_DIM),
            (2, Span::Chunk(50), None, Some(2.0), None, 3),
            (4, Span::All, None, None, alibi, 9),
        ] {
            let op = Attend {
                positions: POSITIONS,
                heads: HEADS,
                kv_heads,
                head_dim: HEAD_DIM,
                value_dim,
                span,
                scale: 0.7,
                softcap,
                alibi,
                rounded: false,
            };
            let mut random =
                |width| -> Vec<f32> { (0..2 * POSITIONS * width).map(|_| rng.random_range(-1.0..1.0)).collect() };
            let (q, k, v) = (random(HEADS * HEAD_DIM), random(kv_heads * HEAD_DIM), random(kv_heads * value_dim));
            let y = attend(&q, &k, &v, sinks.as_deref(), &op);
            let expected = attend_reference(&op, sinks.as_deref(), &q, &k, &v);
            let worst = y.iter().zip(&expected).map(|(a, b)| (*a as f64 - b).abs()).fold(0.0, f64::max);
            // Biases of some hundreds are added before the maximum is subtracted, which costs
            // precision.
            let most = if alibi.is_some() { 1e-5 } else { 1e-6 };
            assert!(worst < most, "{kv_heads} key heads, {span:?}, cap {softcap:?}: {worst:e}");
        }
    }
}
