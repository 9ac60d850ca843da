//! Attention sinks (Gu et al. 2024, "When Attention Sink Emerges in Language Models"): the mean
//! weight that a position receives from those behind it, per sequence and head.

use std::collections::BTreeMap;
use std::ops::Range;

use super::observer::Observer;
use super::stored;
use crate::error::Result;
use crate::ops::Received;
use crate::record::AttentionSinks;
use crate::tensor::Tensor;

/// A position with a larger mean weight is a sink.
const EPSILON: f64 = 0.3;
/// The number of first positions that are counted each by itself.
const POSITIONS: usize = 16;

#[derive(Default)]
pub struct AttentionSinksObserver {
    /// Of the layer at work, by sequence.
    sequences: BTreeMap<usize, Vec<OfSequence>>,
    done: Vec<AttentionSinks>,
}

/// The first positions of one sequence.
struct OfSequence {
    positions: usize,
    heads: usize,
    above: Vec<u64>,
    any_above: u64,
    /// [heads]
    alpha_first: Vec<f64>,
    /// Sum over heads of the mean over positions.
    top1: f64,
}

impl OfSequence {
    /// `received` [heads, positions] are sums of weights, and `largest` [heads] of the largest.
    fn new(positions: usize, received: &[f64], largest: &[f64]) -> Self {
        let mut of = Self {
            positions,
            heads: largest.len(),
            above: vec![0; positions.min(POSITIONS)],
            any_above: 0,
            alpha_first: Vec::with_capacity(largest.len()),
            top1: largest.iter().map(|sum| sum / positions as f64).sum(),
        };
        for received in received.chunks_exact(positions) {
            let alpha = |position: usize| received[position] / (positions - position) as f64;
            of.alpha_first.push(alpha(0));
            of.above.iter_mut().enumerate().for_each(|(k, count)| *count += u64::from(alpha(k) > EPSILON));
            of.any_above += u64::from((0..positions).any(|k| alpha(k) > EPSILON));
        }
        of
    }
}

impl AttentionSinksObserver {
    fn settle(&mut self, layer: usize) {
        let sequences = std::mem::take(&mut self.sequences);
        let Some(first) = sequences.values().next() else { return };
        for (i, of) in first.iter().enumerate() {
            let (count, heads) = (sequences.len(), of.heads);
            let mut sinks = AttentionSinks {
                layer,
                positions: of.positions,
                sequences: count,
                heads,
                above: vec![0; of.above.len()],
                any_above: 0,
                alpha_first: Vec::new(),
                top1_mean: 0.0,
            };
            let (mut alphas, mut top1) = (vec![0f64; heads], 0.0);
            for of in sequences.values().filter_map(|of| of.get(i)) {
                sinks.above.iter_mut().zip(&of.above).for_each(|(sum, count)| *sum += count);
                sinks.any_above += of.any_above;
                alphas.iter_mut().zip(&of.alpha_first).for_each(|(sum, alpha)| *sum += alpha);
                top1 += of.top1;
            }
            sinks.alpha_first = alphas.iter().map(|sum| (sum / count as f64) as f32).collect();
            sinks.top1_mean = (top1 / (count * heads) as f64) as f32;
            self.done.push(sinks);
        }
    }

    pub fn finish(self) -> Vec<AttentionSinks> {
        self.done
    }
}

impl Observer for AttentionSinksObserver {
    fn wants_attention(&self, _layer: usize) -> bool {
        true
    }

    fn observe_attention(&mut self, _layer: usize, sequences: Range<usize>, received: &Received) -> Result<()> {
        let Received { heads, positions, first, all, early, largest, largest_early } = received;
        for (i, sequence) in sequences.enumerate() {
            let rows = i * heads..(i + 1) * heads;
            let part = |of: &[f64], width: usize| of[rows.start * width..rows.end * width].to_vec();
            let whole = OfSequence::new(*positions, &part(all, *positions), &largest[rows.clone()]);
            let mut of = vec![whole];
            if first < positions {
                of.insert(0, OfSequence::new(*first, &part(early, *first), &largest_early[rows.clone()]));
            }
            self.sequences.insert(sequence, of);
        }
        Ok(())
    }

    fn end_layer(&mut self, layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        self.settle(layer);
        Ok(())
    }

    stored::kept_in!(done);
}
