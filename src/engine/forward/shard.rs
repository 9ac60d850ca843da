//! Some of the sequences, on the device that computes them. Shards meet at every portion of weights, which is read once for all.

use std::ops::Range;
use std::thread::ScopedJoinHandle;

use super::ROUNDS;
use crate::engine::rotary::Rotary;
use crate::engine::routing::Assignment;
use crate::error::{Error, Result};
use crate::ops::Room;
use crate::tensor::tensor_error;
use crate::tensor::{Device, Tensor};
use crate::threads;
use crate::weights::Share;

pub(super) struct Shard {
    /// Which one it is: the place of its weights in a portion.
    pub index: usize,
    pub device: Device,
    /// Of all sequences those that are here.
    pub sequences: Range<usize>,
    pub positions: usize,
    /// The residual stream [sequences * positions, hidden], f32.
    pub hidden: Tensor,
    pub rotary: Rotary,
    /// While a layer's tokens go to experts.
    pub mixture: Option<Mixture>,
}

/// What a shard's experts read, and who goes to them.
pub(super) struct Mixture {
    /// [sequences * positions, hidden]
    pub x: Tensor,
    pub assignment: Assignment,
    /// Added to the router's scores in choosing, [experts].
    pub correction: Option<Vec<f32>>,
    pub room: Room,
}

impl Shard {
    pub fn new((index, share): (usize, Share), positions: usize, hidden: Tensor) -> Self {
        let Share { device, sequences } = share;
        Self { index, device, sequences, positions, hidden, rotary: Rotary::default(), mixture: None }
    }

    /// The rows of the residual stream that belong to `count` of its sequences.
    pub fn residual(&self, first: usize, count: usize) -> Result<Tensor> {
        self.hidden.rows(first * self.positions, count * self.positions).map_err(tensor_error)
    }

    /// First of its sequences and count of each batch of one round, after which the experts they chose are asked for: those are
    /// read while others pass the mixer. Rounds are the same however the work is cut, and so the order of the experts, too.
    pub fn batches(&self, round: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let all = self.sequences.len();
        let size = all.div_ceil(ROUNDS);
        let (start, end) = ((round * size).min(all), ((round + 1) * size).min(all));
        let most = most.min(size);
        (start..end).step_by(most).map(move |first| (first, most.min(end - first)))
    }
}

/// Lets all shards work at the same time.
///
/// # Errors
/// Of the first shard that fails, once all are done.
pub(super) fn each(shards: &mut [Shard], work: impl Fn(&mut Shard) -> Result<()> + Sync) -> Result<()> {
    if let [shard] = shards {
        return work(shard);
    }
    let fell = |_| Err(Error::unsupported("a thread that computes on a GPU fell over: this is a fault of the program"));
    let work = &work;
    std::thread::scope(|scope| {
        let start = |shard| threads::start_in(scope, move || work(shard)).map_err(|e| Error::no_thread("a GPU", &e));
        let threads: Vec<_> = shards.iter_mut().map(start).collect();
        let outcome = |thread: ScopedJoinHandle<'_, Result<()>>| thread.join().unwrap_or_else(fell);
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.and_then(outcome)).collect();
        outcomes.into_iter().collect()
    })
}
