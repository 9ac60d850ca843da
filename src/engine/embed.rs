//! The residual stream before the first layer: token and position embeddings. Only rows that occur
//! are read.

use std::collections::BTreeSet;

use candle_core::DType;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::hub::Announcement;
use crate::memory;
use crate::ops::{self, Projection};
use crate::record::Tokens;
use crate::spec::inventory::{self, Part};
use crate::spec::{MaxPositions, Role, TensorSpec};
use crate::tensor::{Device, Tensor};
use crate::weights::OpenModel;
use crate::weights::load::Loader;

/// Over a network, reading a gap of up to this many bytes between two rows is faster than a
/// separate request.
const ROW_GAP: u64 = 64 << 10;

/// Checks that ids are within the vocabulary and sequences within the learned positions.
pub fn check_tokens(model: &OpenModel, tokens: &Tokens) -> Result<()> {
    let vocab = model.spec.vocab_size;
    for (s, ids) in tokens.ids.iter().enumerate() {
        if let Some((t, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= vocab) {
            let message = format!("token id {id} (sequence {s}, position {t}) is outside the vocabulary of {vocab}");
            // Ids in a script are a wrong argument. Ids in a file make the file corrupt.
            let by_script = tokens.info.source == Tokens::SCRIPT;
            let wrong = if by_script { Error::bad_argument(message) } else { Error::corrupt(message) };
            return Err(wrong.hint("the tokens were made for another model: tokenise with this model's tokenizer.json"));
        }
    }
    if let Some(max) = model.spec.max_positions.filter(|max| tokens.info.sequence_length > max.positions) {
        let (length, MaxPositions { positions, why }) = (tokens.info.sequence_length, max);
        return Err(Error::bad_argument(format!(
            "sequences of {length} tokens exceed the model's {positions} positions: {why}"
        ))
        .hint(format!("use sequence_length: {positions} or less")));
    }
    Ok(())
}

/// Token embeddings, plus learned position embeddings, [tokens, hidden]. Only rows that occur are
/// read.
pub fn embed(model: &OpenModel, tokens: &Tokens, needed: &mut u64) -> Result<Vec<f32>> {
    // The rows are few and are used once, so they are loaded on the CPU for all devices.
    let loader = &Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
    let table = &model.spec.embedding;
    let width = table.shape[1];
    let used: BTreeSet<u32> = tokens.ids.iter().flatten().copied().collect();
    let used: Vec<u32> = used.into_iter().collect();
    let runs: Vec<&[u32]> = used.chunk_by(|a, b| a + 1 == *b).collect();
    let mut ranges = Vec::new();
    for run in &runs {
        ranges.extend(model.checkpoint.part_ranges(&rows_of(table, run[0] as usize, run.len()))?);
    }
    *needed += ranges.iter().map(|range| range.range.end - range.range.start).sum::<u64>();
    let mut ahead = model.checkpoint.ahead();
    ahead.expect(Announcement { order: 0, max_gap: ROW_GAP, ranges });
    let mut rows: Vec<f32> = memory::uninit_vec(used.len() * width);
    let mut rest = rows.as_mut_slice();
    let places = runs.iter().map(|run| rest.split_off_mut(..run.len() * width).expect("a place for every row"));
    let places: Vec<&mut [f32]> = places.collect();
    runs.par_iter().zip(places).try_for_each(|(run, place)| {
        let values = loader.rows(table, run[0] as usize, run.len(), Some(DType::F32))?.remove(0);
        place.copy_from_slice(&values.values()?);
        Ok::<(), Error>(())
    })?;
    if model.spec.embedding_factor != 1.0 {
        let factor = model.spec.embedding_factor as f32;
        rows.iter_mut().for_each(|value| *value *= factor);
    }
    let rows = project_in(model, loader, rows, used.len(), needed)?;
    let width = model.spec.hidden_size;
    let ids: Vec<u32> = tokens.ids.iter().flatten().copied().collect();
    let mut hidden: Vec<f32> = memory::uninit_vec(ids.len() * width);
    hidden.par_chunks_exact_mut(width).zip(ids).for_each(|(hidden, id)| {
        let row = used.binary_search(&id).expect("every id is among those used");
        hidden.copy_from_slice(&rows[row * width..][..width]);
    });
    if let Some(positions) = &model.spec.positions {
        let length = tokens.info.sequence_length;
        let values = loader.rows(&positions.weight, positions.offset, length, Some(DType::F32))?.remove(0);
        let values = values.values()?;
        *needed += model.stored_bytes(&rows_of(&positions.weight, positions.offset, length))?;
        for sequence in hidden.chunks_exact_mut(length * width) {
            sequence.iter_mut().zip(&values).for_each(|(hidden, position)| *hidden += position);
        }
    }
    apply_embedding_norm(model, loader, hidden, needed)
}

/// Rows of a table, as a part to read.
fn rows_of(table: &TensorSpec, first: usize, count: usize) -> Part {
    Part { weight: table.rows(first, count), role: Role::Parameter }
}

/// Applies the norm after the embeddings, if there is one, to `hidden` [tokens, hidden].
fn apply_embedding_norm(model: &OpenModel, loader: &Loader, hidden: Vec<f32>, needed: &mut u64) -> Result<Vec<f32>> {
    let Some(norm) = &model.spec.embedding_norm else { return Ok(hidden) };
    let mut loaded = Vec::new();
    for part in inventory::embedding_norm(norm) {
        *needed += model.stored_bytes(&part)?;
        loaded.extend(loader.part(&part)?);
    }
    let width = model.spec.hidden_size;
    let hidden = Tensor::from_vec(hidden.clone(), (hidden.len() / width, width), &Device::Cpu)?;
    ops::norm(norm.kind, norm.eps, &hidden, &loaded[0], loaded.get(1))?.values()
}

/// Projects `rows` [count, embedding width] to [count, hidden], if the embeddings are narrower than
/// the residual stream.
fn project_in(model: &OpenModel, loader: &Loader, rows: Vec<f32>, count: usize, needed: &mut u64) -> Result<Vec<f32>> {
    let Some(projection) = &model.spec.project_in else { return Ok(rows) };
    let mut loaded = Vec::new();
    for part in inventory::projection(projection) {
        *needed += model.stored_bytes(&part)?;
        loaded.extend(loader.part(&part)?);
    }
    let project = || {
        let rows = Tensor::from_vec(rows, (count, model.spec.embedding.shape[1]), &Device::Cpu)?;
        let projection = Projection { weight: &loaded[0], order: projection.order, bias: loaded.get(1) };
        ops::project(&rows, &[projection], false)?.remove(0).values()
    };
    project()
}
