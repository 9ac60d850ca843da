//! What a pass sees of its lanes on the way: large values in norm outputs, and means of the model
//! as it is, which lanes may set features to.
//!
//! Everything is kept by sequence, so that a batch that is seen twice counts once, and no number
//! depends on how the sequences were divided.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::*;

use crate::engine::observe::{Observer, read_state, write_state};
use crate::error::Result;
use crate::record::{AttentionTop1, HIT_THRESHOLDS, NormHits, SiteId};
use crate::tensor::Tensor;
use crate::vector::vectorised;

/// Number of values that stay in the cache while they are compared with each threshold.
const COUNTED_AT_ONCE: usize = 1 << 12;

/// Number of values of at least this magnitude.
#[inline(always)]
fn count_of(values: &[f32], least: f32) -> u32 {
    values.iter().map(|x| u32::from(x.abs() >= least)).sum()
}

/// Shared by the lanes of all devices.
pub(in crate::engine) struct Seen {
    positions: usize,
    sequences: usize,
    /// The norm outputs, whose large values are counted.
    norms: BTreeSet<SiteId>,
    /// Sites of which lanes need means.
    averaged: BTreeSet<SiteId>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By site, lane and sequence.
    hits: BTreeMap<(SiteId, usize, usize), [u32; 2]>,
    /// By layer, lane and sequence.
    attention: BTreeMap<(usize, usize, usize), f32>,
    /// Sums over the positions of a sequence, of the layer at work.
    sums: BTreeMap<(SiteId, usize), Vec<f64>>,
    means: BTreeMap<SiteId, Arc<Vec<f32>>>,
}

impl Seen {
    pub(in crate::engine) fn new(
        norms: &[SiteId],
        averaged: BTreeSet<SiteId>,
        (sequences, positions): (usize, usize),
    ) -> Self {
        let norms = norms.iter().copied().collect();
        Self { positions, sequences, norms, averaged, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Whether the large values at a site are counted.
    pub(super) fn counts(&self, at: SiteId) -> bool {
        self.norms.contains(&at)
    }

    /// Counts the large values of a norm output of one sequence of a lane.
    pub(super) fn count(&self, at: SiteId, lane: usize, sequence: usize, values: &[f32]) {
        if self.counts(at) {
            let mut hits = [0; HIT_THRESHOLDS.len()];
            for values in values.chunks(COUNTED_AT_ONCE) {
                let of_these = vectorised!(|| HIT_THRESHOLDS.map(|least| count_of(values, least)));
                hits.iter_mut().zip(of_these).for_each(|(all, more)| *all += more);
            }
            self.state().hits.insert((at, lane, sequence), hits);
        }
    }

    /// Keeps the largest attention probability of a query of one sequence.
    pub(in crate::engine) fn attend(&self, layer: usize, lane: usize, sequence: usize, probability: f32) {
        self.state().attention.insert((layer, lane, sequence), probability);
    }

    /// The mean of each feature over all positions in the model as it is.
    pub(super) fn means(&self, at: SiteId) -> Arc<Vec<f32>> {
        let mut state = self.state();
        if let Some(means) = state.means.get(&at) {
            return means.clone();
        }
        let all: Vec<&Vec<f64>> = (0..self.sequences).filter_map(|s| state.sums.get(&(at, s))).collect();
        let means = Arc::new(mean_of_sums(&all, self.sequences * self.positions));
        state.means.insert(at, means.clone());
        means
    }

    /// The counts of a lane that differs from the model as it is from layer `first` on.
    pub(super) fn hits(&self, lane: usize, first: usize) -> Vec<NormHits> {
        let state = self.state();
        let of = |at: &SiteId| {
            let lane = if at.layer < first { 0 } else { lane };
            let hits = |i: usize| -> Vec<u32> {
                let of = |s| state.hits.get(&(*at, lane, s)).map_or(0, |hits| hits[i]);
                (0..self.sequences).map(of).collect()
            };
            NormHits { at: *at, at_least_3: hits(0), at_least_6: hits(1) }
        };
        self.norms.iter().map(of).collect()
    }

    pub(super) fn attention(&self, lane: usize) -> Vec<AttentionTop1> {
        let mut by_layer: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for ((layer, of, _), probability) in &self.state().attention {
            if *of == lane {
                by_layer.entry(*layer).or_default().push(*probability);
            }
        }
        by_layer.into_iter().map(|(layer, probability)| AttentionTop1 { layer, probability }).collect()
    }
}

/// The sum of each feature over the rows of `values`.
pub(super) fn sums_of_rows(values: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0f64; width];
    for row in values.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sums
}

/// The means of features whose sums over `rows` rows come in parts.
pub(super) fn mean_of_sums(parts: &[&Vec<f64>], rows: usize) -> Vec<f32> {
    let width = parts.first().map_or(0, |part| part.len());
    (0..width).map(|d| (parts.iter().map(|part| part[d]).sum::<f64>() / rows as f64) as f32).collect()
}

/// Observes the model as it is.
pub(in crate::engine) struct SeenObserver(pub Arc<Seen>);

impl Observer for SeenObserver {
    fn wants(&self, site: SiteId) -> bool {
        self.0.norms.contains(&site) || self.0.averaged.contains(&site)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        x.with_values(|values| {
            let all: Vec<_> = sequences.zip(values.chunks_exact(self.0.positions * width)).collect();
            all.into_par_iter().for_each(|(sequence, values)| {
                self.0.count(site, 0, sequence, values);
                if self.0.averaged.contains(&site) {
                    let sums = sums_of_rows(values, width);
                    self.0.state().sums.insert((site, sequence), sums);
                }
            });
        })
    }

    fn end_layer(&mut self, _layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        let mut state = self.0.state();
        state.sums.clear();
        state.means.clear();
        Ok(())
    }

    fn save(&mut self, _layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        let state = self.0.state();
        write_state(&state.hits.iter().collect::<Vec<_>>(), checkpoint)?;
        write_state(&state.attention.iter().collect::<Vec<_>>(), checkpoint)
    }

    fn resume(&mut self, _layers: usize, checkpoint: &mut dyn Read) -> Result<()> {
        let mut state = self.0.state();
        let hits: Vec<((SiteId, usize, usize), [u32; 2])> = read_state(checkpoint)?;
        let attention: Vec<((usize, usize, usize), f32)> = read_state(checkpoint)?;
        (state.hits, state.attention) = (hits.into_iter().collect(), attention.into_iter().collect());
        Ok(())
    }

    fn reset(&mut self) {
        *self.0.state() = State::default();
    }
}
