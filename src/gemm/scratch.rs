//! Scratch memory of products, reused between them.

use crate::memory;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);
// SAFETY: this is an array of f32, for which zeros are valid.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: this is an array of f32 without padding, for which every bit pattern is valid.
unsafe impl bytemuck::Pod for Line {}

/// Scratch memory of a thread, aligned to cache lines.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Returns `words` uninitialised words.
    pub fn reserve(&mut self, words: usize) -> &mut [f32] {
        let lines = words.div_ceil(16);
        if self.lines.len() < lines {
            // The old memory is freed first, so that both never exist at the same time.
            self.lines = Vec::new();
            self.lines = memory::uninit_vec(lines);
        }
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..words]
    }
}
