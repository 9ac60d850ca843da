//! The computation of one layer, usually x += mixer(norm(x)), then x += ffn(norm(x)), for the
//! sequences of one device. Observers receive the tensors at the sites that they want.

use std::ops::Range;

use super::shard::{Mixture, Shard};
use super::work::Work;
use crate::engine::attempt::{Changed, split_on_oom};
use crate::engine::attention::{self, Batch};
use crate::engine::layer_embeddings::LayerEmbeddings;
use crate::engine::routing::Assignment;
use crate::engine::{deltanet, linear, mamba, moe};
use crate::error::{Result, fault};
use crate::ops;
use crate::record::{Site, SiteId};
use crate::spec::{Ffn, Layer, Mixer, Reads, Sublayer};
use crate::tensor::Tensor;

/// A layer and its position, with the weights as loaded for each shard.
#[derive(Clone, Copy)]
pub(super) struct LayerAtWork<'a, 'o> {
    pub work: &'a Work<'o>,
    pub i: usize,
    pub loaded: &'a [Layer<Tensor>],
    /// The embeddings for each layer, if the model has them.
    pub embeddings: Option<&'a LayerEmbeddings>,
}

impl LayerAtWork<'_, '_> {
    /// Computes a layer whose feed-forward network is the same for all tokens.
    pub(super) fn dense(&self, shard: &Shard) -> Result<()> {
        if self.of(shard).parallel {
            return shard.all_batches(self.work.plan.sequences).try_for_each(|batch| self.parallel(shard, batch));
        }
        shard.all_batches(self.work.plan.sequences).try_for_each(|batch| self.mix(shard, batch))?;
        if let Some(ffn) = &self.of(shard).ffn {
            shard.all_batches(self.work.plan.sequences).try_for_each(|batch| {
                split_on_oom(batch, &mut |rows| {
                    let x = self.read(shard, Site::FfnIn, &ffn.reads, &rows)?;
                    Ok(Changed(self.feed_forward(shard, ffn, &x, &rows)))
                })
            })?;
        }
        self.end(shard)
    }

    /// Computes what follows both sublayers: the token's embedding for this layer, and the layer's
    /// factor, if it has them.
    fn end(&self, shard: &Shard) -> Result<()> {
        if let (Some(gate), Some(embeddings)) = (&self.of(shard).embedding_gate, self.embeddings) {
            shard.all_batches(self.work.plan.sequences).try_for_each(|batch| {
                split_on_oom(batch, &mut |rows| {
                    let (stream, first) = (shard.residual(&rows)?, shard.sequences.start);
                    let tokens = (first + rows.start) * shard.positions..(first + rows.end) * shard.positions;
                    let embedded = embeddings.of(self.i, tokens, &shard.device)?;
                    let gating = linear::linear(&gate.gate, &stream, self.work.rounded())?;
                    ops::gate(gate.activation, &gating, &embedded)?;
                    let up = linear::linear(&gate.up, &embedded, self.work.rounded())?;
                    Ok(Changed(ops::add(&stream, &linear::norm(&gate.norm, &up)?)))
                })
            })?;
        }
        let Some(scalar) = &self.of(shard).scalar else { return Ok(()) };
        ops::scale(&shard.hidden, scalar.values()?.first().copied().unwrap_or(1.0))
    }

    /// x += mixer(norm(x)) for some sequences, split in halves if the device has not enough memory.
    fn mix(&self, shard: &Shard, batch: Range<usize>) -> Result<()> {
        let Some(mixer) = &self.of(shard).mixer else { return Ok(()) };
        split_on_oom(batch, &mut |rows| {
            let x = self.read(shard, Site::AttnIn, &mixer.reads, &rows)?;
            let mixed = self.mixed(shard, &mixer.body, &x, &rows)?;
            write(mixer, &shard.residual(&rows)?, mixed)
        })
    }

    /// x += mixer(norm(x)) + ffn(norm(x)) for some sequences. Both read the stream before either is
    /// added.
    fn parallel(&self, shard: &Shard, batch: Range<usize>) -> Result<()> {
        let Layer { mixer: Some(mixer), ffn: Some(ffn), .. } = self.of(shard) else {
            fault!("a layer with one sublayer has none beside it")
        };
        split_on_oom(batch, &mut |rows| {
            let x = self.read(shard, Site::AttnIn, &mixer.reads, &rows)?;
            let y = match ffn.reads {
                Reads::AsMixer => {
                    self.show(shard, Site::FfnIn, &rows, &x)?;
                    x.clone()
                }
                _ => self.read(shard, Site::FfnIn, &ffn.reads, &rows)?,
            };
            let mixed = self.mixed(shard, &mixer.body, &x, &rows)?;
            let Changed(mixed) = write(mixer, &shard.residual(&rows)?, mixed)?;
            Ok(Changed(mixed.and_then(|()| self.feed_forward(shard, ffn, &y, &rows))))
        })
    }

    /// The output of the mixer for its input `x`, which belongs to some sequences.
    fn mixed(&self, shard: &Shard, mixer: &Mixer<Tensor>, x: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
        let rounded = self.work.rounded();
        let borrowed = match self.of(shard).borrows() {
            Some(from) => shard.keys_and_values(from, rows)?,
            None => None,
        };
        let batch = Batch {
            sequences: rows.len(),
            positions: shard.positions,
            rounded,
            rotary: &shard.rotary,
            borrowed,
            lends: shard.keys_and_values(self.i, rows)?,
        };
        match mixer {
            Mixer::Attention(attention) => attention::attention(attention, x, &batch),
            Mixer::DeltaNet(net) => deltanet::delta_net(net, x, &batch),
            Mixer::GatedConv(conv) => mamba::gated_conv(conv, x, &batch),
            Mixer::Mamba2(mamba) => mamba::mamba2(mamba, x, &batch),
        }
    }

    /// x += mlp(`read`) for some sequences.
    fn feed_forward(
        &self,
        shard: &Shard,
        ffn: &Sublayer<Ffn<Tensor>, Tensor>,
        read: &Tensor,
        rows: &Range<usize>,
    ) -> Result<()> {
        let Ffn::Dense(mlp) = &ffn.body else { return Ok(()) };
        let hidden_size = self.work.model.spec.hidden_size;
        let inner = mlp.up.weight.dims().iter().product::<usize>() / hidden_size;
        in_pieces(read, &shard.residual(rows)?, self.work.ffn_rows(inner), |x, residual| {
            write(ffn, residual, linear::mlp(mlp, x, self.work.rounded())?)
        })
    }

    /// Computes the mixer and the router of one round of a mixture. The experts follow when their
    /// weights have been read.
    pub(super) fn mix_and_route(&self, shard: &mut Shard, round: usize) -> Result<()> {
        let Some(mut mixture) = shard.mixture.take() else { return Ok(()) };
        for batch in shard.batches(round, self.work.plan.sequences) {
            self.mix(shard, batch.clone())?;
            split_on_oom(batch, &mut |rows| self.route(shard, &mut mixture, rows))?;
        }
        shard.mixture = Some(mixture);
        Ok(())
    }

    /// Stores the input of the experts and the choice of experts for some sequences, and adds the
    /// shared expert, if there is one.
    fn route(&self, shard: &Shard, mixture: &mut Mixture, rows: Range<usize>) -> Result<Changed> {
        let Some(Sublayer { reads, body: Ffn::Moe(moe), .. }) = &self.of(shard).ffn else {
            fault!("a layer without experts was routed")
        };
        let x = self.read(shard, Site::FfnIn, reads, &rows)?;
        let logits = moe::router_logits(moe, &x)?;
        let (first_row, scoring) = (rows.start * shard.positions, &moe.router.scoring);
        mixture.assignment.route(first_row, &logits, moe.top_k, scoring, mixture.correction.as_deref());
        let sum = mixture.sum.rows(first_row, rows.len() * shard.positions)?;
        let rest = || {
            if let Some(shared) = &moe.shared {
                in_pieces(&x, &sum, self.work.ffn_rows(moe.intermediate), |x, sum| {
                    Ok(Changed(ops::add(sum, &moe::shared_expert(shared, x, self.work.rounded())?)))
                })?;
            }
            mixture.x.set_rows(&x, first_row)
        };
        Ok(Changed(rest()))
    }

    /// Allocates the input of the experts, and the sum of their outputs if that is not added to the
    /// stream directly.
    pub(super) fn begin_mixture(&self, shard: &mut Shard) -> Result<()> {
        let layer = self.of(shard);
        let Some(ffn) = &layer.ffn else { return Ok(()) };
        let Ffn::Moe(moe) = &ffn.body else { return Ok(()) };
        if layer.parallel {
            fault!("experts beside a mixer are computed behind it");
        }
        let correction = moe.router.correction_bias.as_ref().map(Tensor::values).transpose()?;
        let zeros = || Tensor::zeros(shard.hidden.dims().to_vec(), &shard.device);
        let sum = if ffn.is_plain() { shard.hidden.clone() } else { zeros()? };
        let assignment = Assignment::new(moe.num_experts);
        shard.mixture = Some(Mixture { x: zeros()?, sum, assignment, correction, room: ops::ExpertScratch::default() });
        Ok(())
    }

    /// Adds the sum of the experts' outputs to the stream, if that needs more than an addition.
    pub(super) fn end_mixture(&self, shard: &Shard) -> Result<()> {
        let (Some(ffn), Some(mixture)) = (&self.of(shard).ffn, &shard.mixture) else { return Ok(()) };
        if ffn.is_plain() {
            return self.end(shard);
        }
        shard.all_batches(self.work.plan.sequences).try_for_each(|batch| {
            split_on_oom(batch, &mut |rows| {
                let sum = mixture.sum.rows(rows.start * shard.positions, rows.len() * shard.positions)?;
                write(ffn, &shard.residual(&rows)?, sum)
            })
        })?;
        self.end(shard)
    }

    /// The layer as loaded for the shard.
    fn of(&self, shard: &Shard) -> &Layer<Tensor> {
        &self.loaded[shard.index]
    }

    /// The input of a sublayer for some sequences, which observers receive as `site`.
    fn read(&self, shard: &Shard, site: Site, reads: &Reads<Tensor>, rows: &Range<usize>) -> Result<Tensor> {
        let stream = shard.residual(rows)?;
        let read = match reads {
            Reads::Norm(norm) => linear::norm(norm, &stream)?,
            Reads::Stream => stream,
            Reads::AsMixer => fault!("a feed-forward network that reads as the mixer does comes beside it"),
        };
        self.show(shard, site, rows, &read)?;
        Ok(read)
    }

    /// Gives `x`, for some of the shard's sequences, to the observers.
    fn show(&self, shard: &Shard, site: Site, rows: &Range<usize>, x: &Tensor) -> Result<()> {
        let first = shard.sequences.start;
        self.work.observers.show(SiteId { layer: self.i, site }, first + rows.start..first + rows.end, x)
    }
}

/// residual += y, with the norms and the factor of the sublayer that computed y. If memory is too
/// short for that, nothing has changed.
fn write<B>(sublayer: &Sublayer<B, Tensor>, residual: &Tensor, y: Tensor) -> Result<Changed> {
    let y = match &sublayer.write_norm {
        Some(norm) => linear::norm(norm, &y)?,
        None => y,
    };
    if sublayer.factor != 1.0 {
        ops::scale(&y, sublayer.factor as f32)?;
    }
    Ok(Changed(match &sublayer.sum_norm {
        None => ops::add(residual, &y),
        Some(norm) => {
            ops::add(&y, residual)?;
            let normed = linear::norm(norm, &y)?;
            residual.set_rows(&normed, 0)
        }
    }))
}

/// Calls `f` for each piece of at most `rows` rows of `x`, with the matching piece of `residual`,
/// which it changes.
fn in_pieces(
    x: &Tensor,
    residual: &Tensor,
    rows: usize,
    f: impl Fn(&Tensor, &Tensor) -> Result<Changed>,
) -> Result<()> {
    let all = x.dims()[0];
    for start in (0..all).step_by(rows) {
        split_on_oom(start..(start + rows).min(all), &mut |rows| {
            f(&x.rows(rows.start, rows.len())?, &residual.rows(rows.start, rows.len())?)
        })?;
    }
    Ok(())
}
