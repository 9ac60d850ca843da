//! A caching allocator for large blocks, such as weights and activations. It maps them in huge
//! pages where the system has them. During a run it retains freed blocks and serves later requests
//! from them. Small requests go to the system's allocator.
//!
//! A run frees and allocates such blocks thousands of times. Mapping 1 GB anew in small pages takes
//! a third of a second of processor time, as long as reading it from a fast disk. Free and used
//! bytes together never exceed the peak of the used bytes, so that caching does not raise the peak
//! of a run. Adjacent free blocks are merged, so that the memory of weights serves activations of
//! other sizes, and the reverse, without a new page.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};

use super::page::{LARGE, PAGE};

/// The largest number of free blocks that are retained.
const MAX_IDLE: usize = 1024;

const HUGE_PAGE: usize = 2 << 20;

pub(super) struct CachingAllocator {
    idle: Mutex<Idle>,
}

/// A range of whole mapped pages.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    bytes: usize,
}

impl Block {
    /// The block whose pages contain `size` bytes at `values`, which this allocator has handed out.
    fn around(values: *mut u8, size: usize) -> Self {
        let phase = values as usize % PAGE;
        Self { address: values as usize - phase, bytes: pages(phase + size) }
    }

    fn end(&self) -> usize {
        self.address + self.bytes
    }
}

/// The free blocks, sorted by address. Adjacent blocks are always merged.
struct Idle {
    blocks: [Block; MAX_IDLE],
    count: usize,
    bytes: usize,
    /// Bytes that are handed out.
    used: usize,
    /// The maximum of `used` since the first of the current runs began.
    peak: usize,
    /// Number of current runs. Without any, nothing is retained.
    runs: usize,
}

impl Idle {
    fn limit(&self) -> usize {
        if self.runs > 0 { self.peak.saturating_sub(self.used) } else { 0 }
    }

    fn uses(&mut self, more: usize, less: usize) {
        self.used = self.used + more - less;
        self.peak = self.peak.max(self.used);
    }

    /// Takes `bytes` from the smallest free block that is large enough. The rest of that block
    /// stays free.
    fn take(&mut self, bytes: usize) -> Option<Block> {
        let idle = self.blocks[..self.count].iter().enumerate();
        let (at, _) = idle.filter(|(_, block)| block.bytes >= bytes).min_by_key(|(_, block)| block.bytes)?;
        let taken = self.split_front(at, bytes);
        self.uses(bytes, 0);
        Some(taken)
    }

    /// Removes the first `bytes` of the block at index `at` and returns them.
    fn split_front(&mut self, at: usize, bytes: usize) -> Block {
        let block = &mut self.blocks[at];
        let first = Block { address: block.address, bytes };
        *block = Block { address: first.end(), bytes: block.bytes - bytes };
        if block.bytes == 0 {
            self.blocks.copy_within(at + 1..self.count, at);
            self.count -= 1;
        }
        self.bytes -= bytes;
        first
    }

    /// Adds a freed block and merges it with its neighbours. Returns a block to unmap now, if any.
    fn insert(&mut self, block: Block) -> Option<Block> {
        self.uses(0, block.bytes);
        let at = self.blocks[..self.count].partition_point(|other| other.address < block.address);
        let before = at > 0 && self.blocks[at - 1].end() == block.address;
        let behind = at < self.count && block.end() == self.blocks[at].address;
        match (before, behind) {
            (true, true) => {
                self.blocks[at - 1].bytes += block.bytes + self.blocks[at].bytes;
                self.blocks.copy_within(at + 1..self.count, at);
                self.count -= 1;
            }
            (true, false) => self.blocks[at - 1].bytes += block.bytes,
            (false, true) => {
                self.blocks[at] = Block { address: block.address, bytes: block.bytes + self.blocks[at].bytes };
            }
            (false, false) if self.count == self.blocks.len() => return Some(block),
            (false, false) => {
                self.blocks.copy_within(at..self.count, at + 1);
                self.blocks[at] = block;
                self.count += 1;
            }
        }
        self.bytes += block.bytes;
        self.take_surplus()
    }

    /// Removes and returns a block to unmap while the cache is larger than its limit. It comes from
    /// the smallest free block, which is the least likely to be requested.
    fn take_surplus(&mut self) -> Option<Block> {
        let more = self.bytes.checked_sub(self.limit()).filter(|more| *more > 0)?;
        let (at, smallest) = self.blocks[..self.count].iter().enumerate().min_by_key(|(_, block)| block.bytes)?;
        let bytes = smallest.bytes.min(more);
        Some(self.split_front(at, bytes))
    }
}

impl CachingAllocator {
    pub(super) const fn new() -> Self {
        let blocks = [Block { address: 0, bytes: 0 }; MAX_IDLE];
        Self { idle: Mutex::new(Idle { blocks, count: 0, bytes: 0, used: 0, peak: 0, runs: 0 }) }
    }

    /// Begins a run: freed blocks are retained until `end`.
    pub(super) fn begin(&self) {
        self.with_idle(|idle| {
            if idle.runs == 0 {
                idle.peak = idle.used;
            }
            idle.runs += 1;
        });
    }

    /// Ends a run: free blocks are unmapped unless another run retains them.
    pub(super) fn end(&self) {
        self.with_idle(|idle| idle.runs -= 1);
        self.evict(None);
    }

    /// Allocates memory for a large request that begins at byte `phase` of its first page. The flag
    /// is true for newly mapped memory, which is zero; reused memory has its old contents.
    pub(super) fn block(&self, layout: Layout, phase: usize) -> Option<(NonNull<u8>, bool)> {
        let bytes = pages(phase + layout.size());
        let cached = self.with_idle(|idle| idle.take(bytes));
        let block = cached.or_else(|| self.map(bytes))?;
        NonNull::new((block.address + phase) as *mut u8).map(|values| (values, cached.is_none()))
    }

    fn with_idle<T>(&self, act: impl FnOnce(&mut Idle) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn map(&self, bytes: usize) -> Option<Block> {
        let block = map(bytes)?;
        self.with_idle(|idle| idle.uses(bytes, 0));
        self.evict(None);
        Some(block)
    }

    /// # Safety
    /// The block was allocated here, and nobody uses it any more.
    unsafe fn free(&self, block: Block) {
        let gone = self.with_idle(|idle| idle.insert(block));
        self.evict(gone);
    }

    /// Unmaps `gone`, which is no longer in the cache, and then all blocks beyond the cache's
    /// limit. The lock is not held meanwhile: unmapping takes as long as mapping.
    fn evict(&self, mut gone: Option<Block>) {
        while let Some(block) = gone.or_else(|| self.with_idle(Idle::take_surplus)) {
            // SAFETY: the owner has freed this block, and it has been removed from the cache.
            unsafe { unmap(block) };
            gone = None;
        }
    }

    /// Freed bytes that are still mapped.
    #[cfg(test)]
    fn idle_bytes(&self) -> usize {
        self.with_idle(|idle| idle.bytes)
    }
}

/// True for requests that this allocator serves by itself.
pub(super) fn is_large(size: usize, align: usize) -> bool {
    size >= LARGE && align <= PAGE
}

/// The size rounded up to whole pages, in bytes.
fn pages(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

/// Maps a zeroed block. If it is at least as large as a huge page, it begins on a boundary of huge
/// pages.
fn map(bytes: usize) -> Option<Block> {
    let more = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
    let whole = bytes.checked_add(more)?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the system chooses an address at which nothing is mapped.
    let begin = unsafe { libc::mmap(null_mut(), whole, access, kind, -1, 0) };
    if begin == libc::MAP_FAILED {
        return None;
    }
    let begin = begin as usize;
    let block = Block { address: if more > 0 { begin.next_multiple_of(HUGE_PAGE) } else { begin }, bytes };
    // SAFETY: the bytes before and after the block are of the new mapping, and not in use yet.
    unsafe {
        unmap(Block { address: begin, bytes: block.address - begin });
        unmap(Block { address: block.end(), bytes: begin + whole - block.end() });
    }
    if more > 0 {
        // SAFETY: this advises how to map the block, and its contents stay the same.
        unsafe { libc::madvise(block.address as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    }
    Some(block)
}

/// # Safety
/// Nobody uses these pages any more.
unsafe fn unmap(block: Block) {
    if block.bytes > 0 {
        // SAFETY: the pages are mapped, and the caller promises that nobody uses them.
        unsafe { libc::munmap(block.address as *mut libc::c_void, block.bytes) };
    }
}

// SAFETY: every block is a mapping of at least the requested size and has one owner until it is
// freed. The layout alone says whether a request is large, and with the offset of the address in
// its page it gives the block. Every block is therefore freed as it was mapped.
unsafe impl GlobalAlloc for CachingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout.size(), layout.align()) {
            // SAFETY: the caller keeps the rules of this function.
            return unsafe { System.alloc(layout) };
        }
        self.block(layout, 0).map_or(null_mut(), |(values, _)| values.as_ptr())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout.size(), layout.align()) {
            // SAFETY: the caller keeps the rules of this function.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let Some((values, new)) = self.block(layout, 0) else { return null_mut() };
        if !new {
            // SAFETY: the block was just allocated and has at least this size.
            unsafe { values.write_bytes(0, layout.size()) };
        }
        values.as_ptr()
    }

    unsafe fn dealloc(&self, values: *mut u8, layout: Layout) {
        if !is_large(layout.size(), layout.align()) {
            // SAFETY: small requests are served by the system's allocator.
            return unsafe { System.dealloc(values, layout) };
        }
        // SAFETY: the caller frees memory with this layout, and large requests are served here.
        unsafe { self.free(Block::around(values, layout.size())) };
    }

    unsafe fn realloc(&self, values: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (was, is) = (is_large(layout.size(), layout.align()), is_large(size, layout.align()));
        match (was, is) {
            // SAFETY: the request was and stays small, and small requests are served by the
            // system's allocator.
            (false, false) => unsafe { System.realloc(values, layout, size) },
            (true, true) if size <= layout.size() => {
                let (whole, kept) = (Block::around(values, layout.size()), Block::around(values, size));
                if kept.bytes < whole.bytes {
                    // SAFETY: these pages belong to a block that was allocated here, and the caller
                    // keeps only the pages before them.
                    unsafe { self.free(Block { address: kept.end(), bytes: whole.bytes - kept.bytes }) };
                }
                values
            }
            // SAFETY: the caller promises that `size` is valid with this alignment and that
            // `values` has `layout`. At most that many bytes are copied to the new block before the
            // old one is freed.
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
    use rand::{Rng, SeedableRng};

    use super::*;

    const MIB: usize = 1 << 20;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 64).unwrap()
    }

    /// Memory that belongs to a test until this is dropped.
    struct Taken<'a> {
        blocks: &'a CachingAllocator,
        values: NonNull<u8>,
        size: usize,
        new: bool,
    }

    impl<'a> Taken<'a> {
        fn at(blocks: &'a CachingAllocator, size: usize, phase: usize) -> Self {
            let (values, new) = blocks.block(layout(size), phase).unwrap();
            Self { blocks, values, size, new }
        }

        fn address(&self) -> usize {
            self.values.as_ptr() as usize
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the block has this size and belongs to this test, and mapped memory is
            // initialised.
            unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.size) }
        }
    }

    impl Drop for Taken<'_> {
        fn drop(&mut self) {
            // SAFETY: `at` allocated the block with this layout, which is large.
            unsafe { self.blocks.dealloc(self.values.as_ptr(), layout(self.size)) };
        }
    }

    #[test]
    fn a_freed_block_is_taken_again_and_zero_again() {
        let blocks = CachingAllocator::new();
        blocks.begin();
        let mut first = Taken::at(&blocks, 3 * MIB, 0);
        let begin = first.address();
        first.bytes().fill(7);
        drop(first);
        assert_eq!(blocks.idle_bytes(), 3 * MIB);
        // SAFETY: the size of the layout is not zero.
        let values = NonNull::new(unsafe { blocks.alloc_zeroed(layout(2 * MIB - 5000)) }).unwrap();
        let mut second = Taken { blocks: &blocks, values, size: 2 * MIB - 5000, new: false };
        assert_eq!((second.address(), blocks.idle_bytes()), (begin, MIB + PAGE));
        assert!(second.bytes().iter().all(|&byte| byte == 0));
        second.bytes().fill(8);
        drop(second);
        // The rest of the block was merged with it again.
        let mut third = Taken::at(&blocks, 3 * MIB - 100, 64);
        assert_eq!((third.address(), third.new), (begin + 64, false));
        let (written, left) = third.bytes().split_at(2 * MIB - 64);
        assert!(written[..2 * MIB - 5064].iter().all(|&byte| byte == 8) && left.iter().all(|&byte| byte == 7));
        drop(third);
        assert_eq!(blocks.idle_bytes(), 3 * MIB);
        blocks.end();
        assert_eq!(blocks.idle_bytes(), 0, "nothing is kept after a run");
    }

    #[test]
    fn idle_and_used_are_never_more_than_was_used_at_once() {
        let blocks = CachingAllocator::new();
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(4);
        drop(Taken::at(&blocks, 64 * MIB, 0));
        assert_eq!(blocks.idle_bytes(), 0, "nothing is kept before a run");
        blocks.begin();
        let (mut taken, mut used, mut peak, mut cached, mut again) = (Vec::new(), 0, 0, 0, 0);
        for number in 0..4000_u64 {
            if taken.is_empty() || taken.len() < 40 && rng.random_bool(0.5) {
                let (size, phase) = (rng.random_range(MIB..12 * MIB), 64 * rng.random_range(0..64));
                let mut block = Taken::at(&blocks, size, phase);
                assert_eq!(block.address() % PAGE, phase);
                again += usize::from(!block.new);
                // A block that overlapped this one would contain this number.
                for at in (0..size - 8).step_by(MIB / 2).chain([size - 8]) {
                    block.bytes()[at..at + 8].copy_from_slice(&number.to_ne_bytes());
                }
                taken.push((block, number));
                used += pages(phase + size);
            } else {
                let (mut block, number) = taken.swap_remove(rng.random_range(0..taken.len()));
                let size = block.size;
                for at in (0..size - 8).step_by(MIB / 2).chain([size - 8]) {
                    assert_eq!(block.bytes()[at..at + 8], number.to_ne_bytes());
                }
                used -= pages(block.address() % PAGE + size);
            }
            peak = peak.max(used);
            cached = cached.max(blocks.idle_bytes());
            assert!(used + blocks.idle_bytes() <= peak);
        }
        assert!(cached > 0 && again > 1000, "{again} of some 2000 blocks were there before");
        drop(taken);
        blocks.end();
        assert_eq!(blocks.idle_bytes(), 0);
    }

    #[test]
    fn more_blocks_than_are_kept_are_given_back() {
        let blocks = CachingAllocator::new();
        blocks.begin();
        let mut all: Vec<Taken> = (0..2 * MAX_IDLE + 6).map(|_| Taken::at(&blocks, MIB, 0)).collect();
        all.sort_by_key(Taken::address);
        let (even, odd): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
        drop(even);
        assert_eq!(blocks.idle_bytes(), MAX_IDLE * MIB);
        drop(odd);
        blocks.end();
        assert_eq!(blocks.idle_bytes(), 0);
    }

    #[test]
    fn growing_and_shrinking_keep_what_is_there() {
        let blocks = CachingAllocator::new();
        // SAFETY: the block belongs to this test and is always passed with its current layout.
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
        let blocks = CachingAllocator::new();
        let size = isize::MAX as usize - 63;
        // SAFETY: the size of the layout is not zero.
        assert!(unsafe { blocks.alloc_zeroed(layout(size)) }.is_null());
    }
}
