//! Folds every norm output where it is made: extremes, ladder counts and position unions, in one pass.
//!
//! The fold is over `record::Fold`'s definitions. Values that are not finite are counted and otherwise left out.

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
use crate::record::{Fold, Ladders, NonFinite, NormFold, SiteId};
use crate::tensor::{Device, Tensor, View};
use cells::{BLOCK, Histogram, Piece, joined};
use gpu::{Folded, OnGpu, Shape};

pub use gpu::{PENDING_BYTES, record_bytes};

/// Bytes of what a checkpoint has beside folds: where values were not finite.
const BESIDE_FOLDS: u64 = 64 << 20;

pub struct LadderFold {
    ladder: Vec<f32>,
    norms: Vec<SiteId>,
    /// Where each norm stands in `norms`.
    index: HashMap<SiteId, usize>,
    sequences: usize,
    positions: usize,
    hidden: usize,
    /// Highest rung any norm reached, plus one: [sequences][blocks of features][positions][features of the block].
    levels: Vec<u8>,
    /// [norms][sequences]
    all: Vec<Vec<NormFold>>,
    without_first: Vec<Vec<NormFold>>,
    non_finite: Vec<NonFinite>,
    gpus: Vec<OnGpu>,
}

/// What has been folded of the first norms, to be continued by another run; its levels go with it.
#[derive(Serialize, Deserialize)]
struct Folds<'a> {
    all: Cow<'a, [Vec<NormFold>]>,
    without_first: Cow<'a, [Vec<NormFold>]>,
    non_finite: Cow<'a, [NonFinite]>,
}

impl LadderFold {
    /// `ladder` as `stats::ladder` gives it; every norm will be seen once per sequence.
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
            let all = joined(pieces.iter().map(|piece| &piece.all));
            let without_first = joined(pieces.iter().map(|piece| &piece.without_first));
            self.keep(n, s, all, without_first, (nan, infinite));
        }
    }

    fn shape(&self) -> Shape {
        Shape { hidden: self.hidden, positions: self.positions, rungs: self.ladder.len() }
    }

    fn keep_all(&mut self, folded: Vec<Folded>) {
        for Folded { norm, sequence, all, without_first, non_finite } in folded {
            self.keep(norm, sequence, all, without_first, non_finite);
        }
    }

    /// What norm `n` is over sequence `s`, and how many values were NaN and infinite. Seen once more, it replaces what it was.
    fn keep(&mut self, n: usize, s: usize, all: NormFold, without_first: NormFold, (nan, infinite): (u64, u64)) {
        if nan + infinite > 0 {
            self.non_finite.retain(|entry| (entry.norm, entry.sequence) != (self.norms[n], s));
            self.non_finite.push(NonFinite { norm: self.norms[n], sequence: s, nan, infinite });
        }
        self.all[n][s] = all;
        self.without_first[n][s] = without_first;
    }

    /// How many of the norms belong to the first `layers` layers.
    fn norms_of(&self, layers: usize) -> usize {
        self.norms.partition_point(|norm| norm.layer < layers)
    }

    /// Bytes that folds of all norms take at most, stored as numbers of five bytes each: of a cell two extremes, and for both
    /// signs a feature, an end and a count per rung; all that twice.
    fn most_stored(&self) -> u64 {
        let rows = (self.norms.len() * self.sequences) as u64;
        let numbers = 2 + 2 * (2 + self.ladder.len() as u64);
        2 * rows * (self.hidden as u64 * numbers * 5 + 256)
    }

    /// Takes over the folds of the first `norms` norms; false, and nothing is changed, if they are of something else.
    fn take_over(&mut self, norms: usize, folds: Folds<'static>) -> bool {
        let fits = |folds: &[Vec<NormFold>]| {
            let whole = |fold: &NormFold| fold.max.len() == self.hidden && fold.min.len() == self.hidden;
            folds.len() == norms && folds.iter().all(|row| row.len() == self.sequences && row.iter().all(whole))
        };
        if norms > self.norms.len() || !fits(&folds.all) || !fits(&folds.without_first) {
            return false;
        }
        for (mine, theirs) in [(&mut self.all, folds.all), (&mut self.without_first, folds.without_first)] {
            mine.iter_mut().zip(theirs.into_owned()).for_each(|(mine, theirs)| *mine = theirs);
        }
        self.non_finite = folds.non_finite.into_owned();
        true
    }

    /// The finished folds over all positions and without position 0, and where values were not finite.
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

    /// Positions of one sequence per feature and rung, from the levels of all norms.
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

    fn place(&mut self, device: &Device, sequences: Range<usize>) -> Result<()> {
        debug_assert!(sequences.end <= self.sequences);
        match device {
            Device::Cpu => Ok(()),
            Device::Cuda(context) => {
                let of_sequence = self.positions * self.hidden;
                let seen = &self.levels[sequences.start * of_sequence..sequences.end * of_sequence];
                self.gpus.push(OnGpu::new(context, sequences.start, seen, &self.ladder, self.shape())?);
                Ok(())
            }
        }
    }

    fn see(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let norm = self.index[&site];
        match x {
            Tensor::Cpu(x) => self.fold(norm, sequences.start, View::of(x)?.values()?),
            _ => {
                let x = x.cuda()?;
                let Some(gpu) = self.gpus.iter_mut().find(|gpu| gpu.has(x)) else {
                    fault!("the fold was not told of this GPU")
                };
                gpu.see(norm, sequences.start, x)?;
                if gpu.is_full() {
                    let folded = gpu.fetch()?;
                    self.keep_all(folded);
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        let of_sequence = self.positions * self.hidden;
        let mut gpus = std::mem::take(&mut self.gpus);
        let fetched = gpus.iter_mut().try_for_each(|gpu| {
            gpu.levels(&mut self.levels[gpu.first_sequence * of_sequence..])?;
            self.keep_all(gpu.fetch()?);
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
        // No more than folds of this shape, and a few numbers beside them, can take.
        let most = self.most_stored() + BESIDE_FOLDS;
        let folds = rmp_serde::from_read(checkpoint.take(most)).map_err(|e| reading(e.to_string()))?;
        match self.take_over(self.norms_of(layers), folds) {
            true => Ok(()),
            false => Err(Error::corrupt("its parts do not fit")),
        }
    }

    /// Of what has been seen, only folds stay, which are replaced when their norms are seen again.
    fn begin_again(&mut self) {
        self.levels.fill(0);
        self.non_finite.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Site;

    #[test]
    fn a_norm_that_is_seen_again_counts_once() {
        let norm = SiteId { layer: 0, site: Site::AttnIn };
        let mut fold = LadderFold::new(&[3.0], &[norm], 1, 2, 3);
        let x = Tensor::from_vec(vec![f32::NAN, 1.0, 4.0, 5.0, f32::INFINITY, 0.0], (2, 3), &Device::Cpu).unwrap();
        fold.see(norm, 0..1, &x).unwrap();
        fold.see(norm, 0..1, &x).unwrap();
        let (all, _, non_finite) = fold.finish();
        assert_eq!(non_finite, [NonFinite { norm, sequence: 0, nan: 1, infinite: 1 }]);
        assert_eq!(all.norms[0][0].max, [5.0, 1.0, 4.0]);
    }
}
