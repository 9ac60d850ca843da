//! The allocator of large blocks, which weights and activations are: mapped in huge pages where the system has them, and kept
//! for the next block of the same size once freed, within a bound. What is smaller is left to the system's allocator.
//!
//! A run frees and takes such blocks thousands of times. To map 1 GB anew in small pages takes a third of a second of
//! processor time, as long as reading it from a fast disk; an allocator that keeps whatever was freed is as fast as this one
//! but never gives back what a layer needed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};

use super::{IDLE_BYTES, LARGE, PAGE, idle_bytes};

const HUGE_PAGE: usize = 2 << 20;

/// The allocator of the whole program.
pub struct Blocks {
    idle: Mutex<Idle>,
}

/// A mapping of its own.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    bytes: usize,
}

/// Freed blocks, the longest idle first.
struct Idle {
    blocks: [Block; IDLE_BYTES / LARGE],
    count: usize,
    bytes: usize,
    /// Bytes of the blocks that are not idle.
    used: usize,
}

impl Idle {
    fn limit(&self) -> usize {
        idle_bytes(self.used)
    }

    /// The block of this size that was freed last: its pages are the likeliest to be in the processor's cache.
    fn take(&mut self, bytes: usize) -> Option<Block> {
        let at = self.blocks[..self.count].iter().rposition(|block| block.bytes == bytes)?;
        self.used += bytes;
        Some(self.remove(at))
    }

    fn remove(&mut self, at: usize) -> Block {
        let block = self.blocks[at];
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.bytes -= block.bytes;
        block
    }

    /// Keeps a freed block, or gives what has to go at once: the block itself or one that has been idle longer.
    fn put(&mut self, block: Block) -> Option<Block> {
        self.used -= block.bytes;
        if block.bytes > self.limit() {
            return Some(block);
        }
        let gone = (self.count == self.blocks.len()).then(|| self.remove(0));
        self.blocks[self.count] = block;
        self.count += 1;
        self.bytes += block.bytes;
        gone.or_else(|| self.surplus())
    }

    /// The next block that has to go, while there is more than may be kept.
    fn surplus(&mut self) -> Option<Block> {
        (self.bytes > self.limit()).then(|| self.remove(0))
    }
}

impl Blocks {
    pub const fn new() -> Self {
        let none = Block { address: 0, bytes: 0 };
        Self { idle: Mutex::new(Idle { blocks: [none; IDLE_BYTES / LARGE], count: 0, bytes: 0, used: 0 }) }
    }

    fn with_idle<T>(&self, act: impl FnOnce(&mut Idle) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn map(&self, bytes: usize) -> Option<Block> {
        let block = map(bytes)?;
        self.with_idle(|idle| idle.used += bytes);
        Some(block)
    }

    /// Freed bytes that are still resident.
    #[cfg(test)]
    fn idle_bytes(&self) -> usize {
        self.with_idle(|idle| idle.bytes)
    }
}

/// Whether this allocator serves such a request.
fn is_large(size: usize, align: usize) -> bool {
    size >= LARGE && align <= PAGE
}

/// Bytes mapped for a block: at most an eighth more than asked for, so that blocks of nearly the same size can follow one another.
fn mapped(size: usize) -> usize {
    let step = (1_usize << size.ilog2()) / 8;
    size.checked_next_multiple_of(step).unwrap_or(size)
}

/// Maps a block of zeros; from the size of a huge page on it begins where one can.
fn map(bytes: usize) -> Option<Block> {
    let more = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
    let whole = bytes.checked_add(more)?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping anywhere, and then of that mapping alone: what lies before and behind the block goes back.
    unsafe {
        let begin = libc::mmap(null_mut(), whole, access, kind, -1, 0);
        if begin == libc::MAP_FAILED {
            return None;
        }
        let begin = begin as usize;
        let block = Block { address: if more > 0 { begin.next_multiple_of(HUGE_PAGE) } else { begin }, bytes };
        unmap(Block { address: begin, bytes: block.address - begin });
        unmap(Block { address: block.address + bytes, bytes: begin + whole - (block.address + bytes) });
        if more > 0 {
            libc::madvise(block.address as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE);
        }
        Some(block)
    }
}

/// # Safety
/// Nobody uses these pages any more.
unsafe fn unmap(block: Block) {
    if block.bytes > 0 {
        unsafe { libc::munmap(block.address as *mut libc::c_void, block.bytes) };
    }
}

// SAFETY: a block is one mapping of at least the size asked for, on a page's boundary, that nobody else has until it is
// freed. Both `LARGE` and the sizes mapped depend on the layout alone, so that a block is freed as what it was mapped as.
unsafe impl GlobalAlloc for Blocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout.size(), layout.align()) {
            return unsafe { System.alloc(layout) };
        }
        let bytes = mapped(layout.size());
        let block = self.with_idle(|idle| idle.take(bytes)).or_else(|| self.map(bytes));
        block.map_or(null_mut(), |block| block.address as *mut u8)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout.size(), layout.align()) {
            return unsafe { System.alloc_zeroed(layout) };
        }
        let bytes = mapped(layout.size());
        if let Some(block) = self.with_idle(|idle| idle.take(bytes)) {
            let values = block.address as *mut u8;
            unsafe { values.write_bytes(0, layout.size()) };
            return values;
        }
        self.map(bytes).map_or(null_mut(), |block| block.address as *mut u8)
    }

    unsafe fn dealloc(&self, values: *mut u8, layout: Layout) {
        if !is_large(layout.size(), layout.align()) {
            return unsafe { System.dealloc(values, layout) };
        }
        let block = Block { address: values as usize, bytes: mapped(layout.size()) };
        let mut gone = self.with_idle(|idle| idle.put(block));
        // Outside the lock: to unmap takes as long as to map.
        while let Some(block) = gone {
            unsafe { unmap(block) };
            gone = self.with_idle(Idle::surplus);
        }
    }

    unsafe fn realloc(&self, values: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (was, is) = (is_large(layout.size(), layout.align()), is_large(size, layout.align()));
        match (was, is) {
            (false, false) => unsafe { System.realloc(values, layout, size) },
            (true, true) if mapped(layout.size()) == mapped(size) => values,
            (true, true) => unsafe {
                let (from, to) = (mapped(layout.size()), mapped(size));
                let moved = libc::mremap(values.cast(), from, to, libc::MREMAP_MAYMOVE);
                if moved == libc::MAP_FAILED {
                    return null_mut();
                }
                self.with_idle(|idle| idle.used = idle.used + to - from);
                moved.cast()
            },
            _ => unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if let Some(new) = NonNull::new(new) {
                    values.copy_to_nonoverlapping(new.as_ptr(), layout.size().min(size));
                    self.dealloc(values, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 64).unwrap()
    }

    #[test]
    fn a_freed_block_is_the_next_of_its_size_and_zero_again() {
        let blocks = Blocks::new();
        unsafe {
            let beside = blocks.alloc(layout(100 * MIB));
            let first = blocks.alloc(layout(3 * MIB));
            first.write_bytes(7, 3 * MIB);
            blocks.dealloc(first, layout(3 * MIB));
            assert_eq!(blocks.idle_bytes(), 3 * MIB);
            let other = blocks.alloc_zeroed(layout(2 * MIB));
            assert_ne!(other, first);
            // A little smaller: mapped alike.
            let second = blocks.alloc_zeroed(layout(3 * MIB - 5000));
            assert_eq!(second, first);
            assert!(std::slice::from_raw_parts(second, 3 * MIB - 5000).iter().all(|&byte| byte == 0));
            blocks.dealloc(second, layout(3 * MIB - 5000));
            blocks.dealloc(other, layout(2 * MIB));
            assert_eq!(blocks.idle_bytes(), 5 * MIB);
            blocks.dealloc(beside, layout(100 * MIB));
            assert_eq!(blocks.idle_bytes(), 0, "nothing lies idle beside nothing");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let blocks = Blocks::new();
        for size in [MIB, 3 * MIB, 8 * MIB, 5 * MIB, IDLE_BYTES + MIB] {
            let all: Vec<*mut u8> = (0..40).map(|_| unsafe { blocks.alloc(layout(size)) }).collect();
            for &block in &all {
                unsafe { block.write(1) };
                assert_eq!(block as usize % if size >= HUGE_PAGE { HUGE_PAGE } else { PAGE }, 0);
            }
            let mut most = 0;
            for (used, block) in (0..40).rev().zip(all) {
                unsafe { blocks.dealloc(block, layout(size)) };
                assert!(blocks.idle_bytes() <= idle_bytes(used * mapped(size)));
                most = most.max(blocks.idle_bytes());
            }
            assert_eq!(blocks.idle_bytes(), 0);
            assert_eq!(most > 0, size <= IDLE_BYTES, "{size}");
        }
    }

    #[test]
    fn growing_and_shrinking_keep_what_is_there() {
        let blocks = Blocks::new();
        unsafe {
            let mut size = 1000;
            let mut values = blocks.alloc(layout(size));
            for (i, next) in [MIB / 2, MIB, MIB + 1, 9 * MIB, 2 * MIB, MIB / 4].into_iter().enumerate() {
                values.write_bytes(i as u8 + 1, size);
                values = blocks.realloc(values, layout(size), next);
                let kept = std::slice::from_raw_parts(values, size.min(next));
                assert!(kept.iter().all(|&byte| byte == i as u8 + 1), "{size} to {next}");
                size = next;
            }
            blocks.dealloc(values, layout(size));
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        let blocks = Blocks::new();
        let size = isize::MAX as usize - 63;
        assert!(unsafe { blocks.alloc_zeroed(layout(size)) }.is_null());
    }
}
