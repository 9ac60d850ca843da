//! Scratch memory of products, kept from one to the next.

use crate::memory;

/// A cache line of words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);
// SAFETY: it is an array of f32, of which zeros are values.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: it is an array of f32 that fills its alignment: there is no padding, and any bits are a value.
unsafe impl bytemuck::Pod for Line {}

/// Memory that a thread keeps for its next product, aligned to cache lines.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Room for `words`, of any content.
    pub fn reserve(&mut self, words: usize) -> &mut [f32] {
        let lines = words.div_ceil(16);
        if self.lines.len() < lines {
            // The old block first, so that both are never there at once.
            self.lines = Vec::new();
            self.lines = memory::uninit_vec(lines);
        }
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..words]
    }
}
