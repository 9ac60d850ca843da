//! Changes of values at sites, for the lanes whose sequences one device computes together.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::plan::{Edit, Planned, What};
use super::seen::Seen;
use crate::engine::routing::Assignment;
use crate::error::Result;
use crate::record::{NewValue, SiteId};
use crate::tensor::Tensor;

/// The changes of some lanes, whose sequences follow each other lane by lane.
pub(in crate::engine) struct Edits {
    /// Each lane with its number among all.
    pub lanes: Vec<(usize, Arc<Planned>)>,
    pub seen: Arc<Seen>,
    /// The sequences of each lane, counted among all of the pass.
    pub sequences: Range<usize>,
    pub positions: usize,
}

impl Edits {
    /// What the lanes make of the tensor at a site, which belongs to some of their sequences.
    pub(in crate::engine) fn changed(&self, at: SiteId, rows: &Range<usize>, x: Tensor) -> Result<Tensor> {
        if self.seen.counts(at) {
            let (_, width) = x.dims2()?;
            let places = self.places(rows);
            x.with_values(|values| {
                let values = values.par_chunks_exact(self.positions * width);
                places.par_iter().zip(values).for_each(|((lane, _, sequence), values)| {
                    self.seen.count(at, *lane, *sequence, values);
                });
            })?;
        }
        self.edited(at, rows, x)
    }

    /// The lane and the sequence of each row.
    fn places(&self, rows: &Range<usize>) -> Vec<(usize, &Planned, usize)> {
        let count = self.sequences.len();
        let place = |row: usize| {
            let (lane, planned) = &self.lanes[row / count];
            (*lane, &**planned, self.sequences.start + row % count)
        };
        rows.clone().map(place).collect()
    }

    /// The same without counting what is there before.
    pub(in crate::engine) fn edited(&self, at: SiteId, rows: &Range<usize>, x: Tensor) -> Result<Tensor> {
        let (_, width) = x.dims2()?;
        let of_sequence = self.positions * width;
        let places = self.places(rows);
        if places.iter().all(|(_, planned, _)| planned.edits_at(at).is_empty()) {
            return Ok(x);
        }
        let means = match places.iter().any(|(_, planned, _)| planned.edits_at(at).iter().any(Edit::needs_means)) {
            true => self.seen.means(at),
            false => Arc::default(),
        };
        let mut values = x.values()?;
        places.par_iter().zip(values.par_chunks_exact_mut(of_sequence)).for_each(|((_, planned, sequence), values)| {
            apply(planned.edits_at(at), *sequence, values, width, &means);
        });
        Tensor::from_vec(values, x.dims(), &x.device())
    }

    /// Takes the tokens of some sequences from experts that their lanes have switched off.
    pub(in crate::engine) fn without_experts(&self, layer: usize, rows: &Range<usize>, to: &mut Assignment) {
        for row in rows.clone() {
            let off = self.lanes[row / self.sequences.len()].1.experts_off(layer);
            let tokens = row * self.positions..(row + 1) * self.positions;
            off.iter().for_each(|expert| to.remove(*expert, &tokens));
        }
    }
}

/// Changes the values [positions, width] of a sequence.
pub(super) fn apply(edits: &[Edit], sequence: usize, values: &mut [f32], width: usize, means: &[f32]) {
    for Edit { what, positions } in edits {
        let rows = values.chunks_exact_mut(width).enumerate();
        let rows = rows.filter(|(t, _)| positions.as_ref().is_none_or(|positions| positions.contains(t)));
        match what {
            What::Features { to, dims } => rows.for_each(|(_, row)| {
                for (i, dim) in dims.iter().enumerate() {
                    row[*dim] = new_value(to, i, row[*dim], means.get(*dim));
                }
            }),
            What::ZeroBeyond(threshold) => {
                let zero = |x: &mut f32| *x = if x.abs() > *threshold { 0.0 } else { *x };
                rows.for_each(|(_, row)| row.iter_mut().for_each(zero));
            }
            What::Elements { to, elements } => rows.for_each(|(t, row)| {
                for [_, _, dim] in elements.iter().filter(|[s, at, _]| (*s, *at) == (sequence, t)) {
                    row[*dim] = new_value(to, 0, row[*dim], means.get(*dim));
                }
            }),
        }
    }
}

fn new_value(to: &NewValue, i: usize, value: f32, mean: Option<&f32>) -> f32 {
    match to {
        NewValue::Zero => 0.0,
        NewValue::Scale(factor) => value * factor,
        NewValue::Mean => mean.copied().unwrap_or(value),
        NewValue::Given(values) => values[i],
    }
}
