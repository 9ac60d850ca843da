//! Part of a product as tiles, and tiles made of vector registers.

use std::marker::PhantomData;

use super::blocking::{DEPTH, GROUP_ROWS};
use super::lanes::Lanes;
use super::operands::{Rows, Weight};
use super::pack;
use super::scratch::Scratch;

/// What a tile is made of: how its operands are packed, and its innermost loop. Every function may be called only where
/// `available` is true.
pub trait Tile {
    /// Rows of x, and outputs.
    const ROWS: usize;
    const COLUMNS: usize;
    /// A word holds two bf16.
    const PAIRS: bool;
    /// The words of the inner dimension are a multiple of this, the last of them zeros.
    const STEP: usize = 1;

    fn available() -> bool;
    /// Before the first tile of a chunk on a thread, and after the last.
    #[inline(always)]
    unsafe fn begin() {}
    #[inline(always)]
    unsafe fn end() {}
    /// Packs `ROWS` rows of x from row `first`, words `from..from + depth`.
    unsafe fn pack_rows(x: &Rows, first: usize, from: usize, depth: usize, to: *mut f32);
    /// Packs `COLUMNS` outputs of a weight from output `first`, words `from..from + depth`.
    unsafe fn pack_panel(w: &Weight, first: usize, from: usize, depth: usize, to: *mut f32);
    /// Sums over `depth` words of packed rows and a packed panel.
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, place: Place);
}

/// Where the sums of a tile go: `rows` x `columns` values of y, rows `stride` apart.
pub struct Place {
    pub y: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// What they are added to; alone they begin y.
    pub before: Before,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Before {
    Nothing,
    /// One value per column.
    Bias(*const f32),
    /// What y holds.
    Sums,
}

/// Part of a product: some tiles of packed rows times some outputs.
pub struct Chunk<'a> {
    /// [blocks of DEPTH words][all_tiles][words of the block][rows of a tile]
    pub packed: *const f32,
    /// Row of y that the first packed row belongs to, and packed rows.
    pub first: usize,
    pub rows: usize,
    pub all_tiles: usize,
    pub tiles: std::ops::Range<usize>,
    pub words: usize,
    pub w: &'a Weight<'a>,
    pub columns: std::ops::Range<usize>,
    pub bias: Option<&'a [f32]>,
}

/// Packs tiles of `x` for all blocks of depth; see `Kind::pack`.
#[inline(always)]
pub unsafe fn pack_tiles<T: Tile>(
    x: &Rows,
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
            let to = unsafe { to.add(from * all_tiles * T::ROWS + tile * depth * T::ROWS) };
            unsafe { T::pack_rows(x, first + tile * T::ROWS, from, depth, to) };
        }
    }
}

impl Chunk<'_> {
    /// See `Kind::chunk`.
    #[inline(always)]
    pub unsafe fn run<T: Tile>(&self, y: *mut f32, stride: usize, scratch: &mut Scratch) {
        let panels = self.columns.len().div_ceil(T::COLUMNS);
        let scratch = scratch.reserve(panels * T::COLUMNS * DEPTH).as_mut_ptr();
        unsafe { T::begin() };
        for from in (0..self.words).step_by(DEPTH) {
            let depth = DEPTH.min(self.words - from);
            for panel in 0..panels {
                let to = unsafe { scratch.add(panel * T::COLUMNS * depth) };
                unsafe { T::pack_panel(self.w, self.columns.start + panel * T::COLUMNS, from, depth, to) };
            }
            let packed = unsafe { self.packed.add(from * self.all_tiles * T::ROWS) };
            for group in self.tiles.clone().step_by(GROUP_ROWS / T::ROWS) {
                let group = group..(group + GROUP_ROWS / T::ROWS).min(self.tiles.end);
                for panel in 0..panels {
                    let column = self.columns.start + panel * T::COLUMNS;
                    for tile in group.clone() {
                        let before = match self.bias {
                            _ if from > 0 => Before::Sums,
                            Some(bias) => Before::Bias(bias[column..].as_ptr()),
                            None => Before::Nothing,
                        };
                        let place = Place {
                            y: y.wrapping_add((self.first + tile * T::ROWS) * stride + column),
                            stride,
                            rows: T::ROWS.min(self.rows - tile * T::ROWS),
                            columns: T::COLUMNS.min(self.columns.end - column),
                            before,
                        };
                        unsafe {
                            let (x, w) = (packed.add(tile * depth * T::ROWS), scratch.add(panel * T::COLUMNS * depth));
                            T::compute(depth, x, w, place);
                        }
                    }
                }
            }
        }
        unsafe { T::end() };
    }
}

/// Vector registers per row of a tile.
const COLUMNS: usize = 2;

/// A tile of `ROWS` rows of two vector registers.
pub struct Registers<L, const ROWS: usize>(PhantomData<L>);

impl<L: Lanes, const ROWS: usize> Tile for Registers<L, ROWS> {
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS * L::WIDTH;
    const PAIRS: bool = L::PAIRS;

    fn available() -> bool {
        L::available()
    }
    #[inline(always)]
    unsafe fn pack_rows(x: &Rows, first: usize, from: usize, depth: usize, to: *mut f32) {
        unsafe { pack::rows::<L, ROWS>(x, first, from, depth, to) }
    }
    #[inline(always)]
    unsafe fn pack_panel(w: &Weight, first: usize, from: usize, depth: usize, to: *mut f32) {
        unsafe { pack::weight::<L>(w, first, from, depth, COLUMNS * L::WIDTH, to) }
    }
    #[inline(always)]
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, place: Place) {
        for r in 0..ROWS {
            L::prefetch(place.y.wrapping_add(r * place.stride));
        }
        unsafe { store::<L, ROWS>(sums::<L, ROWS>(depth, x, w), &place) }
    }
}

/// Adds the sums of a tile to what was before.
#[inline(always)]
unsafe fn store<L: Lanes, const ROWS: usize>(sums: [[L::Vector; COLUMNS]; ROWS], place: &Place) {
    let width = COLUMNS * L::WIDTH;
    // A constant number of turns, so that the sums stay in registers.
    for (r, sums) in sums.iter().enumerate() {
        if r >= place.rows {
            break;
        }
        let to = unsafe { place.y.add(r * place.stride) };
        let before = match place.before {
            Before::Nothing => None,
            Before::Bias(bias) => Some(bias),
            Before::Sums => Some(to.cast_const()),
        };
        if place.columns == width {
            for (i, sum) in sums.iter().enumerate() {
                let before = before.map(|before| unsafe { L::load(before.add(i * L::WIDTH)) });
                unsafe { L::store(to.add(i * L::WIDTH), before.map_or(*sum, |before| L::add(before, *sum))) };
            }
        } else {
            let mut whole = [0f32; 32];
            for (i, sum) in sums.iter().enumerate() {
                unsafe { L::store(whole.as_mut_ptr().add(i * L::WIDTH), *sum) };
            }
            for (c, sum) in whole.iter().enumerate().take(place.columns) {
                unsafe { *to.add(c) = before.map_or(*sum, |before| *before.add(c) + sum) };
            }
        }
    }
}

/// Sums over `depth` words of packed rows and a packed panel.
///
/// Its loops count by hand: a build that is hardly optimised inlines no iterators, keeps the sums in memory instead of registers, and
/// takes 25 times as long.
#[inline(always)]
unsafe fn sums<L: Lanes, const ROWS: usize>(
    depth: usize,
    x: *const f32,
    w: *const f32,
) -> [[L::Vector; COLUMNS]; ROWS] {
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
