//! What one layer computes: most often x += mixer(norm(x)), then x += ffn(norm(x)), for the
//! sequences of one device.
//!
//! What it has at a site is shown to the observers that want it.

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

/// A layer at work: as it is loaded for each shard.
#[derive(Clone, Copy)]
pub(super) struct LayerAtWork<'a, 'o> {
    pub work: &'a Work<'o>,
    pub i: usize,
    pub loaded: &'a [Layer<Tensor>],
    /// Where the model has embeddings for each layer.
    pub embeddings: Option<&'a LayerEmbeddings>,
}

impl LayerAtWork<'_, '_> {
    /// A layer whose feed-forward network is the same for all tokens.
    pub(super) fn dense(&self, shard: &Shard) -> Result<()> {
        if self.of(shard).parallel {
            return shard.all_batches(self.work.cut.sequences).try_for_each(|batch| self.parallel(shard, batch));
        }
        shard.all_batches(self.work.cut.sequences).try_for_each(|batch| self.mix(shard, batch))?;
        if let Some(ffn) = &self.of(shard).ffn {
            shard.all_batches(self.work.cut.sequences).try_for_each(|batch| {
                split_on_oom(batch, &mut |rows| {
                    let x = self.read(shard, Site::FfnIn, &ffn.reads, &rows)?;
                    Ok(Changed(self.feed_forward(shard, ffn, &x, &rows)))
                })
            })?;
        }
        self.end(shard)
    }

    /// What comes behind both sublayers: the token's embedding for this layer, and the layer's
    /// factor, where it has them.
    fn end(&self, shard: &Shard) -> Result<()> {
        if let (Some(gate), Some(embeddings)) = (&self.of(shard).embedding_gate, self.embeddings) {
            shard.all_batches(self.work.cut.sequences).try_for_each(|batch| {
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

    /// x += mixer(norm(x)) for some sequences, or for halves of them where that is too much for the
    /// device.
    fn mix(&self, shard: &Shard, batch: Range<usize>) -> Result<()> {
        let Some(mixer) = &self.of(shard).mixer else { return Ok(()) };
        split_on_oom(batch, &mut |rows| {
            let x = self.read(shard, Site::AttnIn, &mixer.reads, &rows)?;
            let mixed = self.mixed(shard, &mixer.body, &x, &rows)?;
            write(mixer, &shard.residual(&rows)?, mixed)
        })
    }

    /// x += mixer(norm(x)) + ffn(norm(x)) for some sequences: both read what was there before.
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

    /// What the mixer makes of `x`, which it reads of some sequences.
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

    /// One round of a mixture: through the mixer, then to the router. The experts follow when their
    /// weights are there.
    pub(super) fn mix_and_route(&self, shard: &mut Shard, round: usize) -> Result<()> {
        let Some(mut mixture) = shard.mixture.take() else { return Ok(()) };
        for batch in shard.batches(round, self.work.cut.sequences) {
            self.mix(shard, batch.clone())?;
            split_on_oom(batch, &mut |rows| self.route(shard, &mut mixture, rows))?;
        }
        shard.mixture = Some(mixture);
        Ok(())
    }

    /// Keeps what the experts of some sequences will read and who goes to which; adds the shared
    /// expert, where there is one.
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

    /// Makes room for what the experts will read, and for what they write where that is not simply
    /// added to the stream.
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

    /// Adds what the experts have written to the stream, where that is more than a sum.
    pub(super) fn end_mixture(&self, shard: &Shard) -> Result<()> {
        let (Some(ffn), Some(mixture)) = (&self.of(shard).ffn, &shard.mixture) else { return Ok(()) };
        if ffn.is_plain() {
            return self.end(shard);
        }
        shard.all_batches(self.work.cut.sequences).try_for_each(|batch| {
            split_on_oom(batch, &mut |rows| {
                let sum = mixture.sum.rows(rows.start * shard.positions, rows.len() * shard.positions)?;
                write(ffn, &shard.residual(&rows)?, sum)
            })
        })?;
        self.end(shard)
    }

    /// The layer as it is loaded for the shard.
    fn of(&self, shard: &Shard) -> &Layer<Tensor> {
        &self.loaded[shard.index]
    }

    /// What a sublayer reads of some sequences, shown as `site`.
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

    /// Shows `x` of some of the shard's sequences.
    fn show(&self, shard: &Shard, site: Site, rows: &Range<usize>, x: &Tensor) -> Result<()> {
        let first = shard.sequences.start;
        self.work.observers.show(SiteId { layer: self.i, site }, first + rows.start..first + rows.end, x)
    }
}

/// residual += y, by way of the norms and the factor of the sublayer that made it. Where memory is
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

/// Lets `f` change a matching piece of `residual` by each piece of at most `rows` rows of `x`.
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
