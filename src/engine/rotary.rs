//! The tables of the rotary position embedding, on the device that turns queries and keys by them.

use crate::error::Result;
use crate::spec::Mixer;
use crate::spec::rope::Rope;
use crate::tensor::{Device, Tensor};

/// Cosines and sines of the rotary embedding last used; layers share them where they agree.
#[derive(Default)]
pub struct Rotary(Option<(Rope, (Tensor, Tensor))>);

impl Rotary {
    pub fn prepare(&mut self, mixer: &Mixer, positions: usize, device: &Device) -> Result<()> {
        let Mixer::Attention(attention) = mixer else {
            return Ok(());
        };
        let Some(rope) = &attention.rope else {
            self.0 = None;
            return Ok(());
        };
        if self.0.as_ref().is_none_or(|(cached, _)| cached != rope) {
            let tables = rope.tables(positions);
            let shape = (positions, rope.dim / 2);
            let cos = Tensor::from_vec(tables.cos, shape, device)?;
            self.0 = Some((rope.clone(), (cos, Tensor::from_vec(tables.sin, shape, device)?)));
        }
        Ok(())
    }

    pub fn get(&self) -> Option<&(Tensor, Tensor)> {
        self.0.as_ref().map(|(_, tables)| tables)
    }
}
