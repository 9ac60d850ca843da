//! The error that simulated quantisation of activations makes at a site: with all values, with
//! given dimensions kept exact, and with all columns kept exact that have a large value (Dettmers
//! et al. 2022).
//!
//! Scales of a whole tensor are known when its last row is, so the rows of a layer's site are kept
//! until then.

mod errors;

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::observer::{ExpertRows, Observer};
use super::stored;
use crate::error::Result;
use crate::record::{QUANT_THRESHOLD, QuantError, QuantFormat, Quantised, Site, SiteId};
use crate::tensor::Tensor;
use crate::vector::vectorised;
use errors::{BLOCK, Scales, row_errors};

/// Number of rows in one parallel task.
const ROWS: usize = 64;

pub struct QuantisationObserver {
    sites: Vec<Site>,
    positions: usize,
    hidden: usize,
    /// Dimensions of the residual stream that are kept exact.
    dims: Vec<usize>,
    /// Of the layer at work, by site and sequence.
    sequences: BTreeMap<(SiteId, usize), Rows>,
    /// The expert at work.
    expert: Option<(SiteId, usize, Rows)>,
    /// Memory of earlier layers, to be used again for rows of the same width: any other would grow
    /// to the widest site.
    spare: BTreeMap<usize, Vec<Vec<f32>>>,
    /// Sums over the experts of the layer at work.
    experts: BTreeMap<SiteId, Sums>,
    done: Vec<QuantError>,
}

/// Rows that are kept until their layer is done.
struct Rows {
    width: usize,
    /// [rows, width].
    values: Vec<f32>,
    /// The largest |x| of each column.
    largest: Vec<f32>,
}

impl Rows {
    /// Adds `x` [rows, width].
    fn add(&mut self, x: &[f32]) {
        let (width, first) = (self.width, self.values.len());
        self.values.resize(first + x.len(), 0.0);
        let copy = |(to, from): (&mut [f32], &[f32])| {
            let mut largest = vec![0f32; width];
            for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(width)) {
                to.copy_from_slice(from);
                vectorised!(|| largest.iter_mut().zip(from).for_each(|(most, x)| *most = most.max(x.abs())));
            }
            largest
        };
        let larger = |mut a: Vec<f32>, b: Vec<f32>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = a.max(b));
            a
        };
        let pieces = self.values[first..].par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
        let of_rows = pieces.map(copy).reduce(|| vec![0f32; width], larger);
        self.largest = larger(std::mem::take(&mut self.largest), of_rows);
    }
}

/// Sums of squares: of the values, of those kept exact, and of the errors.
#[derive(Clone, Default)]
struct Sums {
    squares: f64,
    of_dims: f64,
    of_columns: f64,
    columns: u64,
    /// True if the given dimensions are those of this site.
    has_dims: bool,
    /// For each format: with all values, and with the dimensions and the columns kept exact.
    errors: [[f64; 3]; QuantFormat::ALL.len()],
}

impl Sums {
    /// Of the rows of one tensor that has its own scales.
    fn of(tensor: &[Rows], dims: Option<&[usize]>) -> Self {
        let width = tensor[0].width;
        let mut largest = vec![0f32; width];
        for rows in tensor {
            largest.iter_mut().zip(&rows.largest).for_each(|(most, of_rows)| *most = most.max(*of_rows));
        }
        let columns: Vec<usize> = (0..width).filter(|column| largest[*column] >= QUANT_THRESHOLD).collect();
        let dims: Vec<usize> = dims.unwrap_or_default().iter().copied().filter(|dim| *dim < width).collect();
        let walk = Walk::new(&largest, [&dims, &columns]);
        let mut sums = Self { columns: columns.len() as u64, has_dims: !dims.is_empty(), ..Self::default() };
        for rows in tensor {
            // Added up piece by piece, in the order of rows.
            let pieces: Vec<Self> = rows.values.par_chunks(ROWS * width).map(|x| walk.over(x, width)).collect();
            pieces.iter().for_each(|piece| sums.add(piece));
        }
        sums
    }

    fn add(&mut self, other: &Self) {
        self.squares += other.squares;
        self.of_dims += other.of_dims;
        self.of_columns += other.of_columns;
        self.columns += other.columns;
        self.has_dims |= other.has_dims;
        self.errors.iter_mut().flatten().zip(other.errors.iter().flatten()).for_each(|(sum, error)| *sum += error);
    }

    fn finish(self, at: SiteId) -> QuantError {
        let share = |sum: f64| (sum / self.squares) as f32;
        let quantised = |(format, [all, dims, columns]): (QuantFormat, [f64; 3])| Quantised {
            format,
            all: share(all),
            without_dims: self.has_dims.then(|| share(dims)),
            without_columns: (self.columns > 0).then(|| share(columns)),
        };
        QuantError {
            at,
            sum_squares: self.squares as f32,
            dims_energy: share(self.of_dims),
            columns: self.columns,
            columns_energy: share(self.of_columns),
            formats: QuantFormat::ALL.into_iter().zip(self.errors).map(quantised).collect(),
        }
    }
}

/// What the rows of a tensor are quantised with.
struct Walk<'a> {
    /// The columns that are kept exact: none, the given dimensions, and those with a large value.
    kept: [&'a [usize]; 3],
    /// The largest |x| of the tensor without each of these, times `unit`.
    largest: [f32; 3],
    /// The power of two that brings the largest |x| near 1, where no square is too small for f32.
    unit: f32,
}

impl<'a> Walk<'a> {
    /// `largest` is the largest |x| of each column.
    fn new(largest: &[f32], [dims, columns]: [&'a [usize]; 2]) -> Self {
        let kept = [&[][..], dims, columns];
        let without = kept.map(|kept| {
            let mut left = largest.to_vec();
            kept.iter().for_each(|column| left[*column] = 0.0);
            left.into_iter().fold(0f32, f32::max)
        });
        let exponent = (without[0].to_bits() >> 23).clamp(1, 253);
        let unit = f32::from_bits((254 - exponent) << 23);
        Self { kept, largest: without.map(|most| most * unit), unit }
    }

    /// The sums of rows `x` [rows, width]; columns that are kept exact count as 0.
    fn over(&self, x: &[f32], width: usize) -> Sums {
        let mut sums = Sums::default();
        let mut row = vec![[0f32; BLOCK]; width.div_ceil(BLOCK)];
        let mut scales: Vec<Scales> = Vec::new();
        let energy = |x: &[f32], kept: &[usize]| kept.iter().map(|c| f64::from(x[*c]).powi(2)).sum::<f64>();
        for x in x.chunks_exact(width) {
            sums.of_dims += energy(x, self.kept[1]);
            sums.of_columns += energy(x, self.kept[2]);
            for (i, (kept, largest)) in self.kept.iter().zip(self.largest).enumerate() {
                if i > 0 && kept.is_empty() {
                    continue;
                }
                let (errors, squares) = vectorised!(|| {
                    let values = &mut row.as_flattened_mut()[..width];
                    values.iter_mut().zip(x).for_each(|(to, x)| *to = *x * self.unit);
                    kept.iter().for_each(|column| values[*column] = 0.0);
                    row_errors(&row, largest, &mut scales)
                });
                sums.squares += if i == 0 { squares } else { 0.0 };
                sums.errors.iter_mut().zip(errors).for_each(|(sums, error)| sums[i] += error);
            }
        }
        let unit = f64::from(self.unit).powi(-2);
        sums.squares *= unit;
        sums.errors.iter_mut().flatten().for_each(|sum| *sum *= unit);
        for (i, kept) in self.kept.iter().enumerate() {
            if kept.is_empty() {
                // Nothing is kept exact in this tensor, which may be one of several experts.
                sums.errors.iter_mut().for_each(|errors| errors[i] = errors[0]);
            }
        }
        sums
    }
}

impl QuantisationObserver {
    pub fn new(sites: &[Site], positions: usize, hidden: usize, dims: &[usize]) -> Self {
        Self {
            sites: sites.to_vec(),
            positions,
            hidden,
            dims: dims.to_vec(),
            sequences: BTreeMap::new(),
            expert: None,
            spare: BTreeMap::new(),
            experts: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    /// Room for rows.
    fn rows(&mut self, width: usize) -> Rows {
        let mut values = self.spare.get_mut(&width).and_then(Vec::pop).unwrap_or_default();
        values.clear();
        Rows { width, values, largest: vec![0.0; width] }
    }

    /// Keeps the memory of rows that are no longer needed.
    fn spare_rows(&mut self, rows: Rows) {
        self.spare.entry(rows.width).or_default().push(rows.values);
    }

    fn settle_expert(&mut self) {
        if let Some((at, _, rows)) = self.expert.take() {
            let tensor = [rows];
            self.experts.entry(at).or_default().add(&Sums::of(&tensor, None));
            tensor.into_iter().for_each(|rows| self.spare_rows(rows));
        }
    }

    fn settle(&mut self) {
        self.settle_expert();
        for (at, sums) in std::mem::take(&mut self.experts) {
            self.done.push(sums.finish(at));
        }
        let mut by_site: BTreeMap<SiteId, Vec<Rows>> = BTreeMap::new();
        for ((at, _), rows) in std::mem::take(&mut self.sequences) {
            by_site.entry(at).or_default().push(rows);
        }
        for (at, tensor) in by_site {
            // The dimensions are those of the residual stream.
            let is_stream = tensor[0].width == self.hidden && at.site.is_hidden();
            let sums = Sums::of(&tensor, is_stream.then_some(&self.dims[..]));
            self.done.push(sums.finish(at));
            tensor.into_iter().for_each(|rows| self.spare_rows(rows));
        }
    }

    pub fn finish(mut self) -> Vec<QuantError> {
        self.settle();
        self.done.sort_by_key(|error| error.at);
        self.done
    }
}

impl Observer for QuantisationObserver {
    fn wants(&self, site: SiteId) -> bool {
        self.sites.contains(&site.site)
    }

    fn wants_experts(&self, _layer: usize) -> bool {
        self.sites.contains(&Site::FfnMid)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        x.with_values(|values| {
            for (sequence, x) in sequences.zip(values.chunks_exact(self.positions * width)) {
                let mut rows = self.rows(width);
                rows.add(x);
                if let Some(replaced) = self.sequences.insert((site, sequence), rows) {
                    self.spare_rows(replaced);
                }
            }
        })
    }

    fn observe_expert(&mut self, rows: &ExpertRows) -> Result<()> {
        let at = SiteId { layer: rows.layer, site: Site::FfnMid };
        let (_, width) = rows.inner.dims2()?;
        if self.expert.as_ref().is_some_and(|(of, expert, _)| (*of, *expert) != (at, rows.expert)) {
            self.settle_expert();
        }
        let mut all = match self.expert.take() {
            Some((.., all)) => all,
            None => self.rows(width),
        };
        let added = rows.inner.with_values(|values| all.add(values));
        self.expert = Some((at, rows.expert, all));
        added
    }

    stored::settled_in!(done);
}
