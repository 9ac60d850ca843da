//! What a run will read, announced to the source of the bytes: one that is far away needs to know early, and fetches in the
//! order of use.
//!
//! Where it can be foreseen, all of a run is announced at its beginning. Experts are, before the router has chosen them, if
//! so many tokens choose that hardly any expert stays without; what is not chosen after all is taken back. A run whose
//! experts cannot be foreseen announces each portion when it asks for it: what comes later must not take their place.

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

/// Choices per expert, on average, from which on all experts of a layer are expected to be chosen.
const CROWDED: usize = 8;

/// Dropped after the reader, which may still read.
pub struct Plan {
    checkpoint: Arc<Checkpoint>,
    ahead: Ahead,
    announced: HashMap<Portion, Tag>,
}

impl Plan {
    /// Announces the layers from `first` on, where all that they need is foreseen.
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

    /// Says that a portion will be asked for, unless that has been said.
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

    /// Of this layer no experts but those that were asked for will be.
    pub fn skip_other_experts(&mut self, layer: usize, num_experts: usize, asked: &[usize]) {
        for expert in (0..num_experts).filter(|expert| !asked.contains(expert)) {
            if let Some(tag) = self.announced.remove(&Portion::Expert { layer, expert }) {
                self.ahead.forget(tag);
            }
        }
    }
}

/// Grows in the order in which a run needs its weights.
fn order(portion: Portion) -> u64 {
    match portion {
        Portion::Core(layer) => 2 * layer as u64,
        Portion::Expert { layer, .. } => 2 * layer as u64 + 1,
        Portion::FinalNorm => u64::MAX,
    }
}
