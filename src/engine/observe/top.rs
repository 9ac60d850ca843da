//! The largest values at sites, with the places where they are.
//!
//! They are ordered by falling |x|, then by token, expert and dimension, so that the choice among
//! equal values does not depend on how the work is divided. Values that are not finite are left
//! out.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::observer::{ExpertRows, Observer};
use super::stored;
use crate::error::Result;
use crate::record::{Site, SiteId, Tokens, Top, TopValue};
use crate::tensor::Tensor;
use crate::vector::vectorised;

/// Number of rows in one parallel task.
const ROWS: usize = 256;

pub struct TopObserver<'a> {
    sites: Vec<Site>,
    tokens: &'a Tokens,
    /// The number of values that are kept at each site of a layer.
    most: usize,
    /// Of the layer at work, by site and sequence.
    sequences: BTreeMap<(SiteId, usize), Vec<Found>>,
    /// Of the layer at work, by site.
    experts: BTreeMap<SiteId, Vec<Found>>,
    done: Vec<Top>,
}

/// A value, the index of its token among all, its expert and its dimension.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub value: f32,
    pub token: usize,
    pub expert: Option<usize>,
    pub dim: usize,
}

impl Found {
    /// The order of the record.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let place = |found: &Self| (found.token, found.expert, found.dim);
        other.value.abs().total_cmp(&self.value.abs()).then_with(|| place(self).cmp(&place(other)))
    }

    /// The value as records have it.
    pub(super) fn of_tokens(&self, tokens: &Tokens) -> TopValue {
        let positions = tokens.info.sequence_length;
        let (sequence, position) = (self.token / positions, self.token % positions);
        let token_id = tokens.ids[sequence][position];
        TopValue { value: self.value, sequence, position, token_id, dim: self.dim, expert: self.expert }
    }
}

/// The `most` largest values of `x` [rows, width]. `token` gives the token of a row.
pub(super) fn largest(
    x: &[f32],
    width: usize,
    most: usize,
    expert: Option<usize>,
    token: impl Fn(usize) -> usize + Sync,
) -> Vec<Found> {
    let pieces = x.par_chunks(ROWS * width).enumerate();
    let found: Vec<Vec<Found>> = pieces
        .map(|(piece, x)| {
            let mut found: Vec<Found> = Vec::with_capacity(x.len().min(2 * most));
            // Less than this is not among the largest any more.
            let mut least = 0f32;
            for (row, values) in x.chunks_exact(width).enumerate() {
                let highest = vectorised!(|| values.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
                if f32::from_bits(highest) < least {
                    continue;
                }
                let token = token(piece * ROWS + row);
                for (dim, value) in values.iter().enumerate() {
                    if value.is_finite() && value.abs() >= least {
                        found.push(Found { value: *value, token, expert, dim });
                        if found.len() == 2 * most {
                            keep(&mut found, most);
                            least = found[most - 1].value.abs();
                        }
                    }
                }
            }
            found
        })
        .collect();
    let mut found = found.concat();
    keep(&mut found, most);
    found
}

/// Keeps the `most` first values in the order of the record.
fn keep(found: &mut Vec<Found>, most: usize) {
    found.sort_unstable_by(Found::order);
    found.truncate(most);
}

impl<'a> TopObserver<'a> {
    pub fn new(sites: &[Site], tokens: &'a Tokens, most: usize) -> Self {
        let (sequences, experts) = (BTreeMap::new(), BTreeMap::new());
        Self { sites: sites.to_vec(), tokens, most, sequences, experts, done: Vec::new() }
    }

    /// Merges the sequences and experts of the layer at work.
    fn settle(&mut self) {
        let mut by_site = std::mem::take(&mut self.experts);
        for ((at, _), found) in std::mem::take(&mut self.sequences) {
            by_site.entry(at).or_default().extend(found);
        }
        for (at, mut found) in by_site {
            keep(&mut found, self.most);
            self.done.push(Top { at, values: found.iter().map(|found| found.of_tokens(self.tokens)).collect() });
        }
    }

    /// The largest values in the order of layers and sites.
    pub fn finish(mut self) -> Vec<Top> {
        self.settle();
        self.done.sort_by_key(|top| top.at);
        self.done
    }
}

impl Observer for TopObserver<'_> {
    fn wants(&self, site: SiteId) -> bool {
        self.sites.contains(&site.site)
    }

    fn wants_experts(&self, _layer: usize) -> bool {
        self.sites.contains(&Site::FfnMid)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        let positions = self.tokens.info.sequence_length;
        x.with_values(|values| {
            for (sequence, x) in sequences.zip(values.chunks_exact(positions * width)) {
                let found = largest(x, width, self.most, None, |row| sequence * positions + row);
                self.sequences.insert((site, sequence), found);
            }
        })
    }

    fn observe_expert(&mut self, rows: &ExpertRows) -> Result<()> {
        let (_, width) = rows.inner.dims2()?;
        let tokens: Vec<usize> = rows.tokens().collect();
        let found = rows.inner.with_values(|x| largest(x, width, self.most, Some(rows.expert), |row| tokens[row]))?;
        let all = self.experts.entry(SiteId { layer: rows.layer, site: Site::FfnMid }).or_default();
        all.extend(found);
        keep(all, self.most);
        Ok(())
    }

    stored::settled_in!(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_ordered_by_their_place() {
        // 600 rows of 3 values: 1 everywhere, with three of 2.
        let mut x = vec![1.0f32; 1800];
        (x[1799], x[300], x[7]) = (-2.0, 2.0, f32::NAN);
        x[301] = 2.0;
        let found = largest(&x, 3, 5, None, |row| row + 10);
        let places: Vec<_> = found.iter().map(|found| (found.value, found.token, found.dim)).collect();
        assert_eq!(places, [(2.0, 110, 0), (2.0, 110, 1), (-2.0, 609, 2), (1.0, 10, 0), (1.0, 10, 1)]);
    }
}
