//! `activations.stats`: the record of one extraction as a safetensors file, so that any language can read it.
//!
//! Layout, for each fold F of `all` and `without_first`, N norms, S sequences, D features:
//! - `F.max`, `F.min` f32 [N, S, D]: signed extremes.
//! - `F.positive.*`, `F.negative.*`: ladders of the N*S rows (norm-major), `F.any_norm.*`: of the S sequences. Row r owns the
//!   cells `rows[r]..rows[r + 1]` (u64); cell c is feature `feature[c]` (u32) with the counts `ends[c - 1]..ends[c]` (u64,
//!   `ends[-1]` = 0) of `counts` (u32), one per rung from the lowest, leading non-zero ones only.
//!
//! Everything else (names, ladder, provenance) is JSON under the metadata key `outlier`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use bytemuck::Pod;
use safetensors::{Dtype, SafeTensors, View};

use super::atomic;
use crate::error::{Error, Result};
use crate::record::{Activations, Fold, Ladder, NormFold};

/// Raised when the layout changes.
pub const VERSION: u32 = 1;
const KEY: &str = "outlier";

struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

#[derive(Default)]
struct Arrays(Vec<(String, Array)>);

impl Arrays {
    fn add<T: Pod>(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, values: &[T]) {
        self.0.push((name, Array { dtype, shape, data: bytemuck::cast_slice(values).to_vec() }));
    }

    fn ladders<'a>(&mut self, prefix: String, rows: impl Iterator<Item = &'a Vec<Ladder>>) {
        let (mut row_ends, mut features, mut ends, mut counts) = (vec![0u64], Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            for ladder in row {
                features.push(ladder.feature);
                counts.extend_from_slice(&ladder.counts);
                ends.push(counts.len() as u64);
            }
            row_ends.push(features.len() as u64);
        }
        self.add(format!("{prefix}.rows"), Dtype::U64, vec![row_ends.len()], &row_ends);
        self.add(format!("{prefix}.feature"), Dtype::U32, vec![features.len()], &features);
        self.add(format!("{prefix}.ends"), Dtype::U64, vec![ends.len()], &ends);
        self.add(format!("{prefix}.counts"), Dtype::U32, vec![counts.len()], &counts);
    }

    fn fold(&mut self, name: &str, fold: &Fold, acts: &Activations) {
        let cells = || fold.norms.iter().flatten();
        let shape = vec![acts.norms.len(), acts.num_sequences, acts.hidden_size];
        let max: Vec<f32> = cells().flat_map(|cell| cell.max.iter().copied()).collect();
        let min: Vec<f32> = cells().flat_map(|cell| cell.min.iter().copied()).collect();
        self.add(format!("{name}.max"), Dtype::F32, shape.clone(), &max);
        self.add(format!("{name}.min"), Dtype::F32, shape, &min);
        self.ladders(format!("{name}.positive"), cells().map(|cell| &cell.positive));
        self.ladders(format!("{name}.negative"), cells().map(|cell| &cell.negative));
        self.ladders(format!("{name}.any_norm"), fold.any_norm.iter());
    }
}

/// Bytes of the file for a record. Measurements of the run are left out: equal runs give equal files.
pub fn encode(acts: &Activations) -> Vec<u8> {
    let mut arrays = Arrays::default();
    arrays.fold("all", &acts.all, acts);
    arrays.fold("without_first", &acts.without_first, acts);
    let plain = Activations { measurements: Default::default(), ..acts.clone_light() };
    let mut json = serde_json::to_value(&plain).expect("records are JSON");
    json["stats_version"] = VERSION.into();
    let metadata = HashMap::from([(KEY.to_string(), json.to_string())]);
    let views = arrays.0.iter().map(|(name, array)| (name.as_str(), array));
    safetensors::serialize(views, Some(metadata)).expect("shapes and sizes agree")
}

pub fn write(path: &Path, acts: &Activations) -> Result<()> {
    atomic::write(path, &encode(acts))
}

pub fn read(path: &Path) -> Result<Activations> {
    let reading = format!("reading {}", path.display());
    let data =
        std::fs::read(path).map_err(|e| Error::io(&reading, &e).hint("was this analysis saved by save_results?"))?;
    decode(&data).map_err(|problem| {
        Error::corrupt(format!("{reading}: {problem}")).hint("the file is damaged, or written by another version")
    })
}

fn decode(data: &[u8]) -> std::result::Result<Activations, String> {
    let (_, metadata) = SafeTensors::read_metadata(data).map_err(|e| e.to_string())?;
    let json = metadata.metadata().as_ref().and_then(|map| map.get(KEY)).ok_or("not an activation record")?;
    let json: serde_json::Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if json["stats_version"] != VERSION {
        return Err(format!("version {} of the format, this program reads {VERSION}", json["stats_version"]));
    }
    let mut acts: Activations = serde_json::from_value(json).map_err(|e| e.to_string())?;
    let file = SafeTensors::deserialize(data).map_err(|e| e.to_string())?;
    acts.all = fold(&file, "all", &acts)?;
    acts.without_first = fold(&file, "without_first", &acts)?;
    Ok(acts)
}

fn array<T: Pod>(file: &SafeTensors, name: &str) -> std::result::Result<Vec<T>, String> {
    let view = file.tensor(name).map_err(|_| format!("`{name}` is missing"))?;
    if view.data().len() % size_of::<T>() != 0 {
        return Err(format!("`{name}` has a wrong size"));
    }
    Ok(bytemuck::allocation::pod_collect_to_vec(view.data()))
}

fn ladders(file: &SafeTensors, prefix: &str, rows: usize) -> std::result::Result<Vec<Vec<Ladder>>, String> {
    let row_ends: Vec<u64> = array(file, &format!("{prefix}.rows"))?;
    let features: Vec<u32> = array(file, &format!("{prefix}.feature"))?;
    let ends: Vec<u64> = array(file, &format!("{prefix}.ends"))?;
    let counts: Vec<u32> = array(file, &format!("{prefix}.counts"))?;
    let ascending = |ends: &[u64]| ends.windows(2).all(|pair| pair[0] <= pair[1]);
    let fits = row_ends.len() == rows + 1
        && features.len() == ends.len()
        && row_ends.first() == Some(&0)
        && row_ends.last() == Some(&(features.len() as u64))
        && ends.last().copied().unwrap_or(0) == counts.len() as u64
        && ascending(&row_ends)
        && ascending(&ends);
    if !fits {
        return Err(format!("`{prefix}` is not consistent"));
    }
    let cell = |c: usize| {
        let begin = if c == 0 { 0 } else { ends[c - 1] as usize };
        Ladder { feature: features[c], counts: counts[begin..ends[c] as usize].to_vec() }
    };
    Ok(row_ends.windows(2).map(|row| (row[0] as usize..row[1] as usize).map(cell).collect()).collect())
}

fn fold(file: &SafeTensors, name: &str, acts: &Activations) -> std::result::Result<Fold, String> {
    let (norms, sequences, hidden) = (acts.norms.len(), acts.num_sequences, acts.hidden_size);
    let cells = norms.checked_mul(sequences).and_then(|rows| rows.checked_mul(hidden)).filter(|cells| *cells > 0);
    let cells = cells.ok_or(format!("{norms} norms, {sequences} sequences and {hidden} features are no record"))?;
    let max: Vec<f32> = array(file, &format!("{name}.max"))?;
    let min: Vec<f32> = array(file, &format!("{name}.min"))?;
    if max.len() != cells || min.len() != max.len() {
        return Err(format!("`{name}.max` has a wrong size"));
    }
    let positive = ladders(file, &format!("{name}.positive"), norms * sequences)?;
    let negative = ladders(file, &format!("{name}.negative"), norms * sequences)?;
    let extremes = max.chunks_exact(hidden).zip(min.chunks_exact(hidden));
    let mut cells = extremes.zip(positive).zip(negative).map(|(((max, min), positive), negative)| NormFold {
        max: max.to_vec(),
        min: min.to_vec(),
        positive,
        negative,
    });
    let norms = (0..norms).map(|_| cells.by_ref().take(sequences).collect()).collect();
    Ok(Fold { norms, any_norm: ladders(file, &format!("{name}.any_norm"), sequences)? })
}
