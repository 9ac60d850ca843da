//! What one layer does to all sequences: norms, a token mixer, a feed-forward network or experts.

use super::shard::{Mixture, Shard, each};
use super::{ROUNDS, Run, Work};
use crate::engine::attention::{self, Batch};
use crate::engine::routing::Assignment;
use crate::engine::{deltanet, linear, moe};
use crate::error::{Error, Result};
use crate::ops;
use crate::record::{ExpertCoverage, NormId, Site};
use crate::spec::inventory;
use crate::spec::{Ffn, Layer, Mixer, Moe};
use crate::tensor::Tensor;
use crate::tensor::tensor_error;
use crate::weights::reader::{Portion, Weights};

/// A layer at work, and its weights for each shard.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub work: &'a Work<'a>,
    pub i: usize,
    pub layer: &'a Layer,
    pub weights: &'a [Weights],
}

impl At<'_> {
    /// Norm `site` for one batch, seen by the tap.
    fn normed(&self, shard: &Shard, site: Site, (first, count): (usize, usize)) -> Result<Tensor> {
        let spec = match site {
            Site::InputLayernorm => &self.layer.input_norm,
            Site::PostAttentionLayernorm => &self.layer.ffn_norm,
        };
        let normed = linear::norm(spec, &self.weights[shard.index], &shard.residual(first, count)?);
        let normed = normed.map_err(tensor_error)?;
        let sequence = shard.sequences.start + first;
        if self.work.probe.tap {
            self.work.tap().see(2 * self.i + site as usize, sequence, &normed).map_err(tensor_error)?;
        }
        if let Some(full) = &mut *self.work.full() {
            let values = normed.values().map_err(tensor_error)?;
            let per_sequence = shard.positions * self.work.model.spec.hidden_size;
            full.write(&NormId { layer: self.i, site }.name(), sequence * per_sequence, &values)?;
        }
        Ok(normed)
    }

    /// x += mixer(input_norm(x)) for one batch, or for parts of it where the whole is too much for the device.
    fn mix(&self, shard: &Shard, (first, count): (usize, usize)) -> Result<()> {
        let weights = &self.weights[shard.index];
        ops::halving(first, count, &Error::is_full, &mut |first, count| {
            let x = self.normed(shard, Site::InputLayernorm, (first, count))?;
            let batch = Batch { sequences: count, positions: shard.positions, rotary: shard.rotary.get() };
            let mixed = match &self.layer.mixer {
                Mixer::Attention(spec) => attention::attention(spec, weights, &x, &batch),
                Mixer::DeltaNet(spec) => deltanet::delta_net(spec, weights, &x, &batch),
            };
            let mixed = mixed.map_err(tensor_error)?;
            let residual = shard.residual(first, count)?;
            Ok(ops::add(&residual, &mixed).map_err(tensor_error))
        })
    }

    /// All batches through the mixer, then x += mlp(ffn_norm(x)); only the norm when nothing needs the rest.
    pub fn dense(&self, shard: &Shard) -> Result<()> {
        let batches = || (0..ROUNDS).flat_map(|round| shard.batches(round, self.work.cut.sequences));
        for batch in batches() {
            self.mix(shard, batch)?;
        }
        for (first, count) in batches() {
            ops::halving(first, count, &Error::is_full, &mut |first, count| {
                let x = self.normed(shard, Site::PostAttentionLayernorm, (first, count))?;
                Ok(self.feed_forward(shard, &x, &shard.residual(first, count)?).map_err(tensor_error))
            })?;
        }
        Ok(())
    }

    fn feed_forward(&self, shard: &Shard, x: &Tensor, residual: &Tensor) -> candle_core::Result<()> {
        let (Ffn::Dense(mlp), true) = (&self.layer.ffn, self.work.needs_ffn(self.i)) else { return Ok(()) };
        let hidden_size = self.work.model.spec.hidden_size;
        let inner = mlp.up.weight.shape.iter().product::<usize>() / hidden_size;
        let rows = self.work.cut.ffn_rows(hidden_size, inner);
        ops::in_pieces(x, residual, rows, |x| linear::mlp(mlp, &self.weights[shard.index], x))
    }

    /// Makes room for what the experts will read.
    fn begin_mixture(&self, shard: &mut Shard, moe: &Moe) -> candle_core::Result<()> {
        let weights = &self.weights[shard.index];
        let correction = moe.router.correction_bias.as_ref();
        let correction = correction.map(|bias| linear::weight(weights, &bias.name)?.values()).transpose()?;
        let x = Tensor::zeros(shard.hidden.dims().to_vec(), &shard.device)?;
        let assignment = Assignment::new(moe.num_experts);
        shard.mixture = Some(Mixture { x, assignment, correction, room: ops::Room::default() });
        Ok(())
    }

    /// One round through the mixer and to the router: x += mixer(input_norm(x)), then what the experts will read.
    fn round(&self, shard: &mut Shard, moe: &Moe, round: usize) -> Result<()> {
        let weights = &self.weights[shard.index];
        let rows = self.work.ffn_rows(moe);
        let Some(mut mixture) = shard.mixture.take() else { return Ok(()) };
        for batch in shard.batches(round, self.work.cut.sequences) {
            self.mix(shard, batch)?;
            ops::halving(batch.0, batch.1, &Error::is_full, &mut |first, count| {
                let x = self.normed(shard, Site::PostAttentionLayernorm, (first, count))?;
                let logits = moe::router_logits(moe, weights, &x).map_err(tensor_error)?;
                let (first_row, scoring) = (first * shard.positions, &moe.router.scoring);
                mixture.assignment.route(first_row, &logits, moe.top_k, scoring, mixture.correction.as_deref());
                let residual = shard.residual(first, count)?;
                let rest = || {
                    if let Some(shared) = &moe.shared {
                        ops::in_pieces(&x, &residual, rows, |x| moe::shared_expert(shared, weights, x))?;
                    }
                    mixture.x.set_rows(&x, first_row)
                };
                Ok(rest().map_err(tensor_error))
            })?;
        }
        shard.mixture = Some(mixture);
        Ok(())
    }
}

impl Run<'_> {
    /// x += mixer(input_norm(x)), then x += experts(ffn_norm(x)), all tokens of all sequences grouped by expert.
    pub(super) fn mixture(&mut self, i: usize, layer: &Layer, moe: &Moe, weights: Vec<Weights>) -> Result<()> {
        let (work, shards) = (&self.work, &mut self.shards);
        let mut asked: Vec<usize> = Vec::new();
        let at = At { work, i, layer, weights: &weights };
        each(shards, |shard| at.begin_mixture(shard, moe).map_err(tensor_error))?;
        for round in 0..ROUNDS {
            each(shards, |shard| at.round(shard, moe, round))?;
            for expert in (0..moe.num_experts).filter(|expert| !asked.contains(expert)).collect::<Vec<_>>() {
                if shards.iter().flat_map(|shard| &shard.mixture).any(|mixture| mixture.assignment.uses(expert)) {
                    let parts = inventory::expert(&moe.experts, expert);
                    self.stream.ask(work.model, Portion::Expert { layer: i, expert }, parts)?;
                    asked.push(expert);
                }
            }
        }
        drop(weights);
        self.stream.plan.skip_other_experts(i, moe.num_experts, &asked);
        let rows_per_product = work.ffn_rows(moe);
        for expert in asked {
            let weights = self.stream.reader.take(Portion::Expert { layer: i, expert })?;
            for (shard, weights) in shards.iter().zip(&weights) {
                let Some(Mixture { x, assignment, room, .. }) = &shard.mixture else { continue };
                let chosen = moe::Chosen { expert, assignment, rows_per_product, room };
                moe::routed_expert(moe, weights, &chosen, x, &shard.hidden).map_err(tensor_error)?;
            }
            drop(weights);
            shards.iter().try_for_each(|shard| shard.device.pace())?;
        }
        let mut tokens_per_expert = vec![0; moe.num_experts];
        for mixture in shards.iter_mut().filter_map(|shard| shard.mixture.take()) {
            let rows = mixture.assignment.rows.iter();
            tokens_per_expert.iter_mut().zip(rows).for_each(|(sum, rows)| *sum += rows.len() as u64);
        }
        self.coverage.push(ExpertCoverage { layer: i, tokens_per_expert });
        Ok(())
    }
}
