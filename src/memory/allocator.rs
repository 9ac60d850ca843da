//! The program's allocator, and the functions by which the engine uses it. The binary makes it the
//! global allocator.
//!
//! In a test, or in another program that uses this library, another allocator may be the global
//! one. `uninit_vec` then returns zeros, and freed memory is not retained.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_os = "linux")]
use super::caching::{self, CachingAllocator};
use super::page::LARGE;

#[cfg(target_os = "linux")]
static CACHE: CachingAllocator = CachingAllocator::new();
#[cfg(not(target_os = "linux"))]
static CACHE: std::alloc::System = std::alloc::System;

/// True as soon as `Allocator` has served a large request, which proves that it is the global
/// allocator.
static IS_GLOBAL: AtomicBool = AtomicBool::new(false);

/// A global allocator that maps large blocks by itself on Linux. On other systems it is the
/// system's allocator.
pub struct Allocator(());

impl Allocator {
    /// # Safety
    /// The value must become the global allocator, and nobody else may call its methods: the engine
    /// hands blocks to `Vec`, which frees them through the global allocator.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

fn note_request(bytes: usize) {
    if bytes >= LARGE {
        IS_GLOBAL.store(true, Ordering::Relaxed);
    }
}

// SAFETY: every request is passed on to `CACHE` unchanged, which keeps the rules of an allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_request(layout.size());
        // SAFETY: the caller keeps the rules of this function.
        unsafe { CACHE.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_request(layout.size());
        // SAFETY: the caller keeps the rules of this function.
        unsafe { CACHE.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, values: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of this function.
        unsafe { CACHE.dealloc(values, layout) }
    }

    unsafe fn realloc(&self, values: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note_request(size);
        // SAFETY: the caller keeps the rules of this function.
        unsafe { CACHE.realloc(values, layout, size) }
    }
}

/// While this guard lives, large blocks that are freed are retained for later requests. The peak of
/// memory in use does not rise because of it.
pub struct RetainPages(());

impl RetainPages {
    pub fn begin() -> Self {
        #[cfg(target_os = "linux")]
        CACHE.begin();
        Self(())
    }
}

impl Drop for RetainPages {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        CACHE.end();
    }
}

/// A vector of `count` values that the caller will overwrite. They are zeros, or the old contents
/// of reused memory.
///
/// New pages are populated here with one system call, which costs half as much as one page fault
/// for each of them.
pub fn uninit_vec<T: bytemuck::Pod>(count: usize) -> Vec<T> {
    uninit_vec_at(count, 0)
}

/// As `uninit_vec`, with values that begin `phase` bytes (less than `PAGE`) after the start of a
/// page, if there are many and their alignment allows it. Direct reads from a file need the same
/// offset within a page in memory as in the file.
pub fn uninit_vec_at<T: bytemuck::Pod>(count: usize, phase: usize) -> Vec<T> {
    #[cfg(target_os = "linux")]
    if let Ok(layout) = Layout::array::<T>(count)
        && caching::is_large(layout.size(), layout.align())
        && IS_GLOBAL.load(Ordering::Relaxed)
    {
        use std::alloc::handle_alloc_error;

        use super::page::PAGE;
        let phase = if phase.is_multiple_of(layout.align()) { phase } else { 0 };
        let Some((values, new)) = CACHE.block(layout, phase) else { handle_alloc_error(layout) };
        if new {
            let (begin, whole) = (values.as_ptr().wrapping_sub(phase), (phase + layout.size()) / PAGE * PAGE);
            // SAFETY: these are whole pages of this block, and their contents stay the same. A
            // kernel that does not know this advice returns an error.
            unsafe { libc::madvise(begin.cast(), whole, libc::MADV_POPULATE_WRITE) };
        }
        // SAFETY: the block was allocated with this layout, and the global allocator, which frees
        // it, is `Allocator`: it has served a large request, and `Allocator::new` demands that it
        // is global. Mapped memory is initialised, and every bit pattern is a value of `T`.
        return unsafe { Vec::from_raw_parts(values.cast().as_ptr(), count, count) };
    }
    let _ = phase;
    bytemuck::zeroed_vec(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit tests run without `Allocator`: freeing one of its blocks would abort the process.
    #[test]
    fn where_another_allocator_is_global_memory_is_of_that_one_and_zero() {
        for phase in [0, 100] {
            let values: Vec<u8> = uninit_vec_at(3 * LARGE, phase);
            assert!(values.len() == 3 * LARGE && values.iter().all(|&byte| byte == 0));
        }
    }
}
