//! Massive activations of the residual stream (Sun et al. 2024, "Massive Activations in Large
//! Language Models"), and its dimensions that stand out at many tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;

use super::median::median_abs;
use super::observer::Observer;
use super::stored;
use super::top::Found;
use crate::error::Result;
use crate::record::{
    DimCount, Massive, MassiveActivations, MassiveRule, MassiveValue, MedianOver, ResidualSink, ResidualSinks, Site,
    SiteId, Tokens,
};
use crate::tensor::Tensor;
use crate::vector::vectorised;

/// The factors of a token's root mean square beyond which dimensions are counted.
const FACTORS: [f64; 3] = [3.0, 5.0, 10.0];
/// The most dimensions and values in the record of a layer.
const MOST: usize = 8;
/// The most positions in the record of a layer.
const MOST_POSITIONS: usize = 16;

pub struct MassiveObserver<'a> {
    tokens: &'a Tokens,
    rules: Vec<MassiveRule>,
    done: Vec<Massive>,
}

impl<'a> MassiveObserver<'a> {
    pub fn new(tokens: &'a Tokens, rules: &[MassiveRule]) -> Self {
        Self { tokens, rules: rules.to_vec(), done: Vec::new() }
    }

    pub fn finish(self) -> Vec<Massive> {
        self.done
    }

    /// The values that a rule names, in `x` [rows, width] of the sequences from `first` on.
    fn named(&self, rule: MassiveRule, over: MedianOver, first: usize, x: &[f32], width: usize) -> Vec<(Found, f64)> {
        let positions = self.tokens.info.sequence_length;
        let of_sequence = |(sequence, x): (usize, &[f32])| {
            let beyond = |row: &[f32]| row.iter().any(|x| f64::from(x.abs()) > rule.above);
            let rows: Vec<usize> = (0..positions).filter(|t| beyond(&x[t * width..][..width])).collect();
            let of_all = match over {
                MedianOver::Sequence if !rows.is_empty() => median_abs(x),
                _ => f64::NAN,
            };
            let mut named = Vec::new();
            for t in rows {
                let row = &x[t * width..][..width];
                let median = match over {
                    MedianOver::Sequence => of_all,
                    MedianOver::Token => median_abs(row),
                };
                for (dim, value) in row.iter().enumerate() {
                    let size = f64::from(value.abs());
                    if size > rule.above && size >= rule.ratio * median {
                        let token = (first + sequence) * positions + t;
                        named.push((Found { value: *value, token, expert: None, dim }, size / median));
                    }
                }
            }
            named
        };
        let sequences = x.par_chunks_exact(positions * width).enumerate();
        sequences.map(of_sequence).collect::<Vec<_>>().concat()
    }

    fn activations(&self, rule: MassiveRule, over: MedianOver, named: Vec<(Found, f64)>) -> Option<MassiveActivations> {
        if named.is_empty() {
            return None;
        }
        let positions = self.tokens.info.sequence_length;
        let tokens: BTreeSet<usize> = named.iter().map(|(found, _)| found.token).collect();
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        named.iter().for_each(|(found, _)| *counts.entry(found.dim).or_default() += 1);
        let mut dims: Vec<DimCount> = counts.into_iter().map(|(dim, count)| DimCount { dim, count }).collect();
        dims.sort_by_key(|of| (std::cmp::Reverse(of.count), of.dim));
        dims.truncate(MOST);
        let at: BTreeSet<usize> = tokens.iter().map(|token| token % positions).collect();
        let count = named.len() as u64;
        let mut largest = named;
        largest.sort_by(|a, b| a.0.order(&b.0));
        largest.truncate(MOST);
        let value =
            |(found, ratio): &(Found, f64)| MassiveValue { at: found.of_tokens(self.tokens), ratio: *ratio as f32 };
        Some(MassiveActivations {
            rule,
            median_over: over,
            count,
            tokens: tokens.len() as u64,
            dims,
            positions: at.into_iter().take(MOST_POSITIONS).collect(),
            top: largest.iter().map(value).collect(),
        })
    }
}

/// The root mean square of a row.
fn rms(row: &[f32]) -> f64 {
    let squares = vectorised!(|| {
        let mut sums = [0f64; 8];
        let (whole, rest) = row.as_chunks::<8>();
        for chunk in whole {
            sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
        }
        sums.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
    });
    (squares / row.len() as f64).sqrt()
}

/// For each factor, the dimensions that most often exceed it. `parts` are rows [rows, width] in the
/// order of sequences.
fn sinks(parts: &[&[f32]], width: usize) -> Vec<ResidualSinks> {
    let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(width)).collect();
    let scales: Vec<f64> = rows.par_iter().map(|row| rms(row)).collect();
    let piece = rows.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    let counted: Vec<Vec<[u32; 3]>> = rows
        .par_chunks(piece)
        .zip(scales.par_chunks(piece))
        .map(|(rows, scales)| {
            let mut counts = vec![[0u32; 3]; width];
            for (row, rms) in rows.iter().zip(scales) {
                // Nearly all values are below the least factor, by more than rounding.
                let least = (FACTORS[0] * rms * 0.999) as f32;
                for (counts, x) in counts.chunks_mut(64).zip(row.chunks(64)) {
                    if !vectorised!(|| x.iter().fold(false, |any, x| any | (x.abs() > least))) {
                        continue;
                    }
                    for (counts, x) in counts.iter_mut().zip(x) {
                        let ratio = f64::from(x.abs()) / rms;
                        counts.iter_mut().zip(FACTORS).for_each(|(n, factor)| *n += u32::from(ratio > factor));
                    }
                }
            }
            counts
        })
        .collect();
    let of_dim = |dim: usize, factor: usize| counted.iter().map(|counts| u64::from(counts[dim][factor])).sum::<u64>();
    let of_factor = |(i, factor): (usize, f64)| {
        let mut dims: Vec<(u64, usize)> = (0..width).map(|dim| (of_dim(dim, i), dim)).filter(|of| of.0 > 0).collect();
        dims.sort_by_key(|(count, dim)| (std::cmp::Reverse(*count), *dim));
        dims.truncate(MOST);
        let of_dim = |(count, dim): &(u64, usize)| {
            let mut ratios: Vec<f64> =
                rows.iter().zip(&scales).map(|(row, rms)| f64::from(row[*dim].abs()) / rms).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            let n = ratios.len();
            ResidualSink {
                dim: *dim,
                share: (*count as f64 / n as f64) as f32,
                median: ((ratios[(n - 1) / 2] + ratios[n / 2]) / 2.0) as f32,
                max: ratios[n - 1] as f32,
            }
        };
        ResidualSinks { factor, dims: dims.par_iter().map(of_dim).collect() }
    };
    FACTORS.into_iter().enumerate().map(of_factor).filter(|sinks| !sinks.dims.is_empty()).collect()
}

impl Observer for MassiveObserver<'_> {
    /// The stream is looked at when the layer is done; this says that all of the layer is needed.
    fn wants(&self, site: SiteId) -> bool {
        site.site == Site::ResidPost
    }

    fn end_layer(&mut self, layer: usize, stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        let width = stream.first().map_or(Ok(1), |(_, x)| x.dims2().map(|dims| dims.1))?;
        let on_gpu = stream.iter().any(|(_, x)| x.cpu().is_err());
        let copies: Vec<Vec<f32>> = match on_gpu {
            true => stream.iter().map(|(_, x)| x.values()).collect::<Result<_>>()?,
            false => Vec::new(),
        };
        let views =
            if on_gpu { Vec::new() } else { stream.iter().map(|(_, x)| x.view()).collect::<Result<Vec<_>>>()? };
        let parts: Vec<&[f32]> = match on_gpu {
            true => copies.iter().map(Vec::as_slice).collect(),
            false => views.iter().map(|view| view.values()).collect::<Result<_>>()?,
        };
        let mut activations = Vec::new();
        for rule in &self.rules {
            for over in [MedianOver::Token, MedianOver::Sequence] {
                let of_part = |((sequences, _), x): (&(Range<usize>, &Tensor), &&[f32])| {
                    self.named(*rule, over, sequences.start, x, width)
                };
                let named = stream.iter().zip(&parts).flat_map(of_part).collect();
                activations.extend(self.activations(*rule, over, named));
            }
        }
        let sinks = sinks(&parts, width);
        self.done.push(Massive { layer, activations, sinks });
        Ok(())
    }

    stored::kept_in!(done);
}
