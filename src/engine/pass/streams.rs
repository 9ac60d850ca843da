//! The residual streams of lanes beside the model as it is. Lanes with the same weights are
//! computed together, in a shard on each device that has the sequences of one lane after another.

use std::sync::Arc;

use super::layer::LayerAtWork;
use super::shard::{LentKv, ROUNDS, Shard, each};
use super::work::Work;
use crate::engine::lanes::{Edits, Lanes, Planned, change_stream};
use crate::engine::layer_embeddings::LayerEmbeddings;
use crate::engine::moe;
use crate::error::Result;
use crate::spec::{Layer, Mlp, Model, Moe};
use crate::tensor::Tensor;
use crate::weights::ShardPlan;

/// A stream and what it carries for later layers, of each device.
pub(crate) type Carried = Vec<(Tensor, LentKv)>;

/// Lanes that use the same weights.
struct Group {
    /// With their numbers, in the order in which they begin.
    lanes: Vec<(usize, Arc<Planned>)>,
    /// Number of lanes that have a stream.
    begun: usize,
    /// The shard of each device, once a lane has begun.
    shards: Vec<Shard>,
    /// Of each device the memory for the streams of all its lanes, those that have begun first.
    room: Vec<Tensor>,
    /// The variant of the layer at work for each device, if it has one.
    variant: Option<Vec<Layer<Tensor>>>,
}

/// All lanes beside the model as it is.
pub(super) struct Streams {
    lanes: Arc<Lanes>,
    groups: Vec<Group>,
}

/// The layer at work.
pub(super) struct AtLayer<'a, 'o> {
    pub work: &'a Work<'o>,
    pub i: usize,
    pub loaded: &'a [Layer<Tensor>],
    pub embeddings: Option<&'a LayerEmbeddings>,
}

impl Streams {
    /// `carried` is what each group had when an earlier run was cut off after `layers` layers.
    pub(super) fn new(
        lanes: &Arc<Lanes>,
        (plans, positions): (&[ShardPlan], usize),
        (layers, carried): (usize, Vec<Carried>),
    ) -> Result<Self> {
        let mut carried = carried.into_iter();
        let begun = lanes.begun(layers);
        let group = |(lanes_of, begun): (Vec<(usize, Arc<Planned>)>, usize)| {
            let mut group = Group { lanes: lanes_of, begun, shards: Vec::new(), room: Vec::new(), variant: None };
            if begun > 0
                && let Some(carried) = carried.next()
            {
                for ((index, plan), (hidden, lent)) in plans.iter().enumerate().zip(carried) {
                    let (rows, width) = hidden.dims2()?;
                    let room = Tensor::zeros((rows / begun * group.lanes.len(), width), &plan.device)?;
                    room.set_rows(&hidden, 0)?;
                    let carried = (room.rows(0, rows)?, lent);
                    group.room.push(room);
                    let shard = group.shard(lanes, (index, plan), positions, carried);
                    group.shards.push(shard);
                }
            }
            Ok(group)
        };
        let groups = lanes.groups().into_iter().zip(begun).map(group).collect::<Result<_>>()?;
        Ok(Self { lanes: lanes.clone(), groups })
    }

    /// Number of lanes.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.lanes.len()).sum()
    }

    /// Gives lanes that differ from layer `i` on a stream of their own, and makes all ready for
    /// that layer. `baseline` has the shards of the model as it is, before the layer.
    pub(super) fn begin(&mut self, (i, model): (usize, &Model), baseline: &[Shard]) -> Result<()> {
        for group in &mut self.groups {
            let before = group.begun;
            group.begun = group.lanes.iter().filter(|(_, lane)| lane.first <= i).count();
            if group.begun == before {
                continue;
            }
            let mut shards = Vec::new();
            for (index, of) in baseline.iter().enumerate() {
                let old = group.shards.get(index);
                let grown = |old: Option<&Tensor>, base: &Tensor| -> Result<Tensor> {
                    let (rows, width) = base.dims2()?;
                    let all = Tensor::zeros((group.begun * rows, width), &of.device)?;
                    if let Some(old) = old {
                        all.set_rows(old, 0)?;
                    }
                    (before..group.begun).try_for_each(|lane| all.set_rows(base, lane * rows))?;
                    Ok(all)
                };
                let (rows, width) = of.hidden.dims2()?;
                if group.room.len() <= index {
                    group.room.push(Tensor::zeros((group.lanes.len() * rows, width), &of.device)?);
                }
                let room = &group.room[index];
                (before..group.begun).try_for_each(|lane| room.set_rows(&of.hidden, lane * rows))?;
                let hidden = room.rows(0, group.begun * rows)?;
                let mut lent = LentKv::new();
                for (layer, [keys, values]) in &of.lent {
                    let old = old.and_then(|shard| shard.lent.get(layer));
                    lent.insert(*layer, [grown(old.map(|of| &of[0]), keys)?, grown(old.map(|of| &of[1]), values)?]);
                }
                let plan = ShardPlan { device: of.device.clone(), sequences: of.sequences.clone() };
                shards.push(group.shard(&self.lanes, (index, &plan), of.positions, (hidden, lent)));
            }
            group.shards = shards;
            if let Some(layer) = i.checked_sub(1) {
                group.change_streams(layer, before, baseline)?;
            }
        }
        for shard in self.groups.iter_mut().flat_map(|group| &mut group.shards) {
            if let Some(layer) = model.layers.get(i) {
                shard.prepare_lent(model, i)?;
                let Shard { rotary, device, positions, .. } = shard;
                rotary.prepare(layer, *positions, device)?;
            }
        }
        Ok(())
    }

    /// Computes a layer whose feed-forward network is the same for all tokens.
    pub(super) fn dense(&mut self, at: &AtLayer) -> Result<()> {
        for group in self.groups.iter_mut().filter(|group| group.begun > 0) {
            group.prepare(at)?;
            let Group { shards, variant, .. } = group;
            let layer = at_work(at, variant.as_deref());
            each(shards, |shard| layer.dense(shard))?;
            group.variant = None;
        }
        Ok(())
    }

    /// Computes mixer and router of a layer with experts.
    pub(super) fn mix_and_route(&mut self, at: &AtLayer) -> Result<()> {
        for group in self.groups.iter_mut().filter(|group| group.begun > 0) {
            group.prepare(at)?;
            let Group { shards, variant, .. } = group;
            let layer = at_work(at, variant.as_deref());
            each(shards, |shard| layer.begin_mixture(shard))?;
            (0..ROUNDS).try_for_each(|round| each(shards, |shard| layer.mix_and_route(shard, round)))?;
        }
        Ok(())
    }

    /// Whether a token of any lane goes to this expert.
    pub(super) fn use_expert(&self, expert: usize) -> bool {
        let mixtures = self.groups.iter().flat_map(|group| &group.shards).flat_map(|shard| &shard.mixture);
        mixtures.into_iter().any(|mixture| mixture.assignment.uses(expert))
    }

    /// Adds what an expert, as loaded for each device, makes of its tokens.
    pub(super) fn expert(&self, at: &AtLayer, (moe, expert): (&Moe, usize), networks: &[Mlp<Tensor>]) -> Result<()> {
        let rows_per_product = at.work.ffn_rows(moe.intermediate);
        for group in self.groups.iter().filter(|group| group.begun > 0) {
            for (shard, network) in group.shards.iter().zip(networks) {
                let Some(mixture) = shard.mixture.as_ref().filter(|mixture| mixture.assignment.uses(expert)) else {
                    continue;
                };
                let spec = moe.experts.network(expert);
                let own = group.lanes[0].1.variant.expert((at.i, expert), &spec, network, shard.positions)?;
                let (assignment, room) = (&mixture.assignment, &mixture.room);
                let (on_input, rounded) = (moe.router.scoring.on_input, at.work.rounded());
                let chosen = moe::Chosen { expert, assignment, rows_per_product, on_input, rounded, room };
                moe::routed_expert(own.as_ref().unwrap_or(network), &chosen, &mixture.x, &mixture.sum, None)?;
            }
        }
        Ok(())
    }

    /// Adds the sums of experts to the streams.
    pub(super) fn end_mixture(&mut self, at: &AtLayer) -> Result<()> {
        for group in self.groups.iter_mut().filter(|group| group.begun > 0) {
            let Group { shards, variant, .. } = group;
            let layer = at_work(at, variant.as_deref());
            each(shards, |shard| {
                layer.end_mixture(shard)?;
                shard.mixture = None;
                Ok(())
            })?;
            group.variant = None;
        }
        Ok(())
    }

    /// Changes the streams after layer `i`, which is complete for the model as it is as well.
    pub(super) fn end(&self, i: usize, baseline: &[Shard]) -> Result<()> {
        self.groups.iter().try_for_each(|group| group.change_streams(i, 0, baseline))
    }

    /// Of each group, the part of every shard that belongs to lanes which have begun before
    /// `layers`: streams, and what later layers use, of the layers `lenders`.
    pub(super) fn state(&self, layers: usize, lenders: &[usize]) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let (mut hidden, mut lent) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let begun = group.lanes.iter().filter(|(_, lane)| lane.first < layers).count();
            for shard in group.shards.iter().filter(|_| begun > 0) {
                let part = |all: &Tensor| all.rows(0, all.dims()[0] / group.begun * begun);
                hidden.push(part(&shard.hidden)?);
                for both in lenders.iter().filter_map(|from| shard.lent(*from)) {
                    both.iter().try_for_each(|of| part(of).map(|part| lent.push(part)))?;
                }
            }
        }
        Ok((hidden, lent))
    }

    /// Calls `f` with each lane's number and its stream on each device, by which it is ordered.
    pub(super) fn each_stream(&self, mut f: impl FnMut(usize, usize, Tensor) -> Result<()>) -> Result<()> {
        for group in &self.groups {
            for (device, shard) in group.shards.iter().enumerate() {
                for (place, (lane, _)) in group.lanes.iter().take(group.begun).enumerate() {
                    f(*lane, device, group.stream(shard, place)?)?;
                }
            }
        }
        Ok(())
    }
}

/// The layer as it is computed for some lanes.
fn at_work<'a, 'o>(at: &'a AtLayer<'a, 'o>, variant: Option<&'a [Layer<Tensor>]>) -> LayerAtWork<'a, 'o> {
    LayerAtWork { work: at.work, i: at.i, loaded: variant.unwrap_or(at.loaded), embeddings: at.embeddings }
}

impl Group {
    fn shard(
        &self,
        lanes: &Lanes,
        (index, plan): (usize, &ShardPlan),
        positions: usize,
        (hidden, lent): (Tensor, LentKv),
    ) -> Shard {
        let of_lane = plan.sequences.clone();
        let all = ShardPlan { device: plan.device.clone(), sequences: 0..self.begun * of_lane.len() };
        let mut shard = Shard::new((index, all), positions, (hidden, lent));
        let begun = self.lanes[..self.begun].to_vec();
        let edits = Edits { lanes: begun, seen: lanes.seen.clone(), sequences: of_lane, positions };
        shard.edits = Some(Arc::new(edits));
        shard.whole = self.lanes[0].1.variant.rounds_inputs();
        shard
    }

    /// Makes the variant of the layer.
    fn prepare(&mut self, at: &AtLayer) -> Result<()> {
        let (variant, spec) = (&self.lanes[0].1.variant, &at.work.model.spec.layers[at.i]);
        let of = |(loaded, shard): (&Layer<Tensor>, &Shard)| variant.layer((at.i, spec), loaded, shard.positions);
        let made = at.loaded.iter().zip(&self.shards).map(of).collect::<Result<Option<Vec<_>>>>()?;
        self.variant = made;
        Ok(())
    }

    /// The stream of the lane at `place` on the device of `shard`.
    fn stream(&self, shard: &Shard, place: usize) -> Result<Tensor> {
        let rows = shard.hidden.dims()[0] / self.begun;
        shard.hidden.rows(place * rows, rows)
    }

    /// Changes the streams of lanes from `first` on after a layer.
    fn change_streams(&self, layer: usize, first: usize, baseline: &[Shard]) -> Result<()> {
        let streams: Vec<&Tensor> = baseline.iter().map(|shard| &shard.hidden).collect();
        for (shard, of) in self.shards.iter().zip(baseline) {
            for (place, (_, lane)) in self.lanes.iter().enumerate().take(self.begun).skip(first) {
                let sequences = (&of.sequences, of.positions);
                change_stream((layer, lane), sequences, &self.stream(shard, place)?, &streams)?;
            }
        }
        Ok(())
    }
}
