//! The ladder fold: it reduces every norm output to extremes, ladder counts and the union of
//! positions over norms, in one pass over the values.
//!
//! `record::Fold` defines these statistics. Values that are not finite are only counted.

mod cells;
mod gpu;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::observer::Observer;
use crate::error::{Error, Kind, Result, fault};
use crate::record::{Fold, Ladders, NonFinite, NormFold, Site, SiteId};
use crate::tensor::{Device, Tensor, View};
use cells::{BLOCK, Histogram, Piece, concat_blocks};
use gpu::{Folded, GpuFold, Shape};

pub use gpu::{PENDING_BYTES, record_bytes};

/// The largest size in bytes of the parts of a checkpoint other than folds: the list of non-finite
/// values.
const MAX_NON_FINITE_BYTES: u64 = 64 << 20;

pub struct LadderFold {
    ladder: Vec<f32>,
    norms: Vec<SiteId>,
    /// Index of each norm in `norms`.
    index: HashMap<SiteId, usize>,
    sequences: usize,
    positions: usize,
    hidden: usize,
    /// One plus the highest rung that any norm reached, 0 for none: [sequences][blocks of
    /// features][positions][features of the block].
    levels: Vec<u8>,
    /// [norms][sequences]
    all: Vec<Vec<NormFold>>,
    without_first: Vec<Vec<NormFold>>,
    non_finite: Vec<NonFinite>,
    gpus: Vec<GpuFold>,
}

/// The statistics of the first norms, for a checkpoint. The levels are stored separately.
#[derive(Serialize, Deserialize)]
struct Folds<'a> {
    all: Cow<'a, [Vec<NormFold>]>,
    without_first: Cow<'a, [Vec<NormFold>]>,
    non_finite: Cow<'a, [NonFinite]>,
}

impl LadderFold {
    /// A fold for a `ladder` of `stats::ladder`. Every norm is observed once per sequence.
    pub fn new(ladder: &[f32], norms: &[SiteId], sequences: usize, positions: usize, hidden: usize) -> Self {
        let empty = || vec![vec![NormFold::default(); sequences]; norms.len()];
        Self {
            ladder: ladder.to_vec(),
            norms: norms.to_vec(),
            index: norms.iter().enumerate().map(|(n, norm)| (*norm, n)).collect(),
            sequences,
            positions,
            hidden,
            levels: vec![0; sequences * positions * hidden],
            all: empty(),
            without_first: empty(),
            non_finite: Vec::new(),
            gpus: Vec::new(),
        }
    }

    fn fold(&mut self, n: usize, first_sequence: usize, x: &[f32]) {
        let (hidden, positions) = (self.hidden, self.positions);
        let per_sequence = positions * hidden;
        let ladder = &self.ladder;
        let levels = &mut self.levels[first_sequence * per_sequence..][..x.len()];
        let pieces: Vec<(&[f32], usize, &mut [u8])> = x
            .chunks_exact(per_sequence)
            .zip(levels.chunks_exact_mut(per_sequence))
            .flat_map(|(x, levels)| {
                levels.chunks_mut(positions * BLOCK).enumerate().map(move |(block, levels)| (x, block * BLOCK, levels))
            })
            .collect();
        let folded: Vec<Piece> = pieces
            .into_par_iter()
            .map(|(x, first, levels)| Piece::fold(x, hidden, first, levels, positions, ladder))
            .collect();
        let blocks = hidden.div_ceil(BLOCK);
        for (s, pieces) in (first_sequence..).zip(folded.chunks_exact(blocks)) {
            let (nan, infinite) = pieces.iter().fold((0, 0), |sum, piece| (sum.0 + piece.nan, sum.1 + piece.infinite));
            let all = concat_blocks(pieces.iter().map(|piece| &piece.all));
            let without_first = concat_blocks(pieces.iter().map(|piece| &piece.without_first));
            self.store(n, s, all, without_first, (nan, infinite));
        }
    }

    /// The sites in the order of their statistics.
    pub fn sites(&self) -> &[SiteId] {
        &self.norms
    }

    fn shape(&self) -> Shape {
        Shape { hidden: self.hidden, positions: self.positions, rungs: self.ladder.len() }
    }

    fn store_all(&mut self, folded: Vec<Folded>) {
        for Folded { norm, sequence, all, without_first, non_finite } in folded {
            self.store(norm, sequence, all, without_first, non_finite);
        }
    }

    /// Stores the statistics of norm `n` over sequence `s` and its numbers of NaN and infinite
    /// values. They replace earlier ones of the same norm and sequence.
    fn store(&mut self, n: usize, s: usize, all: NormFold, without_first: NormFold, (nan, infinite): (u64, u64)) {
        if nan + infinite > 0 {
            self.non_finite.retain(|entry| (entry.norm, entry.sequence) != (self.norms[n], s));
            self.non_finite.push(NonFinite { norm: self.norms[n], sequence: s, nan, infinite });
        }
        self.all[n][s] = all;
        self.without_first[n][s] = without_first;
    }

    /// Number of sites in the first `layers` layers. The input of the head comes behind all layers.
    fn norms_of(&self, layers: usize) -> usize {
        self.norms.partition_point(|at| at.layer < layers && at.site != Site::FinalNorm)
    }

    /// The largest stored size of the folds of all norms in bytes. A number takes up to five bytes.
    /// A cell has two extremes and, for both signs, a feature, an end and a count per rung; there
    /// are two folds.
    fn max_stored_bytes(&self) -> u64 {
        let rows = (self.norms.len() * self.sequences) as u64;
        let numbers = 2 + 2 * (2 + self.ladder.len() as u64);
        2 * rows * (self.hidden as u64 * numbers * 5 + 256)
    }

    /// Restores the statistics of the first `norms` norms. Returns false, without a change, if
    /// their shape does not fit.
    fn restore(&mut self, norms: usize, folds: Folds<'static>) -> bool {
        let fits = |folds: &[Vec<NormFold>]| {
            let whole = |fold: &NormFold| fold.max.len() == self.hidden && fold.min.len() == self.hidden;
            folds.len() == norms && folds.iter().all(|row| row.len() == self.sequences && row.iter().all(whole))
        };
        if norms > self.norms.len() || !fits(&folds.all) || !fits(&folds.without_first) {
            return false;
        }
        for (own, stored) in [(&mut self.all, folds.all), (&mut self.without_first, folds.without_first)] {
            own.iter_mut().zip(stored.into_owned()).for_each(|(own, stored)| *own = stored);
        }
        self.non_finite = folds.non_finite.into_owned();
        true
    }

    /// The statistics over all positions and without position 0, and the list of non-finite values.
    pub fn finish(self) -> (Fold, Fold, Vec<NonFinite>) {
        let unions: Vec<(Ladders, Ladders)> =
            self.levels.par_chunks_exact(self.positions * self.hidden).map(|levels| self.union(levels)).collect();
        debug_assert_eq!(unions.len(), self.sequences);
        let (any_all, any_without): (Vec<_>, Vec<_>) = unions.into_iter().unzip();
        let all = Fold { norms: self.all, any_norm: any_all };
        let without_first = Fold { norms: self.without_first, any_norm: any_without };
        let mut non_finite = self.non_finite;
        non_finite.sort_by_key(|entry| (entry.norm, entry.sequence));
        (all, without_first, non_finite)
    }

    /// Number of positions of one sequence per feature and rung, from the levels over all norms.
    fn union(&self, levels: &[u8]) -> (Ladders, Ladders) {
        let (mut all, mut without_first) = (Ladders::default(), Ladders::default());
        for (block, levels) in levels.chunks(self.positions * BLOCK).enumerate() {
            let width = levels.len() / self.positions;
            let mut counts = Histogram::new(width, self.ladder.len());
            let add = |row: &[u8], counts: &mut Histogram| {
                for (feature, level) in row.iter().enumerate() {
                    if *level > 0 {
                        counts.hit(feature, *level as usize - 1);
                    }
                }
            };
            for row in levels.chunks_exact(width).skip(1) {
                add(row, &mut counts);
            }
            without_first.append(&counts.ladders(block * BLOCK));
            add(&levels[..width], &mut counts);
            all.append(&counts.ladders(block * BLOCK));
        }
        (all, without_first)
    }
}

impl Observer for LadderFold {
    fn wants(&self, site: SiteId) -> bool {
        self.index.contains_key(&site)
    }

    fn assign_sequences(&mut self, device: &Device, sequences: Range<usize>) -> Result<()> {
        debug_assert!(sequences.end <= self.sequences);
        match device {
            Device::Cpu => Ok(()),
            Device::Cuda(context) => {
                let of_sequence = self.positions * self.hidden;
                let seen = &self.levels[sequences.start * of_sequence..sequences.end * of_sequence];
                self.gpus.push(GpuFold::new(context, sequences.start, seen, &self.ladder, self.shape())?);
                Ok(())
            }
        }
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let norm = self.index[&site];
        match x {
            Tensor::Cpu(x) => self.fold(norm, sequences.start, View::of(x)?.values()?),
            _ => {
                let x = x.cuda()?;
                let Some(gpu) = self.gpus.iter_mut().find(|gpu| gpu.is_on(x)) else {
                    fault!("the fold was not told of this GPU")
                };
                gpu.observe(norm, sequences.start, x)?;
                if gpu.must_fetch() {
                    let folded = gpu.fetch()?;
                    self.store_all(folded);
                }
            }
        }
        Ok(())
    }

    fn fetch(&mut self) -> Result<()> {
        let of_sequence = self.positions * self.hidden;
        let mut gpus = std::mem::take(&mut self.gpus);
        let fetched = gpus.iter_mut().try_for_each(|gpu| {
            gpu.levels(&mut self.levels[gpu.first_sequence * of_sequence..])?;
            self.store_all(gpu.fetch()?);
            Ok(())
        });
        self.gpus = gpus;
        fetched
    }

    fn save(&mut self, layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        let writing =
            |e: String| Error::new(Kind::Io, format!("writing the checkpoint: {e}")).hint("is the disk full?");
        checkpoint.write_all(&self.levels).map_err(|e| writing(e.to_string()))?;
        let norms = self.norms_of(layers);
        let folds = Folds {
            all: self.all[..norms].into(),
            without_first: self.without_first[..norms].into(),
            non_finite: self.non_finite.as_slice().into(),
        };
        rmp_serde::encode::write(checkpoint, &folds).map_err(|e| writing(e.to_string()))
    }

    fn resume(&mut self, layers: usize, checkpoint: &mut dyn Read) -> Result<()> {
        let reading = |e: String| Error::corrupt(format!("reading it: {e}"));
        checkpoint.read_exact(&mut self.levels).map_err(|e| reading(e.to_string()))?;
        if self.levels.iter().copied().max().is_some_and(|highest| usize::from(highest) > self.ladder.len()) {
            return Err(Error::corrupt("its counts are of other thresholds"));
        }
        // The limit is the largest size of folds of this shape, with their list of non-finite
        // values.
        let most = self.max_stored_bytes() + MAX_NON_FINITE_BYTES;
        let folds = rmp_serde::from_read(checkpoint.take(most)).map_err(|e| reading(e.to_string()))?;
        match self.restore(self.norms_of(layers), folds) {
            true => Ok(()),
            false => Err(Error::corrupt("its parts do not fit")),
        }
    }

    /// Only the statistics per norm stay. They are replaced when their norms are observed again.
    fn reset(&mut self) {
        self.levels.fill(0);
        self.non_finite.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_a_longer_ladder_are_refused() {
        let norm = SiteId { layer: 0, site: Site::AttnIn };
        let fold = |ladder: &[f32]| LadderFold::new(ladder, &[norm], 1, 2, 3);
        let mut longer = fold(&[1.0, 2.0, 3.0]);
        let x = Tensor::from_vec(vec![0.0f32, 1.0, 4.0, 5.0, 0.0, 0.0], (2, 3), &Device::Cpu).unwrap();
        longer.observe(norm, 0..1, &x).unwrap();
        let mut saved = Vec::new();
        longer.save(1, &mut saved).unwrap();
        fold(&[1.0, 2.0, 4.0]).resume(1, &mut &saved[..]).unwrap();
        let error = fold(&[1.0, 2.0]).resume(1, &mut &saved[..]).unwrap_err();
        assert_eq!(error.message, "its counts are of other thresholds");
    }

    #[test]
    fn a_norm_that_is_seen_again_counts_once() {
        let norm = SiteId { layer: 0, site: Site::AttnIn };
        let mut fold = LadderFold::new(&[3.0], &[norm], 1, 2, 3);
        let x = Tensor::from_vec(vec![f32::NAN, 1.0, 4.0, 5.0, f32::INFINITY, 0.0], (2, 3), &Device::Cpu).unwrap();
        fold.observe(norm, 0..1, &x).unwrap();
        fold.observe(norm, 0..1, &x).unwrap();
        let (all, _, non_finite) = fold.finish();
        assert_eq!(non_finite, [NonFinite { norm, sequence: 0, nan: 1, infinite: 1 }]);
        assert_eq!(all.norms[0][0].max, [5.0, 1.0, 4.0]);
    }
}
