//! What one layer computes: x += mixer(norm(x)), then x += ffn(norm(x)), for the sequences of one device.
//!
//! What it has at a site is shown to the observers that want it.

use std::ops::Range;

use super::shard::{Mixture, Shard};
use super::work::Work;
use crate::engine::attempt::{Changed, split_on_oom};
use crate::engine::attention::{self, Batch};
use crate::engine::routing::Assignment;
use crate::engine::{deltanet, linear, moe};
use crate::error::Result;
use crate::ops;
use crate::record::{Site, SiteId};
use crate::spec::{Ffn, Layer, Mixer, Moe, Norm};
use crate::tensor::Tensor;
use crate::weights::reader::Weights;

/// A layer at work, and its weights for each shard.
#[derive(Clone, Copy)]
pub struct LayerAtWork<'a, 'o> {
    pub work: &'a Work<'o>,
    pub i: usize,
    pub layer: &'a Layer,
    pub weights: &'a [Weights],
}

impl LayerAtWork<'_, '_> {
    /// A layer whose feed-forward network is the same for all tokens.
    pub fn dense(&self, shard: &Shard) -> Result<()> {
        shard.all_batches(self.work.cut.sequences).try_for_each(|batch| self.mix(shard, batch))?;
        shard.all_batches(self.work.cut.sequences).try_for_each(|batch| {
            split_on_oom(batch, &mut |rows| {
                let x = self.normed(shard, Site::FfnIn, &self.layer.ffn_norm, &rows)?;
                Ok(Changed(self.feed_forward(shard, &x, &rows)))
            })
        })
    }

    /// x += mixer(norm(x)) for some sequences, or for halves of them where that is too much for the device.
    fn mix(&self, shard: &Shard, batch: Range<usize>) -> Result<()> {
        let weights = &self.weights[shard.index];
        split_on_oom(batch, &mut |rows| {
            let x = self.normed(shard, Site::AttnIn, &self.layer.input_norm, &rows)?;
            let batch = Batch { sequences: rows.len(), positions: shard.positions, rotary: shard.rotary.get() };
            let mixed = match &self.layer.mixer {
                Mixer::Attention(spec) => attention::attention(spec, weights, &x, &batch)?,
                Mixer::DeltaNet(spec) => deltanet::delta_net(spec, weights, &x, &batch)?,
            };
            let residual = shard.residual(&rows)?;
            Ok(Changed(ops::add(&residual, &mixed)))
        })
    }

    /// x += mlp(`normed`) for some sequences, unless nothing needs it.
    fn feed_forward(&self, shard: &Shard, normed: &Tensor, rows: &Range<usize>) -> Result<()> {
        let (Ffn::Dense(mlp), true) = (&self.layer.ffn, self.work.needs_ffn(self.i)) else { return Ok(()) };
        let hidden_size = self.work.model.spec.hidden_size;
        let inner = mlp.up.weight.shape.iter().product::<usize>() / hidden_size;
        let weights = &self.weights[shard.index];
        in_pieces(normed, &shard.residual(rows)?, self.work.cut.ffn_rows(hidden_size, inner), |x| {
            linear::mlp(mlp, weights, x)
        })
    }

    /// One round of a mixture: through the mixer, then to the router. The experts follow when their weights are there.
    pub fn mix_and_route(&self, shard: &mut Shard, moe: &Moe, round: usize) -> Result<()> {
        let Some(mut mixture) = shard.mixture.take() else { return Ok(()) };
        for batch in shard.batches(round, self.work.cut.sequences) {
            self.mix(shard, batch.clone())?;
            split_on_oom(batch, &mut |rows| self.route(shard, moe, &mut mixture, rows))?;
        }
        shard.mixture = Some(mixture);
        Ok(())
    }

    /// Keeps what the experts of some sequences will read and who goes to which; x += shared expert, where there is one.
    fn route(&self, shard: &Shard, moe: &Moe, mixture: &mut Mixture, rows: Range<usize>) -> Result<Changed> {
        let weights = &self.weights[shard.index];
        let x = self.normed(shard, Site::FfnIn, &self.layer.ffn_norm, &rows)?;
        let logits = moe::router_logits(moe, weights, &x)?;
        let (first_row, scoring) = (rows.start * shard.positions, &moe.router.scoring);
        mixture.assignment.route(first_row, &logits, moe.top_k, scoring, mixture.correction.as_deref());
        let residual = shard.residual(&rows)?;
        let rest = || {
            if let Some(shared) = &moe.shared {
                in_pieces(&x, &residual, self.work.ffn_rows(moe), |x| moe::shared_expert(shared, weights, x))?;
            }
            mixture.x.set_rows(&x, first_row)
        };
        Ok(Changed(rest()))
    }

    /// Makes room for what the experts will read.
    pub fn begin_mixture(&self, shard: &mut Shard, moe: &Moe) -> Result<()> {
        let weights = &self.weights[shard.index];
        let correction = moe.router.correction_bias.as_ref();
        let correction = correction.map(|bias| linear::weight(weights, &bias.name)?.values()).transpose()?;
        let x = Tensor::zeros(shard.hidden.dims().to_vec(), &shard.device)?;
        let assignment = Assignment::new(moe.num_experts);
        shard.mixture = Some(Mixture { x, assignment, correction, room: ops::Room::default() });
        Ok(())
    }

    /// The norm of the residual stream of some sequences, shown as `site`.
    fn normed(&self, shard: &Shard, site: Site, norm: &Norm, rows: &Range<usize>) -> Result<Tensor> {
        let normed = linear::norm(norm, &self.weights[shard.index], &shard.residual(rows)?)?;
        self.show(shard, site, rows, &normed)?;
        Ok(normed)
    }

    /// Shows `x` of some of the shard's sequences.
    fn show(&self, shard: &Shard, site: Site, rows: &Range<usize>, x: &Tensor) -> Result<()> {
        let first = shard.sequences.start;
        self.work.observers.show(SiteId { layer: self.i, site }, first + rows.start..first + rows.end, x)
    }
}

/// residual += f(x) on matching pieces of at most `rows` rows.
fn in_pieces(x: &Tensor, residual: &Tensor, rows: usize, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let all = x.dims()[0];
    for start in (0..all).step_by(rows) {
        split_on_oom(start..(start + rows).min(all), &mut |rows| {
            let y = f(&x.rows(rows.start, rows.len())?)?;
            Ok(Changed(ops::add(&residual.rows(rows.start, rows.len())?, &y)))
        })?;
    }
    Ok(())
}
