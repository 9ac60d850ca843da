//! Next-token loss and last logits. The head is read in blocks of vocabulary rows.
//!
//! The log-sum-exp is computed incrementally, from logits that are looked at piece by piece while
//! they are in the cache, so that the logits of all positions never exist at the same time.

use super::linear;
use super::observe::Observers;
use super::scores::{Compared, LaneScores, Part as LogitPart, Running, scores};
use crate::error::Result;
use crate::gemm::Seen;
use crate::hub::Announcement;
use crate::ops;
use crate::progress::Progress;
use crate::spec::inventory::Part;
use crate::spec::{BeforeHead, Model, Role};
use crate::tensor::Tensor;
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
        let rows = rows_at_once(&parts, (1 + lanes.len(), model.head.shape[1]), rounded)?;
        for (shard, first_row, taken) in pieces(normed, rows) {
            let start = first_row + normed[..shard].iter().map(|x| x.dims()[0]).sum::<usize>();
            let target = |row: usize| {
                let (s, t) = ((start + row) / positions, (start + row) % positions);
                ids[s].get(t + 1).map(|id| *id as usize)
            };
            let is_last = |row: usize| (start + row) % positions == positions - 1;
            let streams = std::iter::once(normed).chain(lanes.iter().map(Vec::as_slice));
            let xs = streams.map(|of| of[shard].rows(first_row, taken)).collect::<Result<Vec<_>>>()?;
            let see = |part: &mut LogitPart, piece: Seen| {
                let bias = bias.as_ref().map(|bias| &bias[first..][piece.columns.clone()]);
                shape(model, bias, piece.values);
                part.add(&piece, first, target, is_last);
            };
            let looked = ops::products_seen(&xs, &parts[shard], rounded, || LogitPart::new(lanes.len()), see)?;
            let mut of_lanes: Vec<_> = compared.iter_mut().map(|lane| &mut lane[start..start + taken]).collect();
            for part in looked {
                for (row, logits) in part.add_to(&mut running[start..start + taken], &mut of_lanes) {
                    last_logits[(start + row) / positions].extend(logits);
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

/// The most bytes for what pieces of logits leave until they are added up, for all lanes.
pub(super) const LEFT_BYTES: usize = 32 << 20;
/// What a piece leaves of a row.
pub(super) const LEFT_BY_PIECE: usize = std::mem::size_of::<Compared>();
/// Columns of most pieces, or fewer.
pub(super) const SMALLEST_PIECE: usize = 512;

/// Number of rows whose logits are computed at once.
fn rows_at_once(parts: &[Tensor], (streams, input): (usize, usize), rounded: bool) -> Result<usize> {
    let mut most = usize::MAX;
    for weight in parts {
        let pieces = weight.dims()[0].div_ceil(ops::seen_columns(weight, rounded)?);
        let left = input * 4 + pieces * LEFT_BY_PIECE;
        most = most.min(LEFT_BYTES / (left * streams)).min(ops::seen_rows(weight, streams));
    }
    Ok(most.max(1))
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
        logits.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
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
