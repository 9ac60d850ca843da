//! The computation of one layer, usually x += mixer(norm(x)), then x += ffn(norm(x)), for the
//! sequences of one device. Observers receive the tensors at the sites that they want.

use std::ops::Range;

use super::shard::{Mixture, Shard};
use super::work::Work;
use crate::engine::attempt::{Changed, split_on_oom};
use crate::engine::attention::{self, Batch};
use crate::engine::layer_embeddings::LayerEmbeddings;
use crate::engine::observe::Onlookers;
use crate::engine::routing::{Assignment, ExpertValues};
use crate::engine::{deltanet, linear, mamba, moe};
use crate::error::{Result, fault};
use crate::ops;
use crate::record::{Site, SiteId};
use crate::spec::{Ffn, Layer, Mixer, Moe, Norm, Reads, Sublayer};
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

impl<'o> LayerAtWork<'_, 'o> {
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
            let (at, stream) = (self.onlookers(shard, &rows), shard.residual(&rows)?);
            let Changed(mixed) = write(mixer, &stream, mixed, |y| at.show(Site::AttnWrite, y))?;
            Ok(Changed(mixed.and_then(|()| at.show(Site::ResidMid, &stream))))
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
            let (at, stream) = (self.onlookers(shard, &rows), shard.residual(&rows)?);
            let Changed(mixed) = write(mixer, &stream, mixed, |y| at.show(Site::AttnWrite, y))?;
            let mixed = mixed.and_then(|()| at.show(Site::ResidMid, &stream));
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
        let onlookers = &self.onlookers(shard, rows);
        let batch = Batch {
            sequences: rows.len(),
            positions: shard.positions,
            rounded,
            rotary: &shard.rotary,
            borrowed,
            lends: shard.keys_and_values(self.i, rows)?,
            onlookers,
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
        let pieces = Pieces { rows, inner, sites: [Site::FfnMid, Site::FfnWrite] };
        self.in_pieces(shard, pieces, read, &shard.residual(rows)?, |at, x, residual| {
            let y = linear::mlp(mlp, x, self.work.rounded(), |inner| at.show(Site::FfnMid, inner))?;
            write(ffn, residual, y, |y| at.show(Site::FfnWrite, y))
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
        let of_stream = |norm: &Option<Norm<Tensor>>| match norm {
            Some(norm) => linear::norm(norm, &shard.residual(&rows)?),
            None => Ok(x.clone()),
        };
        let logits = moe::router_logits(moe, &of_stream(&moe.router.norm)?)?;
        let shape = (logits.len() / moe.num_experts, moe.num_experts);
        let at = self.onlookers(shard, &rows);
        at.show_made(Site::RouterLogits, || Tensor::from_vec(logits.clone(), shape, &shard.device))?;
        let first_row = rows.start * shard.positions;
        let experts_read = of_stream(&moe.expert_norm)?;
        mixture.assignment.route(first_row, &logits, (moe.top_k, &moe.router.scoring), &mixture.values);
        if let Some(edits) = &shard.edits {
            edits.without_experts(self.i, &rows, &mut mixture.assignment);
        }
        let sum = mixture.sum.rows(first_row, rows.len() * shard.positions)?;
        let rest = || {
            if moe.sum_norm.is_none() {
                let written = match &mixture.written {
                    Some(written) => Some(written.rows(first_row, rows.len() * shard.positions)?),
                    None => None,
                };
                self.add_shared(shard, moe, &rows, &x, (&sum, written.as_ref()))?;
            }
            mixture.x.set_rows(&experts_read, first_row)
        };
        Ok(Changed(rest()))
    }

    /// sum += shared expert(x) for some sequences, if the mixture has one; the second sum, which
    /// observers want, as well.
    fn add_shared(
        &self,
        shard: &Shard,
        moe: &Moe<Tensor>,
        rows: &Range<usize>,
        x: &Tensor,
        (sum, written): (&Tensor, Option<&Tensor>),
    ) -> Result<()> {
        let Some(shared) = &moe.shared else { return Ok(()) };
        let pieces = Pieces { rows, inner: moe.intermediate, sites: [Site::FfnMidShared; 2] };
        let compute = |at: &Onlookers, x: &Tensor| {
            let y = moe::shared_expert(shared, x, self.work.rounded(), |inner| at.show(Site::FfnMidShared, inner))?;
            at.show_shared_expert(&y)?;
            Ok(y)
        };
        let Some(written) = written else {
            return self.in_pieces(shard, pieces, x, sum, |at, x, sum| Ok(Changed(ops::add(sum, &compute(at, x)?))));
        };
        // Both sums get the same output, which is computed by itself.
        let own = Tensor::zeros(sum.dims().to_vec(), &shard.device)?;
        self.in_pieces(shard, pieces, x, &own, |at, x, own| Ok(Changed(own.set_rows(&compute(at, x)?, 0))))?;
        ops::add(written, &own)?;
        ops::add(sum, &own)
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
        let values = |of: &Option<Tensor>| of.as_ref().map(Tensor::values).transpose();
        let (correction, factors) = (values(&moe.router.correction_bias)?, values(&moe.router.expert_factors)?);
        let values = ExpertValues { correction, factors };
        let zeros = || Tensor::zeros(shard.hidden.dims().to_vec(), &shard.device);
        let sum = if adds_to_stream(ffn) { shard.hidden.clone() } else { zeros()? };
        let observers = shard.observers(self.work);
        let wanted = adds_to_stream(ffn) && observers.want(SiteId { layer: self.i, site: Site::FfnWrite });
        let written = if wanted { Some(zeros()?) } else { None };
        let (assignment, room) = (Assignment::new(moe.num_experts), ops::ExpertScratch::default());
        shard.mixture = Some(Mixture { x: zeros()?, sum, written, assignment, values, room });
        Ok(())
    }

    /// Adds the sum of the experts' outputs to the stream, if that needs more than an addition.
    pub(super) fn end_mixture(&self, shard: &Shard) -> Result<()> {
        let (Some(ffn), Some(mixture)) = (&self.of(shard).ffn, &shard.mixture) else { return Ok(()) };
        if adds_to_stream(ffn) {
            if let Some(written) = &mixture.written {
                self.show(shard, Site::FfnWrite, &(0..shard.sequences.len()), written)?;
            }
            return self.end(shard);
        }
        shard.all_batches(self.work.plan.sequences).try_for_each(|batch| {
            split_on_oom(batch, &mut |rows| {
                let stream = shard.residual(&rows)?;
                let mut sum = mixture.sum.rows(rows.start * shard.positions, rows.len() * shard.positions)?;
                if let Ffn::Moe(moe) = &ffn.body
                    && let Some(norm) = &moe.sum_norm
                {
                    sum = linear::norm(norm, &sum)?;
                    self.add_shared(shard, moe, &rows, &read(&ffn.reads, &stream)?, (&sum, None))?;
                }
                let at = self.onlookers(shard, &rows);
                write(ffn, &stream, sum, |y| at.show(Site::FfnWrite, y))
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
        let read = read(reads, &shard.residual(rows)?)?;
        self.show(shard, site, rows, &read)?;
        shard.changed(SiteId { layer: self.i, site }, rows, read)
    }

    /// Gives `x`, for some of the shard's sequences, to the observers.
    fn show(&self, shard: &Shard, site: Site, rows: &Range<usize>, x: &Tensor) -> Result<()> {
        self.onlookers(shard, rows).show(site, x)
    }

    /// The observers of what is computed for some of the shard's sequences.
    fn onlookers(&self, shard: &Shard, rows: &Range<usize>) -> Onlookers<'_, 'o> {
        let first = shard.sequences.start;
        let sequences = first + rows.start..first + rows.end;
        Onlookers { observers: shard.observers(self.work), layer: self.i, sequences }
    }

    /// Calls `f` for pieces of `x`, which belongs to some sequences, with the matching piece of
    /// `residual`, which it changes. If a site of the pieces is observed, they are whole sequences.
    fn in_pieces(
        &self,
        shard: &Shard,
        pieces: Pieces,
        x: &Tensor,
        residual: &Tensor,
        f: impl Fn(&Onlookers, &Tensor, &Tensor) -> Result<Changed>,
    ) -> Result<()> {
        let Pieces { rows: sequences, inner, sites } = pieces;
        let at = self.onlookers(shard, sequences);
        let most = self.work.ffn_rows(inner);
        let shared = || sites.contains(&Site::FfnMidShared) && at.want_shared_expert();
        let whole = shard.whole || sites.iter().any(|site| at.want(*site)) || shared();
        let unit = if whole { shard.positions } else { 1 };
        let (all, step) = (x.dims()[0] / unit, (most / unit).max(1));
        for start in (0..all).step_by(step) {
            split_on_oom(start..(start + step).min(all), &mut |part| {
                let (first, count) = (part.start * unit, part.len() * unit);
                let piece = sequences.start + part.start..sequences.start + part.end;
                let at = if unit == 1 { self.onlookers(shard, sequences) } else { self.onlookers(shard, &piece) };
                f(&at, &x.rows(first, count)?, &residual.rows(first, count)?)
            })?;
        }
        Ok(())
    }
}

/// How a feed-forward network is computed in pieces.
struct Pieces<'a> {
    /// The sequences.
    rows: &'a Range<usize>,
    /// Inner width of the network.
    inner: usize,
    /// The sites inside.
    sites: [Site; 2],
}

/// The input of a sublayer.
pub(super) fn read(reads: &Reads<Tensor>, stream: &Tensor) -> Result<Tensor> {
    match reads {
        Reads::Norm(norm) => linear::norm(norm, stream),
        Reads::Stream => Ok(stream.clone()),
        Reads::AsMixer => fault!("a feed-forward network that reads as the mixer does comes beside it"),
    }
}

/// Whether the experts of a mixture add their outputs to the stream directly.
fn adds_to_stream(ffn: &Sublayer<Ffn<Tensor>, Tensor>) -> bool {
    ffn.is_plain() && !matches!(&ffn.body, Ffn::Moe(moe) if moe.sum_norm.is_some())
}

/// residual += y, with the norms and the factor of the sublayer that computed y. `shown` receives
/// what is added. If memory is too short for that, nothing has changed.
fn write<B>(
    sublayer: &Sublayer<B, Tensor>,
    residual: &Tensor,
    y: Tensor,
    shown: impl FnOnce(&Tensor) -> Result<()>,
) -> Result<Changed> {
    let y = match &sublayer.write_norm {
        Some(norm) => linear::norm(norm, &y)?,
        None => y,
    };
    if sublayer.factor != 1.0 {
        ops::scale(&y, sublayer.factor as f32)?;
    }
    shown(&y)?;
    Ok(Changed(match &sublayer.sum_norm {
        None => ops::add(residual, &y),
        Some(norm) => {
            ops::add(&y, residual)?;
            let normed = linear::norm(norm, &y)?;
            residual.set_rows(&normed, 0)
        }
    }))
}
