//! The allocator of the program, which its binary makes the global one, and what the engine asks of it.
//!
//! In a test or in another program that uses this library, the engine does without: `unset` then gives zeros, and nothing
//! that is freed is kept.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_os = "linux")]
use super::blocks::{self, Blocks};
use super::page::LARGE;

#[cfg(target_os = "linux")]
static BLOCKS: Blocks = Blocks::new();
#[cfg(not(target_os = "linux"))]
static BLOCKS: std::alloc::System = std::alloc::System;

/// Whether `Allocator` is the global allocator, as far as is known: it has been asked for a large block.
static IS_GLOBAL: AtomicBool = AtomicBool::new(false);

/// A global allocator that maps large blocks by itself (Linux; elsewhere it is the system's).
pub struct Allocator(());

impl Allocator {
    /// # Safety
    /// The value is made the global allocator, and nobody else calls its methods: the engine gives blocks to `Vec` that the
    /// global allocator will free.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

fn asked(bytes: usize) {
    if bytes >= LARGE {
        IS_GLOBAL.store(true, Ordering::Relaxed);
    }
}

// SAFETY: every request goes to `BLOCKS` as it is, which keeps the rules of an allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        asked(layout.size());
        // SAFETY: the caller keeps the rules of this function.
        unsafe { BLOCKS.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        asked(layout.size());
        // SAFETY: the caller keeps the rules of this function.
        unsafe { BLOCKS.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, values: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of this function.
        unsafe { BLOCKS.dealloc(values, layout) }
    }

    unsafe fn realloc(&self, values: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        asked(size);
        // SAFETY: the caller keeps the rules of this function.
        unsafe { BLOCKS.realloc(values, layout, size) }
    }
}

/// While it lives, large blocks that are freed stay for the next of their size, without raising the peak.
pub struct Kept(());

impl Kept {
    pub fn begin() -> Self {
        #[cfg(target_os = "linux")]
        BLOCKS.begin();
        Self(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        BLOCKS.end();
    }
}

/// `count` values that the caller will write: zeros, or what was in that memory before. New memory is there when first written
/// to: asking for all pages at once costs half of what it costs to come upon them one by one.
pub fn unset<T: bytemuck::Pod>(count: usize) -> Vec<T> {
    unset_at(count, 0)
}

/// The same, where many begin `phase` bytes (below `PAGE`) behind the beginning of a page if their alignment allows it: as they
/// lie in a file, for reads that put them there without a copy.
pub fn unset_at<T: bytemuck::Pod>(count: usize, phase: usize) -> Vec<T> {
    #[cfg(target_os = "linux")]
    if let Ok(layout) = Layout::array::<T>(count)
        && blocks::is_large(layout.size(), layout.align())
        && IS_GLOBAL.load(Ordering::Relaxed)
    {
        use std::alloc::handle_alloc_error;

        use super::page::PAGE;
        let phase = if phase.is_multiple_of(layout.align()) { phase } else { 0 };
        let Some((values, new)) = BLOCKS.block(layout, phase) else { handle_alloc_error(layout) };
        if new {
            let (begin, whole) = (values.as_ptr().wrapping_sub(phase), (phase + layout.size()) / PAGE * PAGE);
            // SAFETY: these are whole pages of this block, whose content stays; a kernel that does not know the advice refuses.
            unsafe { libc::madvise(begin.cast(), whole, libc::MADV_POPULATE_WRITE) };
        }
        // SAFETY: the block has this layout, and the global allocator frees such blocks: it has been asked for one, as
        // `Allocator::new` demands. Mapped memory always holds something, and any bits are a value of `T`.
        return unsafe { Vec::from_raw_parts(values.cast().as_ptr(), count, count) };
    }
    let _ = phase;
    bytemuck::zeroed_vec(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is in these tests: freeing a block of `BLOCKS` would end the process.
    #[test]
    fn where_another_allocator_is_global_memory_is_of_that_one_and_zero() {
        for phase in [0, 100] {
            let values: Vec<u8> = unset_at(3 * LARGE, phase);
            assert!(values.len() == 3 * LARGE && values.iter().all(|&byte| byte == 0));
        }
    }
}
