//! Part of a product as tiles, and tiles made of vector registers.

use std::marker::PhantomData;

use super::blocking::{DEPTH, GROUP_ROWS};
use super::lanes::Lanes;
use super::operands::{Rows, Values, Weight};
use super::pack;
use super::scratch::Scratch;

/// What a tile is made of: how its operands are packed, and its innermost loop.
pub trait Tile {
    /// Rows of x, and outputs.
    const ROWS: usize;
    const COLUMNS: usize;
    /// A word holds two bf16.
    const PAIRS: bool;
    /// The words of the inner dimension are a multiple of this, the last of them zeros.
    const STEP: usize = 1;

    /// Whether this CPU has what the tile is made of.
    fn available() -> bool;
    /// Before the first tile of a chunk on a thread.
    ///
    /// # Safety
    /// `available` is true.
    #[inline(always)]
    unsafe fn begin() {}
    /// After the last tile of a chunk on a thread.
    ///
    /// # Safety
    /// `begin` came before it on this thread.
    #[inline(always)]
    unsafe fn end() {}
    /// Packs `ROWS` rows of x from row `first`, words `from..from + depth`, into `depth * ROWS` words.
    ///
    /// # Safety
    /// `available` is true.
    unsafe fn pack_rows(x: &Rows, first: usize, from: usize, depth: usize, to: &mut [f32]);
    /// Packs `COLUMNS` outputs of a weight from output `first`, words `from..from + depth`, into `depth * COLUMNS` words.
    ///
    /// # Safety
    /// `available` is true.
    unsafe fn pack_panel(w: &Weight, first: usize, from: usize, depth: usize, to: &mut [f32]);
    /// Sums over `depth` words of packed rows and a packed panel.
    ///
    /// # Safety
    /// It is called between `begin` and `end`. `x` leads to what `pack_rows` wrote and `w` to what `pack_panel` wrote, both of
    /// this depth, and `place` to room that nobody else uses.
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
///
/// # Safety
/// As for `Kind::pack`, where the CPU has what the tile is made of.
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
            // SAFETY: the caller promises room for all tiles, and that these are nobody else's; every tile has its own place.
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
    /// As for `Kind::chunk`, where the CPU has what the tile is made of.
    #[inline(always)]
    pub unsafe fn run<T: Tile>(&self, y: *mut f32, stride: usize, scratch: &mut Scratch) {
        let panels = self.columns.len().div_ceil(T::COLUMNS);
        // Numbers of one panel in codes, two per word at most.
        let decoded = if matches!(self.w.values, Values::Codes(_)) { 2 * T::COLUMNS * DEPTH } else { 0 };
        let scratch = scratch.reserve(panels * T::COLUMNS * DEPTH + decoded);
        let (scratch, decoded) = scratch.split_at_mut(panels * T::COLUMNS * DEPTH);
        // SAFETY: the caller promises that the CPU has what the tile is made of.
        unsafe { T::begin() };
        for from in (0..self.words).step_by(DEPTH) {
            let depth = DEPTH.min(self.words - from);
            for (panel, to) in scratch.chunks_exact_mut(T::COLUMNS * depth).enumerate().take(panels) {
                let first = self.columns.start + panel * T::COLUMNS;
                let numbers = self.w.numbers(first, T::COLUMNS, if T::PAIRS { 2 } else { 1 }, from, depth, decoded);
                let (w, first, from) = numbers.as_ref().map_or((self.w, first, from), |numbers| (numbers, 0, 0));
                // SAFETY: the caller promises that the CPU has what the tile is made of.
                unsafe { T::pack_panel(w, first, from, depth, to) };
            }
            // SAFETY: the caller promises all tiles, of all blocks of depth.
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
                        let w = scratch[panel * T::COLUMNS * depth..].as_ptr();
                        // SAFETY: `pack` wrote the tile and `pack_panel` the panel; the caller promises the room in `y`.
                        unsafe { T::compute(depth, packed.add(tile * depth * T::ROWS), w, place) };
                    }
                }
            }
        }
        // SAFETY: as for `begin`.
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
    unsafe fn pack_rows(x: &Rows, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: the caller promises that `L` is available.
        unsafe { pack::rows::<L, ROWS>(x, first, from, depth, to) }
    }
    #[inline(always)]
    unsafe fn pack_panel(w: &Weight, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: the caller promises that `L` is available.
        unsafe { pack::weight::<L>(w, first, from, depth, COLUMNS * L::WIDTH, to) }
    }
    #[inline(always)]
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, place: Place) {
        for r in 0..ROWS {
            L::prefetch(place.y.wrapping_add(r * place.stride));
        }
        // SAFETY: the caller promises that `L` is available, the packed operands, and the room in `place`.
        unsafe { store::<L, ROWS>(sums::<L, ROWS>(depth, x, w), &place) }
    }
}

/// Adds the sums of a tile to what was before.
///
/// # Safety
/// `L` is available, and `place` leads to room for its rows and columns, and to as many values of a bias.
#[inline(always)]
unsafe fn store<L: Lanes, const ROWS: usize>(sums: [[L::Vector; COLUMNS]; ROWS], place: &Place) {
    let width = COLUMNS * L::WIDTH;
    // A constant number of turns, so that the sums stay in registers.
    for (r, sums) in sums.iter().enumerate() {
        if r >= place.rows {
            break;
        }
        // SAFETY: row `r` is one of the place's, and within it only its columns are read and written to.
        unsafe {
            let to = place.y.add(r * place.stride);
            let before = match place.before {
                Before::Nothing => None,
                Before::Bias(bias) => Some(bias),
                Before::Sums => Some(to.cast_const()),
            };
            if place.columns == width {
                for (i, sum) in sums.iter().enumerate() {
                    let sum = match before {
                        Some(before) => L::add(L::load(before.add(i * L::WIDTH)), *sum),
                        None => *sum,
                    };
                    L::store(to.add(i * L::WIDTH), sum);
                }
            } else {
                let mut whole = [0f32; 32];
                for (i, sum) in sums.iter().enumerate() {
                    L::store(whole.as_mut_ptr().add(i * L::WIDTH), *sum);
                }
                for (c, sum) in whole.iter().enumerate().take(place.columns) {
                    *to.add(c) = before.map_or(*sum, |before| *before.add(c) + sum);
                }
            }
        }
    }
}

/// Sums over `depth` words of packed rows and a packed panel.
///
/// Its loops count by hand: a build that is hardly optimised inlines no iterators, keeps the sums in memory instead of registers, and
/// takes 25 times as long.
///
/// # Safety
/// `L` is available, `x` leads to `depth * ROWS` words and `w` to `depth` times two registers of them.
#[inline(always)]
unsafe fn sums<L: Lanes, const ROWS: usize>(
    depth: usize,
    x: *const f32,
    w: *const f32,
) -> [[L::Vector; COLUMNS]; ROWS] {
    // SAFETY: the caller promises the words, none of which is read past its end.
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
