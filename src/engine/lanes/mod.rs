//! Lanes: variants of the model whose residual streams go through one read of the weights.
//!
//! Lane 0 is the model as it is, and is computed as if there were no others. A further lane differs
//! from some layer on. From there it has a residual stream of its own, whose sequences follow those
//! of other lanes with the same weights: the pass computes them as it does any sequences. Where it
//! shows the tensors at sites to observers, a lane changes them (`edits.rs`). A lane that changes
//! weights, or rounds what they are multiplied with, has a variant of each layer (`variant.rs`),
//! which is made while the layer is in memory. `plan.rs` checks what was asked for, and `seen.rs`
//! has what is counted on the way.

mod edits;
mod plan;
mod seen;
mod variant;

use std::ops::Range;
use std::sync::Arc;

pub(super) use edits::Edits;
pub use plan::check_lanes;
pub(super) use plan::{LanePlan, Planned};
pub(super) use seen::{Seen, SeenObserver};

use super::observe::Observer;
use super::scores::LaneScores;
use crate::error::Result;
use crate::record::{BASELINE, LaneOutcome, Site, SiteId, Tokens};
use crate::spec::Model;
use crate::tensor::Tensor;

/// The lanes of one extraction.
pub(super) struct Lanes {
    pub plan: Option<LanePlan>,
    pub seen: Arc<Seen>,
}

impl Lanes {
    pub(super) fn new(model: &Model, tokens: &Tokens, plan: Option<LanePlan>) -> Self {
        let averaged = plan.as_ref().map(LanePlan::averaged).unwrap_or_default();
        let norms = if plan.is_some() { model.norm_sites() } else { Vec::new() };
        let seen = Seen::new(&norms, averaged, (tokens.info.num_sequences, tokens.info.sequence_length));
        Self { plan, seen: Arc::new(seen) }
    }

    /// A pass without lanes.
    pub(super) fn none(model: &Model, tokens: &Tokens) -> Self {
        Self::new(model, tokens, None)
    }

    /// The observer of the model as it is, if there are lanes.
    pub(super) fn observer(&self) -> Option<SeenObserver> {
        self.plan.as_ref().map(|_| SeenObserver(self.seen.clone()))
    }

    /// Looks at a site of some sequences of the model as it is.
    pub(super) fn look(&self, at: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        match self.observer() {
            Some(mut seen) if seen.wants(at) => seen.observe(at, sequences, x),
            _ => Ok(()),
        }
    }

    /// Lanes that are computed together, with their numbers, in the order in which they begin.
    pub(super) fn groups(&self) -> Vec<Vec<(usize, Arc<Planned>)>> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let of = |group: Vec<usize>| group.into_iter().map(|i| (i + 1, plan.lanes[i].clone())).collect();
        plan.groups().into_iter().map(of).collect()
    }

    /// Number of lanes of each group that have a residual stream of their own after `layers`
    /// layers.
    pub(super) fn begun(&self, layers: usize) -> Vec<usize> {
        let begun = |group: Vec<(usize, Arc<Planned>)>| group.iter().filter(|(_, lane)| lane.first < layers).count();
        self.groups().into_iter().map(begun).collect()
    }

    /// What the lanes came to. `scores` has an entry for each, the model as it is first.
    pub(super) fn outcomes(&self, scores: Vec<LaneScores>) -> Vec<LaneOutcome> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let of = |(i, scores): (usize, LaneScores)| {
            let lane = i.checked_sub(1).map(|i| &plan.lanes[i]);
            LaneOutcome {
                name: lane.map_or_else(|| BASELINE.to_string(), |lane| lane.name.clone()),
                changes: lane.map(|lane| lane.changes.clone()).unwrap_or_default(),
                mean_nll: scores.mean_nll,
                kl: scores.kl,
                top1_agreement: scores.top1_agreement,
                top1_probability: scores.top1_probability,
                norm_hits: self.seen.hits(i, lane.map_or(0, |lane| lane.first)),
                attention_top1: self.seen.attention(i),
            }
        };
        scores.into_iter().enumerate().map(of).collect()
    }
}

/// What lanes make of the residual stream after `layer`, of which `x` has the rows of one lane's
/// sequences. `baseline` has all rows of the model as it is, device by device.
pub(super) fn change_stream(
    (layer, lane): (usize, &Planned),
    (sequences, positions): (&Range<usize>, usize),
    x: &Tensor,
    baseline: &[&Tensor],
) -> Result<()> {
    let edits = lane.edits_at(SiteId { layer, site: Site::ResidPost });
    if edits.is_empty() {
        return Ok(());
    }
    let (_, width) = x.dims2()?;
    let mut means = Vec::new();
    if edits.iter().any(plan::Edit::needs_means) {
        let mut sums = Vec::new();
        for stream in baseline {
            stream.with_values(|values| {
                sums.extend(values.chunks_exact(positions * width).map(|of| seen::sums_of_rows(of, width)));
            })?;
        }
        means = seen::mean_of_sums(&sums.iter().collect::<Vec<_>>(), sums.len() * positions);
    }
    let mut values = x.values()?;
    for (sequence, values) in sequences.clone().zip(values.chunks_exact_mut(positions * width)) {
        edits::apply(edits, sequence, values, width, &means);
    }
    x.set_rows(&Tensor::from_vec(values, x.dims(), &x.device())?, 0)
}
