//! Next-token loss and last logits. The head is read in blocks of vocabulary rows.
//!
//! The log-sum-exp is computed incrementally over the blocks, so that the logits of all positions
//! never exist at the same time.

use rayon::prelude::*;

use super::linear;
use super::observe::Observers;
use super::scores::{Compared, LaneScores, Running, scores};
use crate::error::Result;
use crate::hub::Announcement;
use crate::ops::{self, Projection};
use crate::progress::Progress;
use crate::spec::inventory::Part;
use crate::spec::{BeforeHead, Model, Role};
use crate::tensor::Tensor;
use crate::vocabulary::Order;
use crate::weights::load::Loader;

/// The most bytes of head weights, and of logits, in memory at the same time.
pub(super) const BLOCK_BYTES: usize = 64 << 20;

pub(super) struct HeadOutput {
    /// [sequences][vocab]
    pub last_logits: Vec<Vec<f32>>,
    /// [sequences]: mean over t of -log p(x[t+1] | x[..=t]) in nats; empty for sequences of one
    /// token.
    pub mean_nll: Vec<f32>,
    /// The model as it is, then each lane beside it; empty without lanes.
    pub lanes: Vec<LaneScores>,
}

/// Computes the loss and the last logits. `normed` is the input of the head [sequences * positions,
/// width] of each shard, and `lanes` the same of other lanes. If `rounded`, it may be rounded to
/// bf16.
pub(super) fn head(
    (model, observers): (&Model, &Observers),
    loader: &Loader,
    bias: Option<&Tensor>,
    (normed, lanes): (&[Tensor], &[Vec<Tensor>]),
    (ids, rounded): (&[Vec<u32>], bool),
    progress: &dyn Progress,
) -> Result<HeadOutput> {
    let (sequences, positions) = (ids.len(), ids[0].len());
    let vocab = model.vocab_size;
    let block = (BLOCK_BYTES / (model.head.shape[1] * 4)).clamp(1, vocab);
    // With lanes there are a weight in f64 for each logit, and logits of two lanes at a time.
    let rows = (BLOCK_BYTES / (block * if lanes.is_empty() { 4 } else { 8 })).max(1);
    let bias = bias.map(Tensor::values).transpose()?;
    let mut last_logits = vec![Vec::with_capacity(vocab); sequences];
    // Per token: the largest logit so far, the sum of exponentials relative to it, and the logit of
    // the next token.
    let mut running = vec![Running::NONE; sequences * positions];
    let mut compared = vec![vec![Compared::NONE; sequences * positions]; lanes.len()];
    let mut ahead = loader.checkpoint.ahead();
    let whole = Part { weight: model.head.clone(), role: Role::ToResidual };
    ahead.expect(Announcement { order: u64::MAX, max_gap: 0, ranges: loader.checkpoint.part_ranges(&whole)? });
    for first in (0..vocab).step_by(block) {
        if progress.interrupted() {
            return Err(crate::error::Error::interrupted());
        }
        let count = block.min(vocab - first);
        let parts = loader.rows(&model.head, first, count, None)?;
        let of_block = || vec![Part { weight: model.head.rows(first, count), role: Role::ToResidual }];
        observers.show_weights(None, of_block, &parts[..1])?;
        for (shard, first_row, taken) in pieces(normed, rows) {
            let logits_of = |normed: &[Tensor]| -> Result<Vec<f32>> {
                let x = normed[shard].rows(first_row, taken)?;
                let projection = Projection { weight: &parts[shard], order: Order::OutIn, bias: None };
                let mut logits = ops::project(&x, &[projection], rounded)?.remove(0).values()?;
                shape(model, bias.as_ref().map(|bias| &bias[first..first + count]), &mut logits);
                Ok(logits)
            };
            let logits = logits_of(normed)?;
            let start = first_row + normed[..shard].iter().map(|x| x.dims()[0]).sum::<usize>();
            let target = |i: usize| {
                let (s, t) = ((start + i) / positions, (start + i) % positions);
                ids[s].get(t + 1).map(|id| *id as usize)
            };
            let tokens = running[start..start + taken].par_iter_mut().zip(logits.par_chunks_exact(count));
            if lanes.is_empty() {
                tokens.enumerate().for_each(|(i, (running, logits))| running.block(logits, first, target(i)));
            } else {
                // What lanes are compared with is the same for all.
                let mut weights = vec![0f64; taken * count];
                let weighing = tokens.zip(weights.par_chunks_exact_mut(count)).enumerate();
                let shrunk: Vec<f64> = weighing
                    .map(|(i, ((running, logits), weights))| running.weigh(logits, first, target(i), weights))
                    .collect();
                for (lane, compared) in lanes.iter().zip(&mut compared) {
                    let own = logits_of(lane)?;
                    let base = logits.par_chunks_exact(count).zip(weights.par_chunks_exact(count)).zip(&shrunk);
                    let of_lane = compared[start..start + taken].par_iter_mut().zip(own.par_chunks_exact(count));
                    of_lane.zip(base).enumerate().for_each(|(i, ((compared, own), ((base, weights), shrunk)))| {
                        compared.block((base, weights, *shrunk), own, first, target(i));
                    });
                }
            }
            for (token, logits) in (start..).zip(logits.chunks_exact(count)) {
                if token % positions == positions - 1 {
                    last_logits[token / positions].extend_from_slice(logits);
                }
            }
        }
    }
    let mean = |s: usize| {
        let losses = running[s * positions..][..positions - 1].iter().map(Running::loss);
        (losses.sum::<f64>() / (positions - 1) as f64) as f32
    };
    let mean_nll = if positions > 1 { (0..sequences).map(mean).collect() } else { Vec::new() };
    let lanes = if lanes.is_empty() { Vec::new() } else { scores(positions, &running, &compared) };
    Ok(HeadOutput { last_logits, mean_nll, lanes })
}

/// Applies bias, factor and softcap to logits [rows, bias.len()], in place.
fn shape(model: &Model, bias: Option<&[f32]>, logits: &mut [f32]) {
    if let Some(bias) = bias {
        for row in logits.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
        }
    }
    if model.logit_factor != 1.0 {
        let factor = model.logit_factor as f32;
        logits.iter_mut().for_each(|logit| *logit *= factor);
    }
    if let Some(cap) = model.logit_softcap.map(|cap| cap as f32) {
        logits.par_iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
}

/// The input of the head: the residual stream `hidden` [rows, hidden] after the final norm. If
/// `rounded`, a projection before the head may round its input to bf16.
pub(super) fn read(before: &BeforeHead<Tensor>, hidden: &Tensor, rounded: bool) -> Result<Tensor> {
    let normed = match &before.final_norm {
        Some(norm) => linear::norm(norm, hidden)?,
        None => hidden.clone(),
    };
    match &before.project_out {
        Some(projection) => linear::linear(projection, &normed, rounded),
        None => Ok(normed),
    }
}

/// Pieces of at most `rows` rows: the shard, its first row, and the number of rows.
fn pieces(shards: &[Tensor], rows: usize) -> Vec<(usize, usize, usize)> {
    let of = |(shard, x): (usize, &Tensor)| {
        let all = x.dims()[0];
        (0..all).step_by(rows).map(move |first| (shard, first, rows.min(all - first)))
    };
    shards.iter().enumerate().flat_map(of).collect()
}
