//! The interface between the pass and what it is made for.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use crate::error::Result;
use crate::record::{ExpertCoverage, SiteId};
use crate::tensor::{Device, Tensor};

/// Sees tensors of a pass while they exist, and keeps what it wants of them.
///
/// Sequences come in batches, in any order and from several devices, one call at a time. What an observer has at the end must not
/// depend on that. A batch may be shown once more, where a device had no room for what follows: the later one replaces the
/// earlier.
pub trait Observer: Send {
    /// Whether this site of this layer is to be shown.
    fn wants(&self, site: SiteId) -> bool;

    /// Says, before anything is shown, which sequences will come from `device`.
    fn place(&mut self, _device: &Device, _sequences: Range<usize>) -> Result<()> {
        Ok(())
    }

    /// Takes `x` [sequences * positions, width] in f32, on the device that computes these sequences.
    fn see(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()>;

    /// Brings home what is still on devices: called before `save` and at the end.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Writes what it keeps of the first `layers` layers, for a run that goes on from there.
    fn save(&mut self, layers: usize, checkpoint: &mut dyn Write) -> Result<()>;

    /// Goes on where `save` was after `layers` layers.
    ///
    /// # Errors
    /// `corrupt` where that was another observer's, or one of another shape.
    fn resume(&mut self, layers: usize, checkpoint: &mut dyn Read) -> Result<()>;

    /// Forgets what `resume` brought: the run starts at the first layer after all.
    fn begin_again(&mut self);
}

/// The observers of one pass, which all of its devices call.
pub struct Observers<'a>(Vec<Mutex<&'a mut dyn Observer>>);

impl<'a> Observers<'a> {
    pub fn new(observers: Vec<&'a mut dyn Observer>) -> Self {
        Self(observers.into_iter().map(Mutex::new).collect())
    }

    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, &'a mut dyn Observer>> {
        self.0.iter().map(|observer| observer.lock().expect("no panic under this lock"))
    }

    /// Whether any observer wants this site.
    pub fn want(&self, site: SiteId) -> bool {
        self.each().any(|observer| observer.wants(site))
    }

    pub fn place(&self, device: &Device, sequences: &Range<usize>) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.place(device, sequences.clone()))
    }

    /// Shows `x` [sequences * positions, width] to those that want it.
    pub fn show(&self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let wanting = self.each().filter(|observer| observer.wants(site));
        wanting.into_iter().try_for_each(|mut observer| observer.see(site, sequences.clone(), x))
    }

    pub fn settle(&self) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.settle())
    }

    /// Writes what all of them keep, one after another.
    pub fn save(&self, layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        self.each().try_for_each(|mut observer| observer.save(layers, checkpoint))
    }
}

/// What one layer leaves to the next.
pub struct State<'a, 'o> {
    /// Layers done.
    pub layers: usize,
    /// The residual stream [tokens, hidden] of each share of the sequences, f32.
    pub hidden: Vec<&'a Tensor>,
    /// Keys and values that later layers borrow, share by share, of the layers that `Model::lenders` says.
    pub lent: Vec<&'a Tensor>,
    pub observers: &'a Observers<'o>,
    pub coverage: &'a [ExpertCoverage],
    /// Bytes of tensor data that this run has read.
    pub bytes_read: u64,
}
