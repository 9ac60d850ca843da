//! The error that simulated quantisation of activations makes at a site: with all values, with
//! given dimensions kept exact, and with all columns kept exact that have a large value (Dettmers
//! et al. 2022).
//!
//! Scales of a whole tensor are known when its last row is, so the rows of a layer's site are kept
//! until then.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::observer::{ExpertRows, Observer};
use super::stored;
use crate::engine::simulated::{absmax, quantise};
use crate::error::Result;
use crate::record::{QUANT_THRESHOLD, QuantError, QuantFormat, Quantised, Site, SiteId};
use crate::tensor::Tensor;
use crate::vector::vectorised;

/// Number of rows in one parallel task.
const ROWS: usize = 64;

pub struct QuantisationObserver {
    sites: Vec<Site>,
    positions: usize,
    hidden: usize,
    /// Dimensions of the residual stream that are kept exact.
    dims: Vec<usize>,
    /// Of the layer at work, by site and sequence: rows [positions, width].
    sequences: BTreeMap<(SiteId, usize), (usize, Vec<f32>)>,
    /// The rows of the expert at work, with their width.
    expert: Option<(SiteId, usize, usize, Vec<f32>)>,
    /// Sums over the experts of the layer at work.
    experts: BTreeMap<SiteId, Sums>,
    done: Vec<QuantError>,
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
    /// Of one tensor `x` [rows, width] that has its own scales.
    fn of(x: &[f32], width: usize, dims: Option<&[usize]>) -> Self {
        let largest = column_absmax(x, width);
        let columns: Vec<usize> = (0..width).filter(|column| largest[*column] >= QUANT_THRESHOLD).collect();
        let dims: Vec<usize> = dims.unwrap_or_default().iter().copied().filter(|dim| *dim < width).collect();
        let squares = |columns: &[usize]| -> f64 {
            let of_row = |row: &[f32]| columns.iter().map(|c| f64::from(row[*c]).powi(2)).sum::<f64>();
            sum_in_order(x, width, of_row)
        };
        let every = sum_in_order(x, width, |row| row.iter().map(|x| f64::from(*x).powi(2)).sum());
        let mut sums = Self {
            squares: every,
            of_dims: squares(&dims),
            of_columns: squares(&columns),
            columns: columns.len() as u64,
            has_dims: !dims.is_empty(),
            ..Self::default()
        };
        for (i, kept) in [&[][..], &dims, &columns].into_iter().enumerate() {
            if i > 0 && kept.is_empty() {
                // Nothing is kept exact in this tensor, which may be one of several experts.
                sums.errors.iter_mut().for_each(|errors| errors[i] = errors[0]);
                continue;
            }
            let mut left = largest.clone();
            kept.iter().for_each(|column| left[*column] = 0.0);
            let largest = absmax(&left);
            for (format, errors) in QuantFormat::ALL.into_iter().zip(&mut sums.errors) {
                errors[i] = sum_in_order(x, width, |row| row_error(format, row, kept, largest));
            }
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

/// The largest |x| of each column.
fn column_absmax(x: &[f32], width: usize) -> Vec<f32> {
    let of_rows = |rows: &[f32]| {
        let mut largest = vec![0f32; width];
        for row in rows.chunks_exact(width) {
            vectorised(|| largest.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(x.abs())));
        }
        largest
    };
    let larger = |mut a: Vec<f32>, b: Vec<f32>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = a.max(b));
        a
    };
    x.par_chunks(ROWS * width).map(of_rows).reduce(|| vec![0f32; width], larger)
}

/// The sum of f over rows, in their order.
fn sum_in_order(x: &[f32], width: usize, f: impl Fn(&[f32]) -> f64 + Sync) -> f64 {
    let pieces: Vec<f64> =
        x.par_chunks(ROWS * width).map(|rows| rows.chunks_exact(width).map(&f).sum::<f64>()).collect();
    pieces.iter().sum()
}

/// The sum of squared errors of a row whose `kept` columns are exact. They count as 0 when scales
/// are chosen. `largest` is the largest |x| of the tensor without them.
fn row_error(format: QuantFormat, row: &[f32], kept: &[usize], largest: f32) -> f64 {
    let mut exact = row.to_vec();
    kept.iter().for_each(|column| exact[*column] = 0.0);
    let mut quantised = exact.clone();
    vectorised(|| {
        quantise(format, &mut quantised, largest);
        let mut sums = [0f64; 8];
        let ((a, a_rest), (b, b_rest)) = (exact.as_chunks::<8>(), quantised.as_chunks::<8>());
        let square = |a: f32, b: f32| (f64::from(a) - f64::from(b)).powi(2);
        for (a, b) in a.iter().zip(b) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += square(*a, *b));
        }
        sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| square(*a, *b)).sum::<f64>()
    })
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
            experts: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn settle_expert(&mut self) {
        if let Some((at, _, width, rows)) = self.expert.take() {
            self.experts.entry(at).or_default().add(&Sums::of(&rows, width, None));
        }
    }

    fn settle(&mut self) {
        self.settle_expert();
        for (at, sums) in std::mem::take(&mut self.experts) {
            self.done.push(sums.finish(at));
        }
        let mut by_site: BTreeMap<SiteId, (usize, Vec<f32>)> = BTreeMap::new();
        for ((at, _), (width, rows)) in std::mem::take(&mut self.sequences) {
            let all = by_site.entry(at).or_insert_with(|| (width, Vec::new()));
            all.1.extend(rows);
        }
        for (at, (width, rows)) in by_site {
            // The dimensions are those of the residual stream.
            let dims = (width == self.hidden && at.site.is_hidden()).then_some(&self.dims[..]);
            self.done.push(Sums::of(&rows, width, dims).finish(at));
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
            for (sequence, rows) in sequences.zip(values.chunks_exact(self.positions * width)) {
                self.sequences.insert((site, sequence), (width, rows.to_vec()));
            }
        })
    }

    fn observe_expert(&mut self, rows: &ExpertRows) -> Result<()> {
        let at = SiteId { layer: rows.layer, site: Site::FfnMid };
        let (_, width) = rows.inner.dims2()?;
        if self.expert.as_ref().is_some_and(|(of, expert, ..)| (*of, *expert) != (at, rows.expert)) {
            self.settle_expert();
        }
        let (.., all) = self.expert.get_or_insert_with(|| (at, rows.expert, width, Vec::new()));
        rows.inner.with_values(|values| all.extend_from_slice(values))
    }

    fn end_layer(&mut self, _layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        self.settle();
        Ok(())
    }

    fn fetch(&mut self) -> Result<()> {
        self.settle();
        Ok(())
    }

    stored::kept_in!(done);
}
