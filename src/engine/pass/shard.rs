//! A shard: the sequences that one device computes. All shards use a portion of weights before the
//! next is read, so that each is read once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use super::work::Work;
use crate::engine::lanes::Edits;
use crate::engine::observe::Observers;
use crate::engine::rotary::Rotary;
use crate::engine::routing::{Assignment, ExpertValues};
use crate::error::{Error, Result};
use crate::ops::ExpertScratch;
use crate::record::SiteId;
use crate::spec::Model;
use crate::tensor::{Device, Tensor};
use crate::threads;
use crate::weights::ShardPlan;

/// Number of rounds into which the sequences are divided. After each round, the experts that it
/// chose are requested.
pub(crate) const ROUNDS: usize = 4;

pub(super) struct Shard {
    /// The index of the shard, which is the index of its weights in a portion.
    pub index: usize,
    pub device: Device,
    /// The sequences that this shard computes.
    pub sequences: Range<usize>,
    pub positions: usize,
    /// The residual stream [sequences * positions, hidden], f32.
    pub hidden: Tensor,
    pub rotary: Rotary,
    pub lent: LentKv,
    /// The state of a mixture, while a layer's tokens go to experts.
    pub mixture: Option<Mixture>,
    /// What the sequences of other lanes than the model as it is change at sites.
    pub edits: Option<Arc<Edits>>,
    /// True if products need whole sequences.
    pub whole: bool,
}

/// The keys and values that later layers use, by the layer that computed them.
pub(crate) type LentKv = BTreeMap<usize, [Tensor; 2]>;

/// The input of a shard's experts, and the tokens of each.
pub(super) struct Mixture {
    /// The input of the experts, [sequences * positions, hidden].
    pub x: Tensor,
    /// The tensor that the experts add to: the residual stream itself, or a sum that is added to it
    /// after all experts.
    pub sum: Tensor,
    /// The sum of the experts' outputs by itself, if observers want it and `sum` is the stream.
    pub written: Option<Tensor>,
    pub assignment: Assignment,
    pub values: ExpertValues,
    pub room: ExpertScratch,
}

impl Shard {
    pub(super) fn new((index, plan): (usize, ShardPlan), positions: usize, (hidden, lent): (Tensor, LentKv)) -> Self {
        let ShardPlan { device, sequences } = plan;
        Self {
            index,
            device,
            sequences,
            positions,
            hidden,
            lent,
            rotary: Rotary::default(),
            mixture: None,
            edits: None,
            whole: false,
        }
    }

    /// The observers of this shard: those of the pass, or none.
    pub(super) fn observers<'a, 'o>(&self, work: &'a Work<'o>) -> &'a Observers<'o> {
        if self.edits.is_some() { &work.nobody } else { &work.observers }
    }

    /// The tensor at a site, which belongs to some sequences, as the computation goes on with it.
    pub(super) fn changed(&self, at: SiteId, rows: &Range<usize>, x: Tensor) -> Result<Tensor> {
        match &self.edits {
            Some(edits) => edits.changed(at, rows, x),
            None => Ok(x),
        }
    }

    /// Before layer `i`, frees the keys and values that no later layer uses, and allocates those
    /// that this layer is to leave.
    pub(super) fn prepare_lent(&mut self, model: &Model, i: usize) -> Result<()> {
        let before = model.lenders(i);
        self.lent.retain(|layer, _| before.contains(layer));
        if let (true, Some(widths)) = (model.lenders(i + 1).contains(&i), model.kv_widths(i)) {
            let rows = self.sequences.len() * self.positions;
            let [keys, values] = widths.map(|width| Tensor::zeros((rows, width), &self.device));
            self.lent.insert(i, [keys?, values?]);
        }
        Ok(())
    }

    /// The keys and values that layer `i` has left.
    pub(super) fn lent(&self, i: usize) -> Option<&[Tensor; 2]> {
        self.lent.get(&i)
    }

    /// The keys and values of layer `i` for some of its sequences.
    pub(super) fn keys_and_values(&self, i: usize, sequences: &Range<usize>) -> Result<Option<[Tensor; 2]>> {
        let Some([keys, values]) = self.lent(i) else { return Ok(None) };
        let of = |all: &Tensor| all.rows(sequences.start * self.positions, sequences.len() * self.positions);
        Ok(Some([of(keys)?, of(values)?]))
    }

    /// The rows of the residual stream that belong to some of its sequences.
    pub(super) fn residual(&self, sequences: &Range<usize>) -> Result<Tensor> {
        self.hidden.rows(sequences.start * self.positions, sequences.len() * self.positions)
    }

    /// The batches of one round, of at most `most` sequences each. The experts that a round chose
    /// are requested after it, and are read while the next round passes the mixer. Rounds, and so
    /// the order of the experts, do not depend on the batch size.
    pub(super) fn batches(&self, round: usize, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let all = self.sequences.len();
        let size = all.div_ceil(ROUNDS);
        let (start, end) = ((round * size).min(all), ((round + 1) * size).min(all));
        let most = most.min(size);
        (start..end).step_by(most).map(move |first| first..(first + most).min(end))
    }

    /// The batches of all rounds.
    pub(super) fn all_batches(&self, most: usize) -> impl Iterator<Item = Range<usize>> {
        (0..ROUNDS).flat_map(move |round| self.batches(round, most))
    }
}

/// Runs `work` for all shards at the same time.
///
/// # Errors
/// The error of the first shard that fails, after all are done.
pub(super) fn each(shards: &mut [Shard], work: impl Fn(&mut Shard) -> Result<()> + Sync) -> Result<()> {
    if let [shard] = shards {
        return work(shard);
    }
    let fell = |_| Err(Error::internal("a thread that computes on a GPU fell over"));
    let work = &work;
    std::thread::scope(|scope| {
        let start = |shard| threads::start_in(scope, move || work(shard)).map_err(|e| Error::no_thread("a GPU", &e));
        let threads: Vec<_> = shards.iter_mut().map(start).collect();
        let outcome = |thread: ScopedJoinHandle<'_, Result<()>>| thread.join().unwrap_or_else(fell);
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.and_then(outcome)).collect();
        outcomes.into_iter().collect()
    })
}
