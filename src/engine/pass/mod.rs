//! The layer-streamed forward pass, which has the only loop over layers in the program.
//!
//! All sequences go through a layer before the next one begins, so each weight is read once. Memory
//! holds the residual stream of all sequences (f32), the weights of the current layer, the weights
//! that are read ahead, and a bounded workspace.

mod layer;
mod probing;
mod shard;
mod stream;
mod streams;
mod work;

use std::sync::Arc;
use std::time::Instant;

pub(super) use shard::{LentKv, ROUNDS};
pub(super) use stream::{ReadAhead, WeightStream};
pub(super) use streams::Carried;
pub(super) use work::Work;

use super::embed::{self, TokenRows};
use super::lanes::Lanes;
use super::layer_embeddings::LayerEmbeddings;
use super::observe::{ExpertRows, State};
use super::{head, moe};
use crate::error::Result;
use crate::ops::{self, Computed};
use crate::progress::{Event, Progress};
use crate::record::{ExpertCoverage, Site, SiteId, Tokens};
use crate::spec::{Layer, Moe};
use crate::tensor::{Device, Tensor};
use crate::weights::load::Loader;
use crate::weights::{OpenModel, ShardPlan};
use layer::LayerAtWork;
use shard::{Mixture, Shard, each};
use streams::{AtLayer, Streams};

/// The point at which a pass begins.
pub(super) struct Start {
    /// The first layer that is computed.
    pub layer: usize,
    /// The residual stream of each shard before that layer, or None if the tokens are to be
    /// embedded.
    pub hidden: Option<Vec<Tensor>>,
    /// The keys and values that earlier layers have left for later ones, for each shard.
    pub lent: Vec<LentKv>,
    /// The streams of lanes that have begun, by group.
    pub lanes: Vec<Carried>,
    pub coverage: Vec<ExpertCoverage>,
}

/// Receives the state between two layers.
pub(super) trait Between {
    /// A layer is complete, and the next has not begun.
    fn layer_done(&mut self, state: &State);

    /// The pass is about to be stopped. It ends with an error after this call.
    fn interrupted(&mut self, state: &State);
}

/// One pass of all tokens through all layers.
pub(super) struct Pass<'a> {
    work: Work<'a>,
    tokens: &'a Tokens,
    embeddings: Option<LayerEmbeddings>,
    shards: Vec<Shard>,
    lanes: Arc<Lanes>,
    /// The streams of lanes beside the model as it is.
    streams: Streams,
    stream: WeightStream<'a>,
    coverage: Vec<ExpertCoverage>,
    /// The first layer of this pass.
    first: usize,
    /// Number of bytes that the checkpoint had read when the pass began.
    already_read: u64,
    /// True if a device had no memory for pieces of the usual size.
    oom_reported: bool,
    progress: &'a dyn Progress,
}

/// The results of a pass besides those of its observers.
pub(super) struct Outcome {
    pub coverage: Vec<ExpertCoverage>,
    /// Number of bytes of tensor data that were needed.
    pub needed: u64,
    pub times: crate::weights::reader::Times,
    /// The largest number of bytes in use at the same time on any GPU.
    pub peak_vram: u64,
    /// The output of the head, if logits were requested.
    pub head: Option<head::HeadOutput>,
}

impl<'a> Pass<'a> {
    /// Prepares a pass. `already_read` is the number of bytes that the checkpoint had read before
    /// this run.
    pub(super) fn new(
        work: Work<'a>,
        plans: Vec<ShardPlan>,
        tokens: &'a Tokens,
        start: Start,
        mut stream: WeightStream<'a>,
        lanes: Arc<Lanes>,
        (already_read, progress): (u64, &'a dyn Progress),
    ) -> Result<Self> {
        for plan in &plans {
            work.observers.assign_sequences(&plan.device, &plan.sequences)?;
        }
        let model = work.model;
        let (mut embeddings, mut lent) = (None, start.lent);
        let hidden = match start.hidden {
            // Only the head is left, or layers that need nothing but the stream.
            Some(hidden) if start.layer == model.spec.layers.len() || model.spec.layer_embeddings.is_none() => hidden,
            resumed => {
                let rows = TokenRows::read(model, tokens, &mut stream.needed)?;
                embeddings = LayerEmbeddings::read(model, tokens, &rows, &mut stream.needed)?;
                match resumed {
                    Some(hidden) => hidden,
                    None => embedded(model, &plans, tokens, &rows, &mut stream.needed)?,
                }
            }
        };
        lent.resize_with(plans.len(), LentKv::new);
        let positions = tokens.info.sequence_length;
        let streams = Streams::new(&lanes, (&plans, positions), (start.layer, start.lanes))?;
        let shards = plans.into_iter().enumerate().zip(hidden.into_iter().zip(lent));
        let shards = shards.map(|(plan, hidden)| Shard::new(plan, positions, hidden)).collect();
        let (coverage, first) = (start.coverage, start.layer);
        Ok(Self {
            work,
            tokens,
            embeddings,
            shards,
            lanes,
            streams,
            stream,
            coverage,
            first,
            already_read,
            oom_reported: false,
            progress,
        })
    }

    /// Reads all weights before the first layer begins.
    pub(super) fn preload(&mut self) -> Result<()> {
        self.stream.preload(|layer| self.work.needs_ffn(layer))
    }

    /// Computes all layers, and the head if it is needed.
    pub(super) fn run(mut self, between: &mut dyn Between) -> Result<Outcome> {
        if self.first == 0 {
            self.show_streams(SiteId { layer: 0, site: Site::Embed })?;
        }
        self.layers(between)?;
        let model = &self.work.model.spec;
        self.streams.begin((model.layers.len(), model), &self.shards)?;
        let last = SiteId { layer: self.work.model.spec.layers.len() - 1, site: Site::FinalNorm };
        let head = match self.work.logits || self.work.observers.want(last) {
            true => self.head(last, between)?,
            false => None,
        };
        self.work.observers.fetch()?;
        let mut needed = self.stream.needed;
        if self.work.logits {
            needed += self.work.model.head_bytes()?;
        }
        let peak_vram = self.shards.iter().map(|shard| shard.device.peak()).max().unwrap_or(0);
        Ok(Outcome { coverage: self.coverage, needed, times: self.stream.times(), peak_vram, head })
    }

    fn layers(&mut self, between: &mut dyn Between) -> Result<()> {
        let model = self.work.model;
        let layers = &model.spec.layers;
        let ahead = model.info.chunk_layers.max(1) - 1;
        for layer in self.first..=(self.first + ahead).min(layers.len() - 1) {
            self.stream.request_core(layer, self.work.needs_ffn(layer))?;
        }
        let begin = Instant::now();
        for (i, layer) in layers.iter().enumerate().skip(self.first) {
            if self.progress.interrupted() {
                between.interrupted(&self.state(i)?);
                return Err(crate::error::Error::interrupted());
            }
            let loaded = self.stream.layer(i, self.work.needs_ffn(i), &self.work.observers)?;
            if i > self.first && ahead > 0 {
                self.stream.request_core(i + ahead, self.work.needs_ffn(i + ahead))?;
            }
            self.layer(i, layer, loaded)?;
            self.tell(i, begin);
            between.layer_done(&self.state(i + 1)?);
            if ahead == 0 {
                self.stream.request_core(i + 1, self.work.needs_ffn(i + 1))?;
            }
        }
        self.progress.event(Event::End);
        Ok(())
    }

    fn layer(&mut self, i: usize, layer: &Layer, loaded: Vec<Layer<Tensor>>) -> Result<()> {
        self.streams.begin((i, &self.work.model.spec), &self.shards)?;
        for shard in &mut self.shards {
            shard.prepare_lent(&self.work.model.spec, i)?;
            let Shard { rotary, device, positions, .. } = shard;
            device.mark_layer(i)?;
            rotary.prepare(layer, *positions, device)?;
        }
        let embeddings = self.embeddings.as_ref();
        probing::probe(&AtLayer { work: &self.work, i, loaded: &loaded, embeddings }, &self.lanes, &self.shards)?;
        match layer.moe() {
            Some(moe) if self.work.needs_ffn(i) => self.mixture(i, moe, loaded)?,
            _ => {
                let at = LayerAtWork { work: &self.work, i, loaded: &loaded, embeddings };
                each(&mut self.shards, |shard| at.dense(shard))?;
                self.streams.dense(&AtLayer { work: &self.work, i, loaded: &loaded, embeddings })?;
                // The weights are dropped before others are requested.
                drop(loaded);
            }
        }
        self.show_streams(SiteId { layer: i, site: Site::ResidPost })?;
        self.streams.end(i, &self.shards)?;
        let streams: Vec<_> = self.shards.iter().map(|shard| (shard.sequences.clone(), &shard.hidden)).collect();
        self.work.observers.end_layer(i, &streams)?;
        self.shards.iter().try_for_each(|shard| shard.device.throttle())
    }

    /// Gives the residual stream to the observers of a site.
    fn show_streams(&self, site: SiteId) -> Result<()> {
        let show = |shard: &Shard| self.work.observers.show(site, shard.sequences.clone(), &shard.hidden);
        self.shards.iter().try_for_each(show)
    }

    /// Computes a layer with experts: all tokens of all sequences are grouped by expert, and each
    /// expert's weights are read once.
    fn mixture(&mut self, i: usize, moe: &Moe, loaded: Vec<Layer<Tensor>>) -> Result<()> {
        let (work, shards) = (&self.work, &mut self.shards);
        let mut requested: Vec<usize> = Vec::new();
        let at = LayerAtWork { work, i, loaded: &loaded, embeddings: self.embeddings.as_ref() };
        each(shards, |shard| at.begin_mixture(shard))?;
        for round in 0..ROUNDS {
            each(shards, |shard| at.mix_and_route(shard, round))?;
            for expert in (0..moe.num_experts).filter(|expert| !requested.contains(expert)).collect::<Vec<_>>() {
                if shards.iter().flat_map(|shard| &shard.mixture).any(|mixture| mixture.assignment.uses(expert)) {
                    self.stream.request_expert(i, moe, expert)?;
                    requested.push(expert);
                }
            }
        }
        // Experts come in the order of the model as it is, whatever lanes choose beside it.
        let lanes = AtLayer { work, i, loaded: &loaded, embeddings: self.embeddings.as_ref() };
        self.streams.mix_and_route(&lanes)?;
        for expert in (0..moe.num_experts).filter(|expert| !requested.contains(expert)).collect::<Vec<_>>() {
            if self.streams.use_expert(expert) {
                self.stream.request_expert(i, moe, expert)?;
                requested.push(expert);
            }
        }
        self.stream.skip_other_experts(i, moe, &requested);
        let rows_per_product = work.ffn_rows(moe.intermediate);
        for expert in requested {
            let networks = self.stream.expert(i, moe, expert, &work.observers)?;
            for (shard, network) in shards.iter().zip(&networks) {
                let Some(Mixture { x, sum, written, assignment, room, .. }) = &shard.mixture else { continue };
                let on_input = moe.router.scoring.on_input;
                let rounded = work.rounded();
                let chosen = moe::Chosen { expert, assignment, rows_per_product, on_input, rounded, room };
                let first_token = shard.sequences.start * shard.positions;
                let (experts, top_k) = (moe.num_experts, moe.top_k);
                let shown = |rows: &[u32], weights: &[f32], of: &Computed| {
                    if let Some(written) = written {
                        // The output has its weight already if that multiplied the input.
                        let ones = on_input.then(|| vec![1.0; rows.len()]);
                        ops::add_rows(written, &of.output, rows, ones.as_deref().unwrap_or(weights))?;
                    }
                    let (inner, output) = (&of.inner, &of.output);
                    let of = ExpertRows {
                        layer: i,
                        expert,
                        experts,
                        top_k,
                        first_token,
                        rows,
                        weights,
                        on_input,
                        input: x,
                        inner,
                        output,
                    };
                    work.observers.show_expert(&of)
                };
                let observed = written.is_some() || work.observers.want_experts(i);
                moe::routed_expert(network, &chosen, x, sum, observed.then_some(&shown as &moe::Shown))?;
            }
            self.streams.expert(&lanes, (moe, expert), &networks)?;
            drop(networks);
            shards.iter().try_for_each(|shard| shard.device.throttle())?;
        }
        each(shards, |shard| at.end_mixture(shard))?;
        self.streams.end_mixture(&lanes)?;
        let mut tokens_per_expert = vec![0; moe.num_experts];
        for mixture in shards.iter_mut().filter_map(|shard| shard.mixture.take()) {
            let rows = mixture.assignment.rows.iter();
            tokens_per_expert.iter_mut().zip(rows).for_each(|(sum, rows)| *sum += rows.len() as u64);
        }
        self.coverage.push(ExpertCoverage { layer: i, tokens_per_expert });
        Ok(())
    }

    /// Reports that layer `i` is done, and once that a device was full.
    fn tell(&mut self, i: usize, begin: Instant) {
        // Every device is asked, because each gives its answer once.
        let full = self.shards.iter().fold(false, |full, shard| shard.device.take_oom_flag() | full);
        if full && !std::mem::replace(&mut self.oom_reported, true) {
            let what = "the GPU's memory is full: work is cut into smaller pieces";
            self.progress.event(Event::Warning(what.to_string()));
        }
        let tokens = (self.tokens.info.num_sequences * self.tokens.info.sequence_length) as u64;
        let seconds = begin.elapsed().as_secs_f64();
        self.progress.event(Event::Step { done: i as u64 + 1, bytes: self.bytes_read(), tokens, seconds });
    }

    fn bytes_read(&self) -> u64 {
        self.work.model.checkpoint.bytes_read() - self.already_read
    }

    fn state(&self, layers: usize) -> Result<State<'_, 'a>> {
        let lenders: Vec<usize> = self.work.model.spec.lenders(layers).into_iter().collect();
        let lent_by = |shard: &Shard| -> Vec<Tensor> {
            lenders.iter().filter_map(|from| shard.lent(*from)).flatten().cloned().collect()
        };
        let mut hidden: Vec<Tensor> = self.shards.iter().map(|shard| shard.hidden.clone()).collect();
        let mut lent: Vec<Tensor> = self.shards.iter().flat_map(lent_by).collect();
        let (of_lanes, lent_by_lanes) = self.streams.state(layers, &lenders)?;
        hidden.extend(of_lanes);
        lent.extend(lent_by_lanes);
        let (observers, coverage, bytes_read) = (&self.work.observers, &self.coverage[..], self.bytes_read());
        Ok(State { layers, hidden, lent, observers, coverage, bytes_read })
    }

    /// The output of the head, if it is needed. Its input is shown as the site `last`.
    fn head(&mut self, last: SiteId, between: &mut dyn Between) -> Result<Option<head::HeadOutput>> {
        let model = self.work.model;
        let before = self.stream.before_head(&self.work.observers)?;
        let devices: Vec<Device> = self.shards.iter().map(|shard| shard.device.clone()).collect();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &devices };
        let rounded = self.work.rounded();
        let read = |(before, shard): (_, &Shard)| head::read(before, &shard.hidden, rounded);
        let normed = before.iter().zip(&self.shards).map(read).collect::<Result<Vec<_>>>()?;
        for (shard, normed) in self.shards.iter().zip(&normed) {
            self.work.observers.show(last, shard.sequences.clone(), normed)?;
        }
        if !self.work.logits {
            return Ok(None);
        }
        let mut lanes = vec![Vec::new(); self.streams.len()];
        self.streams.each_stream(|lane, device, stream| {
            lanes[lane - 1].push(head::read(&before[device], &stream, rounded)?);
            Ok(())
        })?;
        let bias = before.first().and_then(|before| before.head_bias.as_ref());
        let (spec, inputs) = ((&model.spec, &self.work.observers), (&normed[..], &lanes[..]));
        let outcome = head::head(spec, &loader, bias, inputs, (&self.tokens.ids, rounded), self.progress);
        if outcome.as_ref().is_err_and(|error| error.kind == crate::error::Kind::Interrupted) {
            between.interrupted(&self.state(model.spec.layers.len())?);
        }
        outcome.map(Some)
    }
}

/// The residual stream of each shard before the first layer.
fn embedded(
    model: &OpenModel,
    plans: &[ShardPlan],
    tokens: &Tokens,
    rows: &TokenRows,
    needed: &mut u64,
) -> Result<Vec<Tensor>> {
    let mut embedded = embed::embed(model, tokens, rows, needed)?;
    let width = model.spec.hidden_size;
    let of = |plan: &ShardPlan| {
        let rows = plan.sequences.len() * tokens.info.sequence_length;
        let rest = embedded.split_off(rows * width);
        let mine = std::mem::replace(&mut embedded, rest);
        Tensor::from_vec(mine, (rows, width), &plan.device)
    };
    plans.iter().map(of).collect()
}
