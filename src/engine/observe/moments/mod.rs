//! Moments: sums of powers and extremes of every channel at chosen sites, and the ratio of maximum
//! to median of every row.
//!
//! A sequence is summed in the order of positions, and sequences are added in their order, so that
//! the result depends neither on batches nor on devices. An expert's rows are summed in the order
//! of its tokens.

mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;

use super::median::median_abs;
use super::observer::{ExpertRows, Observer};
use super::stored;
use crate::error::Result;
use crate::record::{Channels, Moments, RowRatio, Site, SiteId};
use crate::tensor::Tensor;
use crate::vector::vectorised;
use sums::Sums;

pub struct MomentsObserver {
    sites: Vec<Site>,
    positions: usize,
    /// Of the layer at work, by site and sequence.
    sequences: BTreeMap<(SiteId, usize), Part>,
    /// Of the layer at work, by site and expert.
    experts: BTreeMap<(SiteId, usize), Part>,
    /// Number of experts of the layer at work.
    num_experts: usize,
    done: Vec<Moments>,
}

/// Some rows of a site.
struct Part {
    rows: u64,
    sums: Sums,
    ratio: Ratio,
}

/// The ratio of maximum to median over some rows.
#[derive(Clone, Copy, Default)]
struct Ratio {
    rows: u64,
    sum: f64,
    max: f64,
}

impl Ratio {
    fn add(&mut self, more: &Self) {
        self.rows += more.rows;
        self.sum += more.sum;
        self.max = self.max.max(more.max);
    }

    fn finish(&self) -> RowRatio {
        let mean = if self.rows > 0 { self.sum / self.rows as f64 } else { 0.0 };
        RowRatio { rows: self.rows, mean: mean as f32, max: self.max as f32 }
    }
}

impl Part {
    fn new(width: usize) -> Self {
        Self { rows: 0, sums: Sums::new(width), ratio: Ratio::default() }
    }

    /// Adds `x` [rows, width].
    fn add(&mut self, x: &[f32], width: usize) {
        self.rows += (x.len() / width) as u64;
        self.sums.add(x);
        let ratios: Vec<Option<f64>> = x.par_chunks_exact(width).map(max_over_median).collect();
        for ratio in ratios.into_iter().flatten() {
            self.ratio.rows += 1;
            self.ratio.sum += ratio;
            self.ratio.max = self.ratio.max.max(ratio);
        }
    }
}

/// The largest |x| of a row over its median |x|; None if the median is 0 or not finite, as with NaN
/// in the row.
fn max_over_median(row: &[f32]) -> Option<f64> {
    let largest = vectorised!(|| row.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return None;
    }
    let median = median_abs(row);
    (median > 0.0).then(|| f64::from(largest) / median)
}

impl MomentsObserver {
    pub fn new(sites: &[Site], positions: usize) -> Self {
        Self {
            sites: sites.to_vec(),
            positions,
            sequences: BTreeMap::new(),
            experts: BTreeMap::new(),
            num_experts: 0,
            done: Vec::new(),
        }
    }

    /// Adds up the sequences and experts of the layer at work.
    fn settle(&mut self) {
        let sites: BTreeSet<SiteId> = self.sequences.keys().chain(self.experts.keys()).map(|(at, _)| *at).collect();
        for at in sites {
            let of_site = |parts: &mut BTreeMap<(SiteId, usize), Part>| -> Vec<(usize, Part)> {
                let keys: Vec<_> = parts.range((at, 0)..=(at, usize::MAX)).map(|(key, _)| *key).collect();
                keys.into_iter().filter_map(|key| Some((key.1, parts.remove(&key)?))).collect()
            };
            let (sequences, experts) = (of_site(&mut self.sequences), of_site(&mut self.experts));
            let moments = if experts.is_empty() {
                over_sequences(at, sequences)
            } else {
                over_experts(at, experts, self.num_experts)
            };
            self.done.extend(moments);
        }
        self.sequences.clear();
        self.experts.clear();
    }

    /// The moments in the order of layers and sites.
    pub fn finish(mut self) -> Vec<Moments> {
        self.settle();
        self.done.sort_by_key(|moments| moments.at);
        self.done
    }
}

fn over_sequences(at: SiteId, parts: Vec<(usize, Part)>) -> Option<Moments> {
    let mut parts = parts.into_iter().map(|(_, mut part)| {
        part.sums.finish();
        let mut channels = Channels::default();
        part.sums.append_to(&mut channels);
        (part.rows, part.sums.non_finite(), part.ratio, channels)
    });
    let (mut rows, mut non_finite, mut ratio, mut channels) = parts.next()?;
    for (more, odd, more_ratio, of_part) in parts {
        rows += more;
        non_finite += odd;
        ratio.add(&more_ratio);
        add_channels(&mut channels, &of_part);
    }
    let width = channels.max.len();
    Some(Moments { at, width, rows: vec![rows], non_finite, max_median: ratio.finish(), channels })
}

fn over_experts(at: SiteId, parts: Vec<(usize, Part)>, experts: usize) -> Option<Moments> {
    let width = parts.first().map(|(_, part)| part.sums.width())?;
    let mut moments = Moments {
        at,
        width,
        rows: vec![0; experts],
        non_finite: 0,
        max_median: RowRatio::default(),
        channels: Channels::default(),
    };
    let mut ratio = Ratio::default();
    let mut parts = parts.into_iter().peekable();
    for expert in 0..experts {
        let part = parts.next_if(|(of, _)| *of == expert).map(|(_, part)| part);
        let Some(mut part) = part else {
            append_zeros(&mut moments.channels, width);
            continue;
        };
        moments.rows[expert] = part.rows;
        part.sums.finish();
        moments.non_finite += part.sums.non_finite();
        ratio.add(&part.ratio);
        part.sums.append_to(&mut moments.channels);
    }
    moments.max_median = ratio.finish();
    Some(moments)
}

fn add_channels(to: &mut Channels, more: &Channels) {
    to.max.iter_mut().zip(&more.max).for_each(|(to, more)| *to = to.max(*more));
    to.min.iter_mut().zip(&more.min).for_each(|(to, more)| *to = to.min(*more));
    let add = |to: &mut Vec<f64>, more: &[f64]| to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
    add(&mut to.sum, &more.sum);
    add(&mut to.sum2, &more.sum2);
    add(&mut to.sumabs, &more.sumabs);
    add(&mut to.sum3, &more.sum3);
    add(&mut to.sum4, &more.sum4);
}

/// The channels of an expert without tokens.
fn append_zeros(to: &mut Channels, width: usize) {
    for extremes in [&mut to.max, &mut to.min] {
        extremes.resize(extremes.len() + width, 0.0);
    }
    for sums in [&mut to.sum, &mut to.sum2, &mut to.sumabs, &mut to.sum3, &mut to.sum4] {
        sums.resize(sums.len() + width, 0.0);
    }
}

impl Observer for MomentsObserver {
    fn wants(&self, site: SiteId) -> bool {
        self.sites.contains(&site.site)
    }

    fn wants_experts(&self, _layer: usize) -> bool {
        self.sites.contains(&Site::FfnMid)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        let per_sequence = self.positions * width;
        x.with_values(|values| {
            for (sequence, x) in sequences.zip(values.chunks_exact(per_sequence)) {
                let mut part = Part::new(width);
                part.add(x, width);
                self.sequences.insert((site, sequence), part);
            }
        })
    }

    fn observe_expert(&mut self, rows: &ExpertRows) -> Result<()> {
        let (_, width) = rows.inner.dims2()?;
        self.num_experts = rows.experts;
        let key = (SiteId { layer: rows.layer, site: Site::FfnMid }, rows.expert);
        let part = self.experts.entry(key).or_insert_with(|| Part::new(width));
        rows.inner.with_values(|values| part.add(values, width))
    }

    stored::settled_in!(done);
}
