//! Weights, as they are read: extremes, kurtosis, and the error of rounding them to integers.
//!
//! A weight that the pass reads is measured once, when it arrives. A tensor may arrive in pieces:
//! projections that are stored one below the other, experts of a stack, and blocks of the head.
//! Pieces are kept by their place and added up in that order, so that no number depends on when
//! they arrived. docs/measures.md has the definitions.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Read, Write};

use candle_core::DType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::observer::Observer;
use super::stored;
use crate::error::{Error, Result};
use crate::record::WeightStats;
use crate::spec::inventory::{self, Part};
use crate::spec::{Model, Role, TensorSpec};
use crate::tensor::{Device, Tensor};
use crate::vector::vectorised;
use crate::weights::OpenModel;
use crate::weights::load::Loader;

/// Number of rows in one parallel task.
const ROWS: usize = 32;
/// Number of values that share a scale in the rounding to four bits.
const GROUP: usize = 128;
/// The largest codes of eight and of four bits.
const LARGEST: [f32; 2] = [127.0, 7.0];
/// Number of values of a table outside the layers that are read at once.
const BLOCK: usize = 1 << 24;

/// The place of a piece: the tensor, the expert in a stack, and the first row.
type Place = (String, usize, usize);

pub struct WeightsObserver {
    /// Names of the weights that are stored [in, out].
    in_out: HashSet<String>,
    pieces: BTreeMap<Place, Piece>,
}

/// Sums over some rows of a tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Piece {
    layer: Option<usize>,
    /// Shape of the whole tensor.
    shape: Vec<usize>,
    sums: Sums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    /// Rows of outputs.
    rows: u64,
    values: u64,
    absmax: f32,
    /// Sums of x, x^2, x^3 and x^4.
    powers: [f64; 4],
    /// Squared errors in eight and in four bits.
    errors: [f64; 2],
}

impl Sums {
    /// Of pieces of a tensor, in the order of their rows.
    fn of(pieces: &[Self]) -> Self {
        pieces.iter().fold(Self::default(), Self::with)
    }

    /// Of `x` [rows of outputs, inputs].
    fn of_rows(x: &[f32], width: usize) -> Self {
        let mut sums = Self { rows: (x.len() / width) as u64, values: x.len() as u64, ..Self::default() };
        for row in x.chunks_exact(width) {
            let absmax = largest(row);
            sums.absmax = sums.absmax.max(absmax);
            sums.powers.iter_mut().zip(powers(row)).for_each(|(sum, more)| *sum += more);
            sums.errors[0] += rounding_error(row, absmax, LARGEST[0]);
            for group in row.chunks(GROUP) {
                sums.errors[1] += rounding_error(group, largest(group), LARGEST[1]);
            }
        }
        sums
    }

    fn with(self, more: &Self) -> Self {
        let both = |a: f64, b: f64| a + b;
        let [p0, p1, p2, p3] = self.powers;
        let [q0, q1, q2, q3] = more.powers;
        Self {
            rows: self.rows + more.rows,
            values: self.values + more.values,
            absmax: self.absmax.max(more.absmax),
            powers: [both(p0, q0), both(p1, q1), both(p2, q2), both(p3, q3)],
            errors: [both(self.errors[0], more.errors[0]), both(self.errors[1], more.errors[1])],
        }
    }

    /// The fourth central moment over the square of the second, minus 3.
    fn excess_kurtosis(&self) -> f64 {
        let [s1, s2, s3, s4] = self.powers.map(|sum| sum / self.values.max(1) as f64);
        let fourth = s4 - 4.0 * s1 * s3 + 6.0 * s1 * s1 * s2 - 3.0 * s1.powi(4);
        fourth / (s2 - s1 * s1).powi(2) - 3.0
    }

    /// A squared error over the sum of x^2.
    fn relative(&self, error: f64) -> f32 {
        if self.powers[1] > 0.0 { (error / self.powers[1]) as f32 } else { 0.0 }
    }
}

/// The largest |x|. All weights are finite.
fn largest(x: &[f32]) -> f32 {
    f32::from_bits(vectorised!(|| x.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7fff_ffff))))
}

/// Sums of x, x^2, x^3 and x^4.
fn powers(x: &[f32]) -> [f64; 4] {
    let add = |sums: &mut [[f64; 8]; 4], at: usize, x: f32| {
        let x = f64::from(x);
        let x2 = x * x;
        sums[0][at] += x;
        sums[1][at] += x2;
        sums[2][at] += x2 * x;
        sums[3][at] += x2 * x2;
    };
    let sums = vectorised!(|| {
        let mut sums = [[0f64; 8]; 4];
        let (whole, rest) = x.as_chunks::<8>();
        for chunk in whole {
            (0..8).for_each(|at| add(&mut sums, at, chunk[at]));
        }
        rest.iter().for_each(|x| add(&mut sums, 0, *x));
        sums
    });
    sums.map(|sums| sums.iter().sum())
}

/// The nearest whole number of x, at most 2^22; halves round to the even neighbour.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    /// 1.5 * 2^23: added to x, it leaves no room for a fraction.
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}

/// The squared error of values that share the scale `absmax / most`, as integers up to `most`.
fn rounding_error(x: &[f32], absmax: f32, most: f32) -> f64 {
    let scale = absmax / most;
    if scale == 0.0 {
        return powers(x)[1];
    }
    vectorised!(|| {
        let error = |x: f32| {
            let rounded = nearest(x / scale).clamp(-most, most) * scale;
            let error = f64::from(x) - f64::from(rounded);
            error * error
        };
        let mut sums = [0f64; 8];
        let (whole, rest) = x.as_chunks::<8>();
        for chunk in whole {
            sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += error(*x));
        }
        sums.iter().sum::<f64>() + rest.iter().map(|x| error(*x)).sum::<f64>()
    })
}

/// Whether a part is a matrix of a linear layer.
fn is_matrix(part: &Part) -> bool {
    let roles = [Role::FromAttnIn, Role::FromFfnIn, Role::Inner, Role::ToResidual, Role::Router];
    roles.contains(&part.role) && part.weight.loaded_shape().len() == 2
}

/// A weight of a table outside the layers, as a part.
fn table(weight: &TensorSpec) -> Part {
    Part { weight: weight.clone(), role: Role::ToResidual }
}

fn place(weight: &TensorSpec) -> Place {
    (weight.name.clone(), weight.slice.unwrap_or(0), weight.own_rows().start)
}

impl WeightsObserver {
    pub fn new(model: &Model) -> Self {
        Self { in_out: model.stored_in_out(), pieces: BTreeMap::new() }
    }

    /// Measures one weight that has been loaded.
    fn add(&mut self, layer: Option<usize>, weight: &TensorSpec, loaded: &Tensor) -> Result<()> {
        let (rows, width) = loaded.dims2()?;
        let pieces = match self.in_out.contains(&weight.name) {
            false => loaded.map_rows(ROWS, |x| Sums::of_rows(x, width))?,
            true => {
                let columns = transposed(&loaded.to_f32_vec()?, width);
                columns.par_chunks(ROWS * rows).map(|x| Sums::of_rows(x, rows)).collect()
            }
        };
        let sums = Sums::of(&pieces);
        self.pieces.insert(place(weight), Piece { layer, shape: weight.shape.clone(), sums });
        Ok(())
    }

    /// The statistics of every tensor of which anything was read, by layer and name, and the names
    /// of those of which something was not. If `unread`, that is read now.
    pub fn finish(mut self, model: &OpenModel, unread: bool) -> Result<(Vec<WeightStats>, Vec<String>)> {
        let mut missing = BTreeSet::new();
        let mut order: BTreeMap<String, usize> = BTreeMap::new();
        for (layer, part) in matrices(&model.spec) {
            let next = order.len();
            order.entry(part.weight.name.clone()).or_insert(next);
            if self.pieces.contains_key(&place(&part.weight)) {
                continue;
            }
            match unread {
                true => self.read(model, layer, &part)?,
                false => drop(missing.insert(part.weight.name.clone())),
            }
        }
        let mut tensors: BTreeMap<String, Piece> = BTreeMap::new();
        for ((name, _, _), piece) in &self.pieces {
            match tensors.get_mut(name) {
                Some(sum) => sum.sums = sum.sums.with(&piece.sums),
                None => drop(tensors.insert(name.clone(), piece.clone())),
            }
        }
        let in_out = &self.in_out;
        let mut stats: Vec<WeightStats> = tensors
            .into_iter()
            .map(|(name, Piece { layer, shape, sums })| {
                let output = if in_out.contains(&name) { shape.len() - 1 } else { shape.len() - 2 };
                let stack: usize = shape[..shape.len() - 2].iter().product();
                WeightStats {
                    layer,
                    rows: (stack * shape[output]) as u64,
                    rows_measured: sums.rows,
                    absmax: sums.absmax,
                    excess_kurtosis: sums.excess_kurtosis() as f32,
                    int8_error: sums.relative(sums.errors[0]),
                    int4_error: sums.relative(sums.errors[1]),
                    name,
                    shape,
                }
            })
            .collect();
        stats.sort_by_key(|of| order.get(&of.name).copied());
        Ok((stats, missing.into_iter().collect()))
    }

    /// Reads a weight that the pass had no use for.
    fn read(&mut self, model: &OpenModel, layer: Option<usize>, part: &Part) -> Result<()> {
        let loader = Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
        if layer.is_some() {
            return self.add(layer, &part.weight, &loader.part(part)?.remove(0));
        }
        let [rows, width] = part.weight.shape[..] else { return Ok(()) };
        let step = (BLOCK / width.max(1)).max(1);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let block = loader.rows(&part.weight, first, count, Some(DType::F32))?.remove(0);
            self.add(None, &part.weight.rows(first, count), &block)?;
        }
        Ok(())
    }
}

/// All matrices of a model, with their layers, in the order of computation.
fn matrices(model: &Model) -> Vec<(Option<usize>, Part)> {
    let mut all: Vec<(Option<usize>, Part)> = vec![(None, table(&model.embedding))];
    let mut outside = |parts: Vec<Part>| all.extend(parts.into_iter().map(|part| (None, part)));
    outside(model.positions.iter().map(|positions| table(&positions.weight)).collect());
    outside(model.project_in.iter().flat_map(inventory::projection).collect());
    outside(model.layer_embeddings.iter().map(|own| table(&own.table)).collect());
    outside(model.layer_embeddings.iter().flat_map(inventory::parts).collect());
    for (i, layer) in model.layers.iter().enumerate() {
        all.extend(inventory::core(layer, true).into_iter().map(|part| (Some(i), part)));
        let moe = layer.moe();
        let experts = moe.into_iter().flat_map(|moe| (0..moe.num_experts).map(move |e| (moe, e)));
        let parts = experts.flat_map(|(moe, e)| inventory::expert(&moe.experts, e));
        all.extend(parts.map(|part| (Some(i), part)));
    }
    all.extend(inventory::before_head(model).into_iter().map(|part| (None, part)));
    if model.head != model.embedding {
        all.push((None, table(&model.head)));
    }
    all.retain(|(_, part)| is_matrix(part));
    all
}

/// `x` [rows, width] as [width, rows].
fn transposed(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.len() / width;
    let mut to = vec![0f32; x.len()];
    to.par_chunks_exact_mut(rows).enumerate().for_each(|(column, to)| {
        to.iter_mut().zip(x.chunks_exact(width)).for_each(|(to, row)| *to = row[column]);
    });
    to
}

impl Observer for WeightsObserver {
    fn wants_weights(&self) -> bool {
        true
    }

    fn observe_weights(&mut self, layer: Option<usize>, parts: &[Part], loaded: &[Tensor]) -> Result<()> {
        let matrices = parts.iter().zip(loaded).filter(|(part, _)| is_matrix(part));
        for (part, loaded) in matrices {
            self.add(layer, &part.weight, loaded)?;
        }
        Ok(())
    }

    fn save(&mut self, _layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        stored::write(&self.pieces.iter().collect::<Vec<_>>(), checkpoint)
    }

    fn resume(&mut self, _layers: usize, checkpoint: &mut dyn Read) -> Result<()> {
        let pieces: Vec<(Place, Piece)> = stored::read(checkpoint)?;
        let is_whole = |piece: &Piece| {
            let values = piece.shape.iter().try_fold(1usize, |values, size| values.checked_mul(*size));
            piece.shape.len() >= 2 && values.is_some()
        };
        if !pieces.iter().all(|(_, piece)| is_whole(piece)) {
            return Err(Error::corrupt("its weights are those of another model"));
        }
        self.pieces = pieces.into_iter().collect();
        Ok(())
    }

    fn reset(&mut self) {
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_tensor_add_up_to_the_whole() {
        let x: Vec<f32> = (0..300 * 200).map(|i| ((i * 7919) % 997) as f32 / 100.0 - 4.0).collect();
        let whole = Sums::of_rows(&x, 200);
        let (above, below) = x.split_at(96 * 200);
        let both = Sums::of(&[Sums::of_rows(above, 200), Sums::of_rows(below, 200)]);
        assert_eq!((whole.rows, whole.values, whole.absmax), (both.rows, both.values, both.absmax));
        assert!((whole.excess_kurtosis() - both.excess_kurtosis()).abs() < 1e-12);
        assert!((whole.errors[1] / both.errors[1] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn halves_round_to_the_even_code() {
        // A scale of 1: 0.5 becomes 0, 1.5 becomes 2, 2.5 becomes 2.
        assert_eq!(rounding_error(&[7.0, 0.5, 1.5, 2.5], 7.0, 7.0), 0.75);
        // Nothing to scale by: all is lost.
        assert_eq!(rounding_error(&[0.0; 4], 0.0, 7.0), 0.0);
    }
}
