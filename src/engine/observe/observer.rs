//! The interface between the pass and its observers.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use crate::error::Result;
use crate::ops::Received;
use crate::record::{ExpertCoverage, Site, SiteId};
use crate::spec::inventory::Part;
use crate::tensor::{Device, Tensor};

/// Tokens of an expert, with what it reads and computes for them.
pub struct ExpertRows<'a> {
    pub layer: usize,
    pub expert: usize,
    /// Number of experts in the layer.
    pub experts: usize,
    /// Number of experts of each token.
    pub top_k: usize,
    /// Index of the first token of `input` among all tokens.
    pub first_token: usize,
    /// The tokens, ascending, as rows of `input`.
    pub rows: &'a [u32],
    /// The routing weight of each token.
    pub weights: &'a [f32],
    /// True if the routing weight has multiplied the input, and `output` has it already.
    pub on_input: bool,
    /// What all experts read, [tokens, hidden].
    pub input: &'a Tensor,
    /// The input of the down projection, [rows, intermediate].
    pub inner: &'a Tensor,
    /// The output before the routing weight, [rows, hidden].
    pub output: &'a Tensor,
}

impl ExpertRows<'_> {
    /// The index of each row's token among all tokens.
    pub fn tokens(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().map(|row| self.first_token + *row as usize)
    }
}

/// Receives tensors of a pass and computes a result from them.
///
/// Sequences come in batches, in any order and from several devices, with one call at a time. The
/// result must not depend on the order. A batch may be observed a second time, if a device ran out
/// of memory in a later step: the later tensor replaces the earlier one.
pub trait Observer: Send {
    /// True if the observer wants the tensors of this site in this layer.
    fn wants(&self, _site: SiteId) -> bool {
        false
    }

    /// Announces, before the first tensor, the sequences that `device` computes.
    fn assign_sequences(&mut self, _device: &Device, _sequences: Range<usize>) -> Result<()> {
        Ok(())
    }

    /// Receives `x` [sequences * positions, width] in f32, on the device that computes these
    /// sequences.
    fn observe(&mut self, _site: SiteId, _sequences: Range<usize>, _x: &Tensor) -> Result<()> {
        Ok(())
    }

    /// True if the observer wants the rows of single experts of this layer.
    fn wants_experts(&self, _layer: usize) -> bool {
        false
    }

    /// Receives rows of an expert on the device that computes them: those of one expert in
    /// ascending order of tokens, each once, with all rows of an expert before those of the next.
    fn observe_expert(&mut self, _rows: &ExpertRows) -> Result<()> {
        Ok(())
    }

    /// True if the observer wants what the shared expert of this layer adds.
    fn wants_shared_expert(&self, _layer: usize) -> bool {
        false
    }

    /// Receives the output of the shared expert [sequences * positions, hidden], with its gate and
    /// its norm, on the device that computes it.
    fn observe_shared_expert(&mut self, _layer: usize, _sequences: Range<usize>, _y: &Tensor) -> Result<()> {
        Ok(())
    }

    /// True if the observer wants the attention that the positions of this layer receive.
    fn wants_attention(&self, _layer: usize) -> bool {
        false
    }

    /// Receives the attention of some sequences in a layer.
    fn observe_attention(&mut self, _layer: usize, _sequences: Range<usize>, _received: &Received) -> Result<()> {
        Ok(())
    }

    /// True if the observer wants the weights that are read.
    fn wants_weights(&self) -> bool {
        false
    }

    /// Receives weights that have been read, of a layer or outside the layers, as they are on one
    /// of the devices. Weights of a resumed run may come a second time.
    fn observe_weights(&mut self, _layer: Option<usize>, _parts: &[Part], _loaded: &[Tensor]) -> Result<()> {
        Ok(())
    }

    /// Receives the residual stream [sequences * positions, hidden] after a layer, of all devices
    /// with the sequences of each. Nothing more of this layer follows.
    fn end_layer(&mut self, _layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        Ok(())
    }

    /// Fetches results that are still on devices. It is called before `save` and at the end.
    fn fetch(&mut self) -> Result<()> {
        Ok(())
    }

    /// Writes the state after the first `layers` layers to a checkpoint.
    fn save(&mut self, layers: usize, checkpoint: &mut dyn Write) -> Result<()>;

    /// Reads the state that `save` wrote after `layers` layers.
    ///
    /// # Errors
    /// `corrupt` if it was written by another observer or has another shape.
    fn resume(&mut self, layers: usize, checkpoint: &mut dyn Read) -> Result<()>;

    /// Discards the state from `resume`, because the run starts at the first layer after all.
    fn reset(&mut self);
}

/// The observers of one pass. All devices call them.
pub struct Observers<'a>(Vec<Mutex<&'a mut dyn Observer>>);

impl<'a> Observers<'a> {
    pub fn new(observers: Vec<&'a mut dyn Observer>) -> Self {
        Self(observers.into_iter().map(Mutex::new).collect())
    }

    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, &'a mut dyn Observer>> {
        self.0.iter().map(|observer| observer.lock().expect("no panic under this lock"))
    }

    /// True if any observer wants this site.
    pub fn want(&self, site: SiteId) -> bool {
        self.each().any(|observer| observer.wants(site))
    }

    pub fn assign_sequences(&self, device: &Device, sequences: &Range<usize>) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.assign_sequences(device, sequences.clone()))
    }

    /// Passes `x` [sequences * positions, width] to the observers that want it.
    pub fn show(&self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let wanting = self.each().filter(|observer| observer.wants(site));
        wanting.into_iter().try_for_each(|mut observer| observer.observe(site, sequences.clone(), x))
    }

    /// True if any observer wants the rows of single experts of this layer.
    pub fn want_experts(&self, layer: usize) -> bool {
        self.each().any(|observer| observer.wants_experts(layer))
    }

    pub fn show_expert(&self, rows: &ExpertRows) -> Result<()> {
        let wanting = self.each().filter(|observer| observer.wants_experts(rows.layer));
        wanting.into_iter().try_for_each(|mut observer| observer.observe_expert(rows))
    }

    /// Passes weights that have been read to the observers that want them. `parts` says which.
    pub fn show_weights(
        &self,
        layer: Option<usize>,
        parts: impl FnOnce() -> Vec<Part>,
        loaded: &[Tensor],
    ) -> Result<()> {
        if !self.each().any(|observer| observer.wants_weights()) {
            return Ok(());
        }
        let parts = parts();
        let wanting = self.each().filter(|observer| observer.wants_weights());
        wanting.into_iter().try_for_each(|mut observer| observer.observe_weights(layer, &parts, loaded))
    }

    pub fn end_layer(&self, layer: usize, stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.end_layer(layer, stream))
    }

    pub fn fetch(&self) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.fetch())
    }

    /// Writes the states of all observers, one after another.
    pub fn save(&self, layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.save(layers, checkpoint))
    }
}

/// The observers of what a layer computes for some sequences.
pub struct Onlookers<'a, 'o> {
    pub observers: &'a Observers<'o>,
    pub layer: usize,
    /// The sequences, counted among all of the pass.
    pub sequences: Range<usize>,
}

impl Onlookers<'_, '_> {
    pub fn want(&self, site: Site) -> bool {
        self.observers.want(SiteId { layer: self.layer, site })
    }

    /// Passes `x` [sequences * positions, width] to the observers that want it.
    pub fn show(&self, site: Site, x: &Tensor) -> Result<()> {
        self.observers.show(SiteId { layer: self.layer, site }, self.sequences.clone(), x)
    }

    /// As `show`, for a tensor that exists for observers only.
    pub fn show_made(&self, site: Site, x: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.want(site) { self.show(site, &x()?) } else { Ok(()) }
    }

    pub fn want_shared_expert(&self) -> bool {
        self.observers.each().any(|observer| observer.wants_shared_expert(self.layer))
    }

    /// Passes the output of the shared expert to the observers that want it.
    pub fn show_shared_expert(&self, y: &Tensor) -> Result<()> {
        let wanting = self.observers.each().filter(|observer| observer.wants_shared_expert(self.layer));
        let (layer, sequences) = (self.layer, &self.sequences);
        wanting.into_iter().try_for_each(|mut of| of.observe_shared_expert(layer, sequences.clone(), y))
    }

    pub fn want_attention(&self) -> bool {
        self.observers.each().any(|observer| observer.wants_attention(self.layer))
    }

    pub fn show_attention(&self, received: &Received) -> Result<()> {
        let wanting = self.observers.each().filter(|observer| observer.wants_attention(self.layer));
        let (layer, sequences) = (self.layer, &self.sequences);
        wanting.into_iter().try_for_each(|mut of| of.observe_attention(layer, sequences.clone(), received))
    }
}

/// The state of a pass between two layers.
pub struct State<'a, 'o> {
    /// Number of completed layers.
    pub layers: usize,
    /// The residual stream [tokens, hidden] of each shard in f32.
    /// Then the streams of other lanes, by group and shard.
    pub hidden: Vec<Tensor>,
    /// Keys and values that later layers borrow, share by share, of the layers that
    /// `Model::lenders` says, and in the same order those of other lanes.
    pub lent: Vec<Tensor>,
    pub observers: &'a Observers<'o>,
    pub coverage: &'a [ExpertCoverage],
    /// Bytes of tensor data that this run has read.
    pub bytes_read: u64,
}
