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
use crate::spec::{Linear, MaxPositions, Role, TensorSpec};
use crate::tensor::{Device, Tensor};
use crate::weights::OpenModel;
use crate::weights::load::Loader;

/// Over a network, reading a gap of up to this many bytes between two rows is faster than a
/// separate request.
const ROW_GAP: u64 = 64 << 10;

/// Checks that ids are within the vocabulary and sequences within the learned positions.
pub(super) fn check_tokens(model: &OpenModel, tokens: &Tokens) -> Result<()> {
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

/// The embeddings of the ids that occur, in their order.
pub(super) struct TokenRows {
    ids: Vec<u32>,
    /// [ids, embedding width]
    pub values: Vec<f32>,
}

impl TokenRows {
    /// `needed` grows by the bytes of the rows.
    pub(super) fn read(model: &OpenModel, tokens: &Tokens, needed: &mut u64) -> Result<Self> {
        let used: BTreeSet<u32> = tokens.ids.iter().flatten().copied().collect();
        let mut rows = Self { ids: used.into_iter().collect(), values: Vec::new() };
        rows.values = rows.same_of(model, &model.spec.embedding, needed)?;
        if model.spec.embedding_factor != 1.0 {
            let factor = model.spec.embedding_factor as f32;
            rows.values.iter_mut().for_each(|value| *value *= factor);
        }
        Ok(rows)
    }

    /// Where the row of an id that occurs is.
    pub(super) fn place(&self, id: u32) -> usize {
        self.ids.binary_search(&id).expect("every id is among those used")
    }

    /// Values of a row.
    pub(super) fn width(&self) -> usize {
        self.values.len() / self.ids.len().max(1)
    }

    /// The rows of the same ids of a table [vocab, width], which are all that is read of it.
    pub(super) fn same_of(&self, model: &OpenModel, table: &TensorSpec, needed: &mut u64) -> Result<Vec<f32>> {
        // The rows are few and are used once, so they are loaded on the CPU for all devices.
        let loader = &Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
        let width = table.shape[1];
        let runs: Vec<&[u32]> = self.ids.chunk_by(|a, b| a + 1 == *b).collect();
        let mut ranges = Vec::new();
        for run in &runs {
            ranges.extend(model.checkpoint.part_ranges(&rows_of(table, run[0] as usize, run.len()))?);
        }
        *needed += ranges.iter().map(|range| range.range.end - range.range.start).sum::<u64>();
        let mut ahead = model.checkpoint.ahead();
        ahead.expect(Announcement { order: 0, max_gap: ROW_GAP, ranges });
        let mut rows: Vec<f32> = memory::uninit_vec(self.ids.len() * width);
        let mut rest = rows.as_mut_slice();
        let places = runs.iter().map(|run| rest.split_off_mut(..run.len() * width).expect("a place for every row"));
        let places: Vec<&mut [f32]> = places.collect();
        runs.par_iter().zip(places).try_for_each(|(run, place)| {
            let values = loader.rows(table, run[0] as usize, run.len(), Some(DType::F32))?.remove(0);
            place.copy_from_slice(&values.values()?);
            Ok::<(), Error>(())
        })?;
        Ok(rows)
    }
}

/// Token (and learned position) embeddings, [tokens, hidden].
pub(super) fn embed(model: &OpenModel, tokens: &Tokens, rows: &TokenRows, needed: &mut u64) -> Result<Vec<f32>> {
    let loader = &Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
    let projected;
    let embeddings = match &model.spec.project_in {
        Some(projection) => {
            projected = project_in(model, loader, projection, rows, needed)?;
            &projected
        }
        None => &rows.values,
    };
    let width = model.spec.hidden_size;
    let ids: Vec<u32> = tokens.ids.iter().flatten().copied().collect();
    let mut hidden: Vec<f32> = memory::uninit_vec(ids.len() * width);
    hidden.par_chunks_exact_mut(width).zip(ids).for_each(|(hidden, id)| {
        hidden.copy_from_slice(&embeddings[rows.place(id) * width..][..width]);
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

/// `rows` [ids, embedding width] to [ids, hidden], where the model's embeddings are narrower than
/// its hidden states.
fn project_in(
    model: &OpenModel,
    loader: &Loader,
    projection: &Linear,
    rows: &TokenRows,
    needed: &mut u64,
) -> Result<Vec<f32>> {
    let mut loaded = Vec::new();
    for part in inventory::projection(projection) {
        *needed += model.stored_bytes(&part)?;
        loaded.extend(loader.part(&part)?);
    }
    let rows = Tensor::from_vec(rows.values.clone(), (rows.ids.len(), rows.width()), &Device::Cpu)?;
    let projection = Projection { weight: &loaded[0], order: projection.order, bias: loaded.get(1) };
    ops::project(&rows, &[projection], false)?.remove(0).values()
}
