//! Chunks of a product as tiles, and the micro-kernel for vector registers.

use std::marker::PhantomData;

use super::blocking::{DEPTH, GROUP_ROWS};
use super::operands::{Lhs, Rhs, Values};
use super::pack;
use super::scratch::Scratch;
use super::simd::Simd;

/// A micro-kernel: the packing of its operands, and its innermost loop.
pub trait MicroKernel {
    /// Rows of x in a tile, and outputs.
    const ROWS: usize;
    const COLUMNS: usize;
    /// True if a word holds two bf16 numbers.
    const PAIRS: bool;
    /// The inner dimension is padded with zeros to a multiple of this number of words.
    const STEP: usize = 1;
    /// The number of blocks of depth whose panels are packed at the same time.
    const SPAN: usize = 1;

    /// True if this CPU can run it.
    fn available() -> bool;
    /// Called before the first tile of a chunk on a thread.
    ///
    /// # Safety
    /// `available` is true.
    #[inline(always)]
    unsafe fn begin() {}
    /// Called after the last tile of a chunk on a thread.
    ///
    /// # Safety
    /// `begin` was called before on this thread.
    #[inline(always)]
    unsafe fn end() {}
    /// Packs `ROWS` rows of x from row `first` on, words `from..from + depth`, into `depth * ROWS`
    /// words.
    ///
    /// # Safety
    /// `available` is true.
    unsafe fn pack_rows(x: &Lhs, first: usize, from: usize, depth: usize, to: &mut [f32]);
    /// Packs `COLUMNS` outputs of a weight from output `first` on, words `from..from + depth`, into
    /// `depth * COLUMNS` words.
    ///
    /// # Safety
    /// `available` is true.
    unsafe fn pack_panel(w: &Rhs, first: usize, from: usize, depth: usize, to: &mut [f32]);
    /// Computes sums over `depth` words of packed rows and a packed panel.
    ///
    /// # Safety
    /// It is called between `begin` and `end`. `pack_rows` wrote `x` and `pack_panel` wrote `w`,
    /// both with this depth. Nobody else accesses the destination.
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, dst: TileDst);
}

/// The destination of a tile: `rows` x `columns` numbers of y, with rows `stride` apart.
pub struct TileDst {
    pub y: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// The values to which the sums are added.
    pub accumulate: Accumulate,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Accumulate {
    Nothing,
    /// One value per column.
    Bias(*const f32),
    /// The values of y.
    Existing,
}

/// Part of a product: some tiles of packed rows times some outputs.
pub struct Chunk<'a> {
    /// [blocks of DEPTH words][all_tiles][words of the block][rows of a tile]
    pub packed: *const f32,
    /// Row of y for the first packed row, and number of packed rows.
    pub first: usize,
    pub rows: usize,
    pub all_tiles: usize,
    pub tiles: std::ops::Range<usize>,
    pub words: usize,
    pub w: &'a Rhs<'a>,
    pub columns: std::ops::Range<usize>,
    pub bias: Option<&'a [f32]>,
}

/// Packs tiles of `x` for all blocks of depth; see `Kind::pack`.
///
/// # Safety
/// As for `Kind::pack`, on a CPU that can run the micro-kernel.
#[inline(always)]
pub(super) unsafe fn pack_tiles<T: MicroKernel>(
    x: &Lhs,
    first: usize,
    rows: usize,
    tiles: std::ops::Range<usize>,
    words: usize,
    to: *mut f32,
) {
    let all_tiles = rows.div_ceil(T::ROWS);
    for from in (0..words).step_by(DEPTH) {
        let depth = DEPTH.min(words - from);
        for tile in tiles.clone() {
            // SAFETY: the caller promises space for all tiles and exclusive access to these. Tiles
            // have distinct positions.
            unsafe {
                let to = to.add(from * all_tiles * T::ROWS + tile * depth * T::ROWS);
                let to = std::slice::from_raw_parts_mut(to, depth * T::ROWS);
                T::pack_rows(x, first + tile * T::ROWS, from, depth, to);
            }
        }
    }
}

impl Chunk<'_> {
    /// See `Kind::chunk`.
    ///
    /// # Safety
    /// As for `Kind::chunk`, on a CPU that can run the micro-kernel.
    #[inline(always)]
    pub unsafe fn run<T: MicroKernel>(&self, y: *mut f32, stride: usize, scratch: &mut Scratch) {
        let panels = self.columns.len().div_ceil(T::COLUMNS);
        let most = (T::SPAN * DEPTH).min(self.words);
        for from in (0..self.words).step_by(most.max(1)) {
            let span = from..(from + most).min(self.words);
            // SAFETY: the caller promises that this CPU can run the micro-kernel, all tiles for all
            // blocks of depth, and the space in `y`. The panels have just been packed.
            unsafe {
                let packed = pack_panels::<T>(self.w, self.columns.clone(), span.clone(), scratch);
                debug_assert_eq!(packed.len(), panels * T::COLUMNS * span.len());
                for group in self.tiles.clone().step_by(GROUP_ROWS / T::ROWS) {
                    let group = group..(group + GROUP_ROWS / T::ROWS).min(self.tiles.end);
                    self.multiply::<T>(group, span.clone(), packed.as_ptr(), y, stride);
                }
            }
        }
    }

    /// Multiplies some tiles with packed panels; see `Kind::multiply`.
    ///
    /// # Safety
    /// As for `Kind::multiply`, on a CPU that can run the micro-kernel.
    #[inline(always)]
    pub unsafe fn multiply<T: MicroKernel>(
        &self,
        tiles: std::ops::Range<usize>,
        span: std::ops::Range<usize>,
        panels: *const f32,
        y: *mut f32,
        stride: usize,
    ) {
        let count = self.columns.len().div_ceil(T::COLUMNS);
        // SAFETY: the caller promises that this CPU can run the micro-kernel.
        unsafe { T::begin() };
        for panel in 0..count {
            let column = self.columns.start + panel * T::COLUMNS;
            for from in span.clone().step_by(DEPTH) {
                let depth = DEPTH.min(span.end - from);
                // SAFETY: the caller promises panels for the whole span, and all tiles for all
                // blocks of depth.
                let (w, packed) = unsafe {
                    let w = panels.add((from - span.start) * count * T::COLUMNS + panel * depth * T::COLUMNS);
                    (w, self.packed.add(from * self.all_tiles * T::ROWS))
                };
                for tile in tiles.clone() {
                    let accumulate = match self.bias {
                        _ if from > 0 => Accumulate::Existing,
                        Some(bias) => Accumulate::Bias(bias[column..].as_ptr()),
                        None => Accumulate::Nothing,
                    };
                    let dst = TileDst {
                        y: y.wrapping_add((self.first + tile * T::ROWS) * stride + column),
                        stride,
                        rows: T::ROWS.min(self.rows - tile * T::ROWS),
                        columns: T::COLUMNS.min(self.columns.end - column),
                        accumulate,
                    };
                    // SAFETY: `pack` wrote the tile and `pack_panels` the panel, and the caller
                    // promises the space in `y`.
                    unsafe { T::compute(depth, packed.add(tile * depth * T::ROWS), w, dst) };
                }
            }
        }
        // SAFETY: as for `begin`.
        unsafe { T::end() };
    }
}

/// Packs the panels of some outputs for a span of words: [blocks of DEPTH words][panels][words of
/// the block][outputs of a panel]. `span` begins with a block.
///
/// # Safety
/// This CPU can run the micro-kernel.
#[inline(always)]
pub(super) unsafe fn pack_panels<'s, T: MicroKernel>(
    w: &Rhs,
    columns: std::ops::Range<usize>,
    span: std::ops::Range<usize>,
    scratch: &'s mut Scratch,
) -> &'s [f32] {
    let panels = columns.len().div_ceil(T::COLUMNS);
    // The numbers of one panel of codes, at most two per word.
    let decoded = if matches!(w.values, Values::Codes(_)) { 2 * T::COLUMNS * DEPTH } else { 0 };
    let scratch = scratch.reserve(panels * T::COLUMNS * span.len() + decoded);
    let (scratch, decoded) = scratch.split_at_mut(panels * T::COLUMNS * span.len());
    for (from, block) in span.clone().step_by(DEPTH).zip(scratch.chunks_mut(panels * T::COLUMNS * DEPTH)) {
        let depth = DEPTH.min(span.end - from);
        for (panel, to) in block.chunks_exact_mut(T::COLUMNS * depth).enumerate() {
            let first = columns.start + panel * T::COLUMNS;
            let numbers = w.numbers(first, T::COLUMNS, if T::PAIRS { 2 } else { 1 }, from, depth, decoded);
            let (w, first, from) = numbers.as_ref().map_or((w, first, from), |numbers| (numbers, 0, 0));
            // SAFETY: the caller promises that this CPU can run the micro-kernel.
            unsafe { T::pack_panel(w, first, from, depth, to) };
        }
    }
    scratch
}

/// Vector registers per row of a tile.
const COLUMNS: usize = 2;

/// A tile of `ROWS` rows of two vector registers.
pub(super) struct SimdKernel<L, const ROWS: usize>(PhantomData<L>);

impl<L: Simd, const ROWS: usize> MicroKernel for SimdKernel<L, ROWS> {
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS * L::WIDTH;
    const PAIRS: bool = L::PAIRS;

    fn available() -> bool {
        L::available()
    }
    #[inline(always)]
    unsafe fn pack_rows(x: &Lhs, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: the caller promises that `L` is available.
        unsafe { pack::rows::<L, ROWS>(x, first, from, depth, to) }
    }
    #[inline(always)]
    unsafe fn pack_panel(w: &Rhs, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: the caller promises that `L` is available.
        unsafe { pack::weight::<L>(w, first, from, depth, COLUMNS * L::WIDTH, to) }
    }
    #[inline(always)]
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, dst: TileDst) {
        for r in 0..ROWS {
            L::prefetch(dst.y.wrapping_add(r * dst.stride));
        }
        // SAFETY: the caller promises that `L` is available, the packed operands, and the
        // destination.
        unsafe { store::<L, ROWS>(sums::<L, ROWS>(depth, x, w), &dst) }
    }
}

/// Adds the sums of a tile to the destination.
///
/// # Safety
/// `L` is available, and `dst` points to its rows and columns, and to a bias for each column.
#[inline(always)]
unsafe fn store<L: Simd, const ROWS: usize>(sums: [[L::Vector; COLUMNS]; ROWS], dst: &TileDst) {
    let width = COLUMNS * L::WIDTH;
    // The constant number of iterations keeps the sums in registers.
    for (r, sums) in sums.iter().enumerate() {
        if r >= dst.rows {
            break;
        }
        // SAFETY: row `r` is within the destination, and only its columns are accessed.
        unsafe {
            let to = dst.y.add(r * dst.stride);
            let accumulate = match dst.accumulate {
                Accumulate::Nothing => None,
                Accumulate::Bias(bias) => Some(bias),
                Accumulate::Existing => Some(to.cast_const()),
            };
            if dst.columns == width {
                for (i, sum) in sums.iter().enumerate() {
                    let sum = match accumulate {
                        Some(accumulate) => L::add(L::load(accumulate.add(i * L::WIDTH)), *sum),
                        None => *sum,
                    };
                    L::store(to.add(i * L::WIDTH), sum);
                }
            } else {
                let mut whole = [0f32; 32];
                for (i, sum) in sums.iter().enumerate() {
                    L::store(whole.as_mut_ptr().add(i * L::WIDTH), *sum);
                }
                for (c, sum) in whole.iter().enumerate().take(dst.columns) {
                    *to.add(c) = accumulate.map_or(*sum, |accumulate| *accumulate.add(c) + sum);
                }
            }
        }
    }
}

/// Sums over `depth` words of packed rows and a packed panel.
///
/// The loops use counters: a build with little optimisation does not inline iterators, keeps the
/// sums in memory, and takes 25 times as long.
///
/// # Safety
/// `L` is available, `x` points to `depth * ROWS` words and `w` to `depth` times two registers of
/// words.
#[inline(always)]
unsafe fn sums<L: Simd, const ROWS: usize>(depth: usize, x: *const f32, w: *const f32) -> [[L::Vector; COLUMNS]; ROWS] {
    // SAFETY: the caller promises the words, and the loops read no others.
    unsafe {
        let mut sums = [[L::zero(); COLUMNS]; ROWS];
        let mut k = 0;
        while k < depth {
            let w = w.add(k * COLUMNS * L::WIDTH);
            let w: [L::Vector; COLUMNS] = [L::load(w), L::load(w.add(L::WIDTH))];
            let mut r = 0;
            while r < ROWS {
                let x = L::splat(x.add(k * ROWS + r));
                sums[r][0] = L::multiply_add(sums[r][0], x, w[0]);
                sums[r][1] = L::multiply_add(sums[r][1], x, w[1]);
                r += 1;
            }
            k += 1;
        }
        sums
    }
}
