//! The statistics of chosen features as one long table: a row for each norm and feature, and for
//! each sequence if asked for.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::record::{Activations, Cell, Criterion};
use crate::words::counted;

use super::criterion::{BoundCriterion, share};

/// The largest number of rows: more maps than a script can hold.
const MAX_ROWS: usize = 100_000;

/// One row per norm and feature of `dims`, in this order, over all sequences, or one for each
/// sequence if `by_sequence`. Of `criterion` the threshold, which must be a rung, and the skipped
/// positions are used.
///
/// # Errors
/// `bad_argument` for a feature that the model does not have, for too many rows, and as `bootstrap`
/// for the criterion.
pub fn cells(acts: &Activations, dims: &[usize], by_sequence: bool, criterion: &Criterion) -> Result<Vec<Cell>> {
    let applied = BoundCriterion::new(acts, criterion)?;
    if dims.is_empty() {
        return Err(Error::bad_argument("`dims` names no feature").hint("dims: [3, 17], say"));
    }
    if let Some(missing) = dims.iter().find(|&&dim| dim >= acts.hidden_size) {
        return Err(Error::bad_argument(format!("feature {missing}: the model has {}", acts.hidden_size))
            .hint("features are numbered from 0"));
    }
    let n = acts.num_sequences;
    let groups: Vec<Range<usize>> = match by_sequence {
        true => (0..n).map(|sequence| sequence..sequence + 1).collect(),
        false => std::iter::once(0..n).collect(),
    };
    let rows = acts.norms.len().saturating_mul(dims.len()).saturating_mul(groups.len());
    if rows > MAX_ROWS {
        return Err(Error::bad_argument(format!("{} are more than the {MAX_ROWS} of a table", counted(rows, "row")))
            .hint("name fewer features in `dims`, or ask over all sequences with by: \"pooled\""));
    }
    let mut table = Vec::with_capacity(rows);
    for (norm, cells) in acts.norms.iter().zip(&applied.fold.norms) {
        for &dim in dims {
            for group in &groups {
                let here = &cells[group.clone()];
                let finite = |value: f32| value.is_finite().then_some(value);
                let hits = here.iter().flat_map(|cell| [cell.positive.of(dim), cell.negative.of(dim)]).flatten();
                let hits = hits.map(|ladder| u64::from(ladder.at(applied.rung))).sum();
                table.push(Cell {
                    layer: norm.layer,
                    site: norm.site.name().to_string(),
                    feature_dim: dim,
                    sequence: by_sequence.then_some(group.start),
                    max_value: here.iter().filter_map(|cell| finite(cell.max[dim])).reduce(f32::max),
                    min_value: here.iter().filter_map(|cell| finite(cell.min[dim])).reduce(f32::min),
                    hits,
                    share: share(hits, applied.positions * group.len() as u64),
                });
            }
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::super::dense::{Dense, uniform};
    use super::*;

    #[test]
    fn every_row_is_counted_in_the_values() {
        let mut next = uniform(23);
        let mut dense = Dense::drawn([2, 3, 9, 5], |_| ((next() - 0.4) * 12.0) as f32);
        (0..9).for_each(|t| dense[[1, 2, t, 4]] = f32::NAN);
        let acts = dense.activations(&[3.0, 6.0]);
        for (by_sequence, skip) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
            for threshold in [3.0, 6.0] {
                let criterion =
                    Criterion { magnitude_threshold: threshold, skip_positions: skip, ..Criterion::default() };
                let rows = cells(&acts, &[4, 0], by_sequence, &criterion).unwrap();
                assert_eq!(rows.len(), 4 * 2 * if by_sequence { 3 } else { 1 });
                for row in rows {
                    let n = 2 * row.layer + usize::from(row.site == "post_attention_layernorm");
                    let sequences = row.sequence.map_or(0..3, |s| s..s + 1);
                    let count = sequences.len();
                    let values: Vec<f32> = sequences
                        .flat_map(|s| (skip..9).map(move |t| [n, s, t, row.feature_dim]))
                        .map(|at| dense[at])
                        .filter(|x| x.is_finite())
                        .collect();
                    let hits = values.iter().filter(|x| x.abs() >= threshold).count();
                    assert_eq!((row.hits, row.share), (hits as u64, hits as f64 / (count * (9 - skip)) as f64));
                    assert_eq!(row.max_value, values.iter().copied().reduce(f32::max));
                    assert_eq!(row.min_value, values.iter().copied().reduce(f32::min));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let acts = Dense::filled(1, 2, 3, 4, 1.0).activations(&[6.0]);
        let ask = |dims: &[usize], threshold| {
            let criterion = Criterion { magnitude_threshold: threshold, ..Criterion::default() };
            cells(&acts, dims, true, &criterion).unwrap_err().message
        };
        assert!(ask(&[], 6.0).contains("no feature") && ask(&[4], 6.0).contains("feature 4"));
        assert!(ask(&[1], 7.0).contains("not in the ladder"));
        assert!(ask(&[1; 30_000], 6.0).contains("120000 rows"));
    }
}
