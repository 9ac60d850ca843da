//! Embeddings that each token has for each layer. They depend on nothing but the token, so there is
//! one for each id that occurs, and only these rows of their table are read.

use std::ops::Range;

use super::embed::TokenRows;
use super::linear::{linear, norm};
use crate::error::Result;
use crate::memory;
use crate::ops;
use crate::record::Tokens;
use crate::spec::inventory;
use crate::tensor::{Device, Tensor};
use crate::weights::OpenModel;
use crate::weights::load::Loader;

/// Bytes of embeddings that are projected at once.
const PIECE_BYTES: usize = 16 << 20;

/// The embeddings of all layers, of the ids that occur.
pub(super) struct LayerEmbeddings {
    /// Of one layer.
    size: usize,
    layers: usize,
    /// [ids][layers][size]
    values: Vec<f32>,
    /// Which of the ids each token is, sequence by sequence.
    id_of: Vec<u32>,
}

impl LayerEmbeddings {
    /// None for a model that has none; `rows` are its token embeddings. `needed` grows by the bytes
    /// that this takes.
    pub(super) fn read(model: &OpenModel, tokens: &Tokens, rows: &TokenRows, needed: &mut u64) -> Result<Option<Self>> {
        let Some(spec) = &model.spec.layer_embeddings else { return Ok(None) };
        let loader = &Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
        let mut loaded = Vec::new();
        for part in inventory::parts(spec) {
            *needed += model.stored_bytes(&part)?;
            loaded.extend(loader.part(&part)?);
        }
        let loaded = inventory::filled(spec, loaded);
        let mut values = rows.same_of(model, &spec.table, needed)?;
        let (width, layers) = (spec.table.shape[1], model.spec.layers.len());
        let (size, hidden) = (width / layers, rows.width());
        let at_once = (PIECE_BYTES / 4 / width).max(1);
        for (piece, rows) in values.chunks_mut(at_once * width).zip(rows.values.chunks(at_once * hidden)) {
            let count = rows.len() / hidden;
            let projected = Tensor::from_vec(rows.to_vec(), (count, hidden), &Device::Cpu)?;
            let projected = linear(&loaded.projection, &projected, false)?;
            ops::scale(&projected, spec.projection_factor as f32)?;
            let context = norm(&loaded.norm, &projected.reshape((count * layers, size))?)?.values()?;
            let (factor, sum_factor) = (spec.factor as f32, spec.sum_factor as f32);
            let both = piece.iter_mut().zip(&context);
            both.for_each(|(value, context)| *value = (*value * factor + context) * sum_factor);
        }
        let id_of = tokens.ids.iter().flatten().map(|id| rows.place(*id) as u32).collect();
        Ok(Some(Self { size, layers, values, id_of }))
    }

    /// Those of some tokens for one layer, [tokens, size]. Tokens are counted through all
    /// sequences.
    pub(super) fn of(&self, layer: usize, tokens: Range<usize>, device: &Device) -> Result<Tensor> {
        let mut of_layer = memory::uninit_vec(tokens.len() * self.size);
        for (row, id) in of_layer.chunks_exact_mut(self.size).zip(&self.id_of[tokens.clone()]) {
            row.copy_from_slice(&self.values[(*id as usize * self.layers + layer) * self.size..][..self.size]);
        }
        Tensor::from_vec(of_layer, (tokens.len(), self.size), device)
    }
}
