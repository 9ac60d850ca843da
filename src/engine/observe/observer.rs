//! The interface between the pass and its observers.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use crate::error::Result;
use crate::record::{ExpertCoverage, SiteId};
use crate::tensor::{Device, Tensor};

/// Receives tensors of a pass and computes a result from them.
///
/// Sequences come in batches, in any order and from several devices, with one call at a time. The
/// result must not depend on the order. A batch may be observed a second time, if a device ran out
/// of memory in a later step: the later tensor replaces the earlier one.
pub trait Observer: Send {
    /// True if the observer wants the tensors of this site in this layer.
    fn wants(&self, site: SiteId) -> bool;

    /// Announces, before the first tensor, the sequences that `device` computes.
    fn assign_sequences(&mut self, _device: &Device, _sequences: Range<usize>) -> Result<()> {
        Ok(())
    }

    /// Receives `x` [sequences * positions, width] in f32, on the device that computes these
    /// sequences.
    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()>;

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

    pub fn fetch(&self) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.fetch())
    }

    /// Writes the states of all observers, one after another.
    pub fn save(&self, layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.save(layers, checkpoint))
    }
}

/// The state of a pass between two layers.
pub struct State<'a, 'o> {
    /// Number of completed layers.
    pub layers: usize,
    /// The residual stream [tokens, hidden] of each shard in f32.
    pub hidden: Vec<&'a Tensor>,
    /// Keys and values that later layers borrow, share by share, of the layers that
    /// `Model::lenders` says.
    pub lent: Vec<&'a Tensor>,
    pub observers: &'a Observers<'o>,
    pub coverage: &'a [ExpertCoverage],
    /// Bytes of tensor data that this run has read.
    pub bytes_read: u64,
}
