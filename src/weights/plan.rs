//! Announces the reads of a run to the source of the bytes: a remote source fetches in the order of
//! use, and needs to know early.
//!
//! If the reads of a run can be predicted, all are announced at its start. Experts are announced
//! before the router has chosen them if there are so many tokens that nearly every expert is used.
//! Announcements of unused experts are discarded. If experts cannot be predicted, each portion is
//! announced when it is requested, because later ones must not take its place.

use std::collections::HashMap;
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::open::OpenModel;
use super::reader::Portion;
use crate::error::Result;
use crate::hub::{Ahead, Announcement, Tag};
use crate::record::Tokens;
use crate::spec::inventory::{self, Part};
use crate::spec::{Layer, Model, Moe};

/// Average number of choices per expert from which on all experts of a layer are expected to be
/// used.
const CROWDED: usize = 8;

/// Dropped after the reader, which may still be reading.
pub struct Plan {
    checkpoint: Arc<Checkpoint>,
    ahead: Ahead,
    announced: HashMap<Portion, Tag>,
}

impl Plan {
    /// Announces the layers from `first` on, if all their reads can be predicted.
    pub fn new(model: &OpenModel, tokens: &Tokens, logits: bool, first: usize) -> Result<Self> {
        let checkpoint = model.checkpoint.clone();
        let mut plan = Self { ahead: checkpoint.ahead(), checkpoint, announced: HashMap::new() };
        plan.foresee(&model.spec, tokens, logits, first)?;
        Ok(plan)
    }

    fn foresee(&mut self, model: &Model, tokens: &Tokens, logits: bool, first: usize) -> Result<()> {
        let count = tokens.info.num_sequences * tokens.info.sequence_length;
        let foreseen = |moe: &Moe| count * moe.top_k >= CROWDED * moe.num_experts;
        if !model.layers.iter().filter_map(Layer::moe).all(foreseen) {
            return Ok(());
        }
        for (i, layer) in model.layers.iter().enumerate().skip(first) {
            let needs_ffn = model.needs_ffn(i, logits);
            self.announce(Portion::Core(i), &inventory::core(layer, needs_ffn))?;
            if let (Some(moe), true) = (layer.moe(), needs_ffn) {
                for expert in 0..moe.num_experts {
                    self.announce(Portion::Expert { layer: i, expert }, &inventory::expert(&moe.experts, expert))?;
                }
            }
        }
        Ok(())
    }

    /// Announces that a portion will be requested, unless it was announced already.
    pub fn announce(&mut self, portion: Portion, parts: &[Part]) -> Result<()> {
        if !self.announced.contains_key(&portion) {
            let mut ranges = Vec::new();
            for part in parts {
                ranges.extend(self.checkpoint.part_ranges(part)?);
            }
            let tag = self.ahead.expect(Announcement { order: order(portion), max_gap: 0, ranges });
            self.announced.insert(portion, tag);
        }
        Ok(())
    }

    /// Discards the announcements of all experts of this layer that are not in `requested`.
    pub fn skip_other_experts(&mut self, layer: usize, num_experts: usize, requested: &[usize]) {
        for expert in (0..num_experts).filter(|expert| !requested.contains(expert)) {
            if let Some(tag) = self.announced.remove(&Portion::Expert { layer, expert }) {
                self.ahead.forget(tag);
            }
        }
    }
}

/// Ascending in the order in which a run uses its weights.
fn order(portion: Portion) -> u64 {
    match portion {
        Portion::Core(layer) => 2 * layer as u64,
        Portion::Expert { layer, .. } => 2 * layer as u64 + 1,
        Portion::FinalNorm => u64::MAX,
    }
}
