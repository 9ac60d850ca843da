//! Tables of the rotary position embedding, on the device that rotates queries and keys.

use crate::error::Result;
use crate::spec::rope::Rope;
use crate::spec::{Layer, Mixer};
use crate::tensor::{Device, Tensor};

/// Cosines and sines [positions, dim / 2] in f32 of all rotary embeddings in use. Layers with equal
/// parameters share a table.
#[derive(Default)]
pub(super) struct Rotary(Vec<(Rope, (Tensor, Tensor))>);

impl Rotary {
    /// Computes the tables of a layer, unless they exist.
    pub(super) fn prepare(&mut self, layer: &Layer, positions: usize, device: &Device) -> Result<()> {
        let Some(Mixer::Attention(attention)) = layer.mixer.as_ref().map(|mixer| &mixer.body) else {
            return Ok(());
        };
        if let Some(rope) = attention.rope.as_ref().filter(|rope| self.get(rope).is_none()) {
            let tables = rope.tables(positions);
            let shape = (positions, rope.dim / 2);
            let cos = Tensor::from_vec(tables.cos, shape, device)?;
            self.0.push((rope.clone(), (cos, Tensor::from_vec(tables.sin, shape, device)?)));
        }
        Ok(())
    }

    pub(super) fn get(&self, rope: &Rope) -> Option<&(Tensor, Tensor)> {
        self.0.iter().find(|(cached, _)| cached == rope).map(|(_, tables)| tables)
    }
}
