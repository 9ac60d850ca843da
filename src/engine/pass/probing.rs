//! The attention of the model as it is, and with what lanes make of a layer's input: the largest
//! probability of each query. The layer is computed for that alone, and its output is not used
//! (Dettmers et al. 2022, section 4).

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use super::layer::read;
use super::shard::Shard;
use super::streams::AtLayer;
use crate::engine::attempt::{Changed, split_on_oom};
use crate::engine::attention::{self, Batch};
use crate::engine::lanes::{Edits, Lanes, Seen};
use crate::engine::observe::{Observer, Observers, Onlookers};
use crate::error::Result;
use crate::ops::Received;
use crate::record::{Site, SiteId};
use crate::spec::{Layer, Mixer};
use crate::tensor::Tensor;

/// What is done with the input of a layer's mixer for some sequences of a shard.
type Use<'a> = dyn Fn(&Shard, &Range<usize>, Tensor) -> Result<()> + 'a;

/// Looks at the attention of a layer before it is computed.
pub(super) fn probe(at: &AtLayer, lanes: &Lanes, shards: &[Shard]) -> Result<()> {
    let site = SiteId { layer: at.i, site: Site::AttnIn };
    let Some(plan) = lanes.plan.as_ref().filter(|plan| plan.attention_top1) else { return Ok(()) };
    let probing = plan.lanes.iter().enumerate().filter(|(_, lane)| lane.changes_at(site));
    let probing: Vec<_> = probing.map(|(i, lane)| (i + 1, lane.clone())).collect();
    if probing.is_empty() {
        return Ok(());
    }
    let each_batch = |f: &Use<'_>| -> Result<()> {
        for shard in shards {
            let Some(mixer) = &at.loaded[shard.index].mixer else { continue };
            for batch in shard.all_batches(at.work.plan.sequences) {
                split_on_oom(batch, &mut |rows| {
                    f(shard, &rows, read(&mixer.reads, &shard.residual(&rows)?)?)?;
                    Ok(Changed(Ok(())))
                })?;
            }
        }
        Ok(())
    };
    // Means are of all sequences, which are looked at before the first is changed.
    each_batch(&|shard, rows, x| lanes.look(site, of_pass(shard, rows), &x))?;
    each_batch(&|shard, rows, x| {
        look(at, (0, shard), rows, &x, &lanes.seen)?;
        for lane in &probing {
            let sequences = shard.sequences.clone();
            let edits =
                Edits { lanes: vec![lane.clone()], seen: lanes.seen.clone(), sequences, positions: shard.positions };
            look(at, (lane.0, shard), rows, &edits.edited(site, rows, x.clone())?, &lanes.seen)?;
        }
        Ok(())
    })
}

/// Sequences of a shard as the pass counts them.
fn of_pass(shard: &Shard, rows: &Range<usize>) -> Range<usize> {
    shard.sequences.start + rows.start..shard.sequences.start + rows.end
}

/// Computes the attention of some sequences for its probabilities.
fn look(at: &AtLayer, (lane, shard): (usize, &Shard), rows: &Range<usize>, x: &Tensor, seen: &Arc<Seen>) -> Result<()> {
    let layer: &Layer<Tensor> = &at.loaded[shard.index];
    let Some(Mixer::Attention(attention)) = layer.mixer.as_ref().map(|mixer| &mixer.body) else { return Ok(()) };
    let mut looking = Looking { lane, seen: seen.clone() };
    let observers = Observers::new(vec![&mut looking]);
    let onlookers = &Onlookers { observers: &observers, layer: at.i, sequences: of_pass(shard, rows) };
    let borrowed = match layer.borrows() {
        Some(from) => shard.keys_and_values(from, rows)?,
        None => None,
    };
    let batch = Batch {
        sequences: rows.len(),
        positions: shard.positions,
        rounded: at.work.rounded(),
        rotary: &shard.rotary,
        borrowed,
        lends: None,
        onlookers,
    };
    attention::attention(attention, x, &batch).map(drop)
}

/// Keeps the largest probabilities.
struct Looking {
    lane: usize,
    seen: Arc<Seen>,
}

impl Observer for Looking {
    fn wants_attention(&self, _layer: usize) -> bool {
        true
    }

    fn observe_attention(&mut self, layer: usize, sequences: Range<usize>, received: &Received) -> Result<()> {
        let queries = (received.heads * received.positions) as f64;
        for (sequence, largest) in sequences.zip(received.largest.chunks_exact(received.heads)) {
            self.seen.attend(layer, self.lane, sequence, (largest.iter().sum::<f64>() / queries) as f32);
        }
        Ok(())
    }

    fn save(&mut self, _layers: usize, _checkpoint: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn resume(&mut self, _layers: usize, _checkpoint: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) {}
}
