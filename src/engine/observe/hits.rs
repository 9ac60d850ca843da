//! The tokens at which features are hit: for each feature, sequence and position the value of the
//! largest magnitude in any layer, and the rung that each layer reaches.
//!
//! Features are not known before the end of a pass, so every dimension that is hit gets a row of
//! its sequence, as far as memory allows. When it is full, the rows that are hit in the fewest
//! layers give way at the end of a layer. That is decided for each sequence by itself, so the
//! result does not depend on how the work is divided.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::observer::Observer;
use super::stored;
use crate::error::{Error, Result};
use crate::record::{DimHits, MAX_HIT_DIMS, Site, SiteHits, SiteId, TokenHits, TokenTexts, Tokens};
use crate::tensor::Tensor;
use crate::vector::vectorised;

/// Memory for the rows of a site in bytes, over all sequences.
const ROWS_BYTES: usize = 64 << 20;
/// The least number of rows of a sequence.
pub(super) const LEAST_ROWS: usize = 16;
/// Bytes of a token in a row, beside one for each layer.
pub(super) const TOKEN_BYTES: usize = 6;

/// A site and the layers that have it.
pub struct HitSite {
    pub site: Site,
    pub layers: Vec<usize>,
    /// Dimensions that are always kept.
    pub wanted: Vec<usize>,
}

pub struct HitsObserver<'a> {
    sites: Vec<HitSite>,
    tokens: &'a Tokens,
    /// The rungs from the one on that makes a hit.
    ladder: Vec<f32>,
    /// The number of rungs below these.
    below: usize,
    /// Of the layer at work.
    found: BTreeMap<(SiteId, usize), Found>,
    done: BTreeMap<(Site, usize), Sequence>,
}

/// Hits of one sequence in the layer at work.
#[derive(Default)]
struct Found {
    hits: Vec<Hit>,
    /// Dimensions that are hit and have no room.
    left_out: BTreeSet<u32>,
}

#[derive(Clone, Copy)]
struct Hit {
    dim: u32,
    position: u32,
    value: f32,
}

/// What is kept of a sequence.
#[derive(Default, Serialize, Deserialize)]
struct Sequence {
    rows: BTreeMap<u32, Row>,
    /// Dimensions of which hits are missing.
    partial: BTreeSet<u32>,
}

/// A dimension in a sequence.
#[derive(Serialize, Deserialize)]
struct Row {
    /// Of the largest magnitude so far, [positions]; 0 without a hit.
    value: Vec<f32>,
    layer: Vec<u16>,
    /// Number of rungs reached in each layer, [positions * layers].
    rungs: Vec<u8>,
    layers_hit: u32,
    hits: u64,
}

/// The most rows of one of `sequences` of `positions` at a site.
pub(super) fn most_rows(of: &HitSite, (sequences, positions): (usize, usize)) -> usize {
    let row = positions * (TOKEN_BYTES + of.layers.len());
    (ROWS_BYTES / (sequences * row).max(1)).max(LEAST_ROWS) + of.wanted.len()
}

impl<'a> HitsObserver<'a> {
    /// `ladder` is that of the record; values from its rung at or above `from` on are hits.
    pub fn new(sites: Vec<HitSite>, tokens: &'a Tokens, ladder: &[f32], from: f32) -> Self {
        let below = ladder.partition_point(|rung| *rung < from);
        let (found, done) = (BTreeMap::new(), BTreeMap::new());
        Self { sites, tokens, ladder: ladder[below..].to_vec(), below, found, done }
    }

    fn site(&self, site: Site) -> Option<&HitSite> {
        self.sites.iter().find(|of| of.site == site)
    }

    /// The most rows of a sequence at a site.
    fn most_rows(&self, of: &HitSite) -> usize {
        most_rows(of, (self.tokens.info.num_sequences, self.tokens.info.sequence_length))
    }

    /// Adds the layer at work to the rows.
    fn settle(&mut self) {
        for ((at, sequence), found) in std::mem::take(&mut self.found) {
            let Some(of) = self.sites.iter().find(|of| of.site == at.site) else { continue };
            let Some(place) = of.layers.iter().position(|layer| *layer == at.layer) else { continue };
            let (most, wanted) = (self.most_rows(of), &of.wanted);
            let layers = of.layers.len();
            let positions = self.tokens.info.sequence_length;
            let kept = self.done.entry((at.site, sequence)).or_default();
            kept.partial.extend(found.left_out);
            let mut seen = BTreeSet::new();
            for Hit { dim, position, value } in found.hits {
                let t = position as usize;
                let row = kept.rows.entry(dim).or_insert_with(|| Row::new(positions, layers));
                row.layers_hit += u32::from(seen.insert(dim));
                row.hits += 1;
                row.rungs[t * layers + place] = self.below as u8 + rungs(&self.ladder, value);
                if value.abs() > row.value[t].abs() {
                    (row.value[t], row.layer[t]) = (value, at.layer as u16);
                }
            }
            if kept.rows.len() > most {
                let is_wanted = |dim: u32| wanted.contains(&(dim as usize));
                let mut order: Vec<_> = kept
                    .rows
                    .iter()
                    .map(|(dim, row)| (Reverse((is_wanted(*dim), row.layers_hit, row.hits)), *dim))
                    .collect();
                order.sort_unstable();
                for (_, dim) in order.split_off(most) {
                    kept.rows.remove(&dim);
                    kept.partial.insert(dim);
                }
            }
        }
    }

    /// The dimensions of each site that are hit in most layers, and the tokens themselves.
    pub fn finish(mut self) -> (Vec<SiteHits>, Option<TokenTexts>) {
        self.settle();
        let mut all: Vec<SiteHits> = self.sites.iter().map(|of| self.of_site(of)).collect();
        all.sort_by_key(|of| of.site);
        let ids = self.tokens.ids.concat();
        (all, Some(TokenTexts { ids, ..TokenTexts::default() }))
    }

    fn of_site(&self, of: &HitSite) -> SiteHits {
        let sequences = || self.done.iter().filter(|((site, _), _)| *site == of.site);
        let partial: BTreeSet<u32> = sequences().flat_map(|(_, kept)| kept.partial.iter().copied()).collect();
        let mut by_dim: BTreeMap<u32, Vec<(usize, &Row)>> =
            of.wanted.iter().map(|dim| (*dim as u32, Vec::new())).collect();
        for ((_, sequence), kept) in sequences() {
            kept.rows.iter().for_each(|(dim, row)| by_dim.entry(*dim).or_default().push((*sequence, row)));
        }
        let known: usize = by_dim.values().filter(|rows| !rows.is_empty()).count();
        let never = partial.iter().filter(|dim| !by_dim.contains_key(dim)).count();
        let mut dims: Vec<DimHits> = by_dim
            .into_iter()
            .map(|(dim, rows)| self.of_dim(of, dim as usize, &rows, !partial.contains(&dim)))
            .collect();
        let is_wanted = |dims: &DimHits| of.wanted.contains(&dims.dim);
        dims.sort_by_key(|dims| (Reverse((is_wanted(dims), dims.layers_hit, dims.hits)), dims.dim));
        dims.truncate(of.wanted.len() + MAX_HIT_DIMS);
        dims.sort_by_key(|dims| (Reverse((dims.layers_hit, dims.hits)), dims.dim));
        let others = known + never - dims.iter().filter(|dims| dims.hits > 0).count();
        let from = self.ladder.first().copied().unwrap_or(f32::INFINITY);
        SiteHits { site: of.site, layers: of.layers.clone(), from, others, dims }
    }

    fn of_dim(&self, of: &HitSite, dim: usize, rows: &[(usize, &Row)], whole: bool) -> DimHits {
        let (layers, positions) = (of.layers.len(), self.tokens.info.sequence_length);
        let mut tokens = TokenHits::default();
        for (sequence, row) in rows {
            for t in (0..positions).filter(|t| row.value[*t] != 0.0) {
                tokens.token.push((sequence * positions + t) as u32);
                tokens.value.push(row.value[t]);
                tokens.layer.push(row.layer[t]);
                tokens.rungs.extend_from_slice(&row.rungs[t * layers..][..layers]);
            }
        }
        let hit = |place: usize| tokens.rungs.iter().skip(place).step_by(layers).any(|rungs| *rungs > 0);
        let layers_hit = (0..layers).filter(|place| hit(*place)).count();
        let hits = rows.iter().map(|(_, row)| row.hits).sum();
        DimHits { dim, layers_hit, hits, count: tokens.token.len(), whole, tokens }
    }
}

impl Row {
    fn new(positions: usize, layers: usize) -> Self {
        Self {
            value: vec![0.0; positions],
            layer: vec![0; positions],
            rungs: vec![0; positions * layers],
            layers_hit: 0,
            hits: 0,
        }
    }
}

/// The number of rungs that a value reaches.
fn rungs(ladder: &[f32], value: f32) -> u8 {
    ladder.partition_point(|rung| *rung <= value.abs()) as u8
}

/// The hits in `x` [positions, width], of the `most` dimensions that have the most.
fn hits_of(x: &[f32], width: usize, least: f32, most: usize, wanted: &[usize]) -> Found {
    let mut hits = Vec::new();
    let mut counts = vec![0u32; width];
    for_each_hit(x, width, least, |_, dim, _| counts[dim] += 1);
    let mut dims: Vec<usize> = (0..width).filter(|dim| counts[*dim] > 0).collect();
    let mut left_out = BTreeSet::new();
    if dims.len() > most {
        dims.sort_by_key(|dim| (Reverse((wanted.contains(dim), counts[*dim])), *dim));
        left_out = dims.split_off(most).into_iter().map(|dim| dim as u32).collect();
    }
    if dims.is_empty() {
        return Found::default();
    }
    let mut kept = vec![false; width];
    dims.iter().for_each(|dim| kept[*dim] = true);
    for_each_hit(x, width, least, |position, dim, value| {
        if kept[dim] {
            hits.push(Hit { dim: dim as u32, position: position as u32, value });
        }
    });
    Found { hits, left_out }
}

/// Calls `f` with position, dimension and value of each hit. Values that are not finite are none.
fn for_each_hit(x: &[f32], width: usize, least: f32, mut f: impl FnMut(usize, usize, f32)) {
    for (position, row) in x.chunks_exact(width).enumerate() {
        for (piece, values) in row.chunks(64).enumerate() {
            // Nearly all pieces have none.
            if !vectorised!(|| values.iter().fold(false, |any, x| any | (x.abs() >= least))) {
                continue;
            }
            for (i, x) in values.iter().enumerate() {
                if x.abs() >= least && x.is_finite() {
                    f(position, piece * 64 + i, *x);
                }
            }
        }
    }
}

impl Observer for HitsObserver<'_> {
    fn wants(&self, site: SiteId) -> bool {
        self.site(site.site).is_some_and(|of| of.layers.contains(&site.layer))
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        let positions = self.tokens.info.sequence_length;
        let Some(of) = self.site(site.site) else { return Ok(()) };
        let (most, wanted) = (self.most_rows(of), &of.wanted);
        let Some(least) = self.ladder.first().copied() else { return Ok(()) };
        let found: Vec<Found> = x.with_values(|values| {
            let parts = values.par_chunks_exact(positions * width);
            parts.map(|x| hits_of(x, width, least, most, wanted)).collect()
        })?;
        self.found.extend(sequences.map(|sequence| (site, sequence)).zip(found));
        Ok(())
    }

    fn end_layer(&mut self, _layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        self.settle();
        Ok(())
    }

    fn fetch(&mut self) -> Result<()> {
        self.settle();
        Ok(())
    }

    fn save(&mut self, _layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        stored::write(&self.done, checkpoint)
    }

    fn resume(&mut self, layers: usize, checkpoint: &mut dyn Read) -> Result<()> {
        let done: BTreeMap<(Site, usize), Sequence> = stored::read(checkpoint)?;
        let (sequences, positions) = (self.tokens.info.num_sequences, self.tokens.info.sequence_length);
        let fits = |((site, sequence), kept): (&(Site, usize), &Sequence)| {
            let of_site = self.site(*site).map_or(0, |of| of.layers.len());
            let row_fits = |row: &Row| {
                (row.value.len(), row.layer.len(), row.rungs.len()) == (positions, positions, positions * of_site)
                    && row.layer.iter().all(|layer| usize::from(*layer) < layers)
                    && row.rungs.iter().all(|rungs| usize::from(*rungs) <= self.below + self.ladder.len())
            };
            of_site > 0 && *sequence < sequences && kept.rows.values().all(row_fits)
        };
        if !done.iter().all(fits) {
            return Err(Error::corrupt("its tokens with hits are of another pass"));
        }
        self.done = done;
        Ok(())
    }

    fn reset(&mut self) {
        self.done.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TokensInfo;

    fn tokens(sequences: usize, positions: usize) -> Tokens {
        let ids = (0..sequences).map(|s| (0..positions).map(|t| (10 * s + t) as u32).collect()).collect();
        let (source, sha256) = (Tokens::SCRIPT.to_string(), String::new());
        let info = TokensInfo {
            source,
            revision: None,
            num_sequences: sequences,
            sequence_length: positions,
            sha256,
            parts: vec![],
        };
        Tokens { ids, info }
    }

    fn observer<'a>(tokens: &'a Tokens, wanted: &[usize]) -> HitsObserver<'a> {
        let site = HitSite { site: Site::ResidPost, layers: vec![0, 1, 2], wanted: wanted.to_vec() };
        HitsObserver::new(vec![site], tokens, &[3.0, 6.0, 8.0, 100.0], 6.0)
    }

    fn show(of: &mut HitsObserver, layer: usize, sequence: usize, x: &[f32]) {
        let at = SiteId { layer, site: Site::ResidPost };
        let positions = of.tokens.info.sequence_length;
        let x = Tensor::from_vec(x.to_vec(), (positions, x.len() / positions), &crate::tensor::Device::Cpu).unwrap();
        of.observe(at, sequence..sequence + 1, &x).unwrap();
    }

    #[test]
    fn the_strongest_value_of_any_layer_is_kept_with_the_rungs_of_each() {
        let tokens = tokens(2, 2);
        let mut of = observer(&tokens, &[]);
        show(&mut of, 0, 1, &[0.0, -7.0, 5.9, f32::INFINITY]);
        of.end_layer(0, &[]).unwrap();
        show(&mut of, 1, 1, &[0.0, 6.0, 0.0, 9.0]);
        show(&mut of, 1, 0, &[0.0, 0.0, 0.0, 400.0]);
        of.end_layer(1, &[]).unwrap();
        let (sites, texts) = of.finish();
        assert_eq!(texts.unwrap().ids, [0, 1, 10, 11]);
        let dims = &sites[0].dims;
        assert_eq!((dims.len(), dims[0].dim, dims[0].layers_hit, dims[0].hits, dims[0].whole), (1, 1, 2, 4, true));
        let hits = &dims[0].tokens;
        assert_eq!(hits.token, [1, 2, 3]);
        assert_eq!(hits.value, [400.0, -7.0, 9.0]);
        assert_eq!(hits.layer, [1, 0, 1]);
        assert_eq!(hits.rungs, [0, 4, 0, 2, 2, 0, 0, 3, 0]);
    }

    #[test]
    fn a_batch_that_is_shown_twice_counts_once_and_order_does_not_matter() {
        let tokens = tokens(2, 1);
        let both = |order: [usize; 3]| {
            let mut of = observer(&tokens, &[]);
            for layer in 0..2 {
                for sequence in order {
                    show(&mut of, layer, sequence, &[10.0 * sequence as f32, -6.0 - layer as f32]);
                }
                of.end_layer(layer, &[]).unwrap();
            }
            of.finish()
        };
        assert_eq!(both([0, 1, 1]), both([1, 0, 0]));
    }

    #[test]
    fn what_has_no_room_is_said_to_be_partial() {
        let width = 40;
        let found = hits_of(&vec![7.0; 2 * width], width, 6.0, 16, &[39]);
        assert_eq!((found.hits.len(), found.left_out.len()), (32, 24));
        assert!(found.hits.iter().any(|hit| hit.dim == 39), "a dimension that was asked for is kept");
    }
}
