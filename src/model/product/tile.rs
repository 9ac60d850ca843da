//! The innermost loops of a product, once per kind of register.

use super::lanes::{Lanes, Portable};
use super::pack;
use super::{Buffer, DEPTH, GROUP_ROWS, Rows, Weight};

/// Registers per row of a tile.
const COLUMNS: usize = 2;

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

macro_rules! kinds {
    ($($(#[$cfg:meta])* $kind:ident($lanes:path, $rows:literal, $features:tt)),+ $(,)?) => {
        /// A kind of tile.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$cfg])* $kind),+ }

        impl Kind {
            /// All that this CPU can run.
            #[cfg(test)]
            pub fn available() -> Vec<Kind> {
                let mut kinds = Vec::new();
                $($(#[$cfg])* if <$lanes>::available() { kinds.push(Kind::$kind) })+
                kinds
            }

            /// Rows of a tile.
            pub fn rows(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => $rows),+ }
            }

            /// Outputs of a tile.
            pub fn columns(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => COLUMNS * <$lanes>::WIDTH),+ }
            }

            pub fn pairs(self) -> bool {
                match self { $($(#[$cfg])* Kind::$kind => <$lanes>::PAIRS),+ }
            }

            /// Packs tiles of `x`, whose row `first` begins the first of all tiles, to their places behind `to`.
            ///
            /// # Safety
            /// `to` has room for all tiles of `rows` rows and `words` words.
            pub unsafe fn pack(self, x: &Rows, first: usize, rows: usize, tiles: std::ops::Range<usize>, words: usize, to: *mut f32) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(x: &Rows, first: usize, rows: usize, tiles: std::ops::Range<usize>, words: usize, to: *mut f32) {
                        unsafe { pack_tiles::<$lanes, $rows>(x, first, rows, tiles, words, to) }
                    });
                    unsafe { run(x, first, rows, tiles, words, to) }
                })+ }
            }

            /// Computes a chunk into `y`, whose rows are `stride` apart; `scratch` is for panels of the weight.
            ///
            /// # Safety
            /// `chunk.packed` holds what `pack` wrote, and `y` all outputs of the chunk.
            pub unsafe fn chunk(self, chunk: &Chunk, y: *mut f32, stride: usize, scratch: &mut Buffer) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(chunk: &Chunk, y: *mut f32, stride: usize, scratch: &mut Buffer) {
                        unsafe { chunk.run::<$lanes, $rows>(y, stride, scratch) }
                    });
                    unsafe { run(chunk, y, stride, scratch) }
                })+ }
            }
        }
    };
    (@feature "", $($function:tt)+) => { $($function)+ };
    (@feature $features:literal, $($function:tt)+) => { #[target_feature(enable = $features)] $($function)+ };
}

kinds! {
    Portable(Portable, 4, ""),
    #[cfg(test)]
    PortablePairs(super::lanes::PortablePairs, 4, ""),
    #[cfg(target_arch = "x86_64")]
    Avx2(super::lanes::Avx2, 6, "avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Avx512(super::lanes::Avx512, 12, "avx512f,avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(super::lanes::Avx512Bf16, 12, "avx512bf16,avx512f,avx2,fma"),
}

impl Kind {
    /// The widest that this CPU has; one that rounds x to bf16 only with `pairs`.
    #[cfg(target_arch = "x86_64")]
    pub fn best(pairs: bool) -> Kind {
        match () {
            _ if pairs && super::lanes::Avx512Bf16::available() => Kind::Avx512Bf16,
            _ if super::lanes::Avx512::available() => Kind::Avx512,
            _ if super::lanes::Avx2::available() => Kind::Avx2,
            _ => Kind::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn best(_pairs: bool) -> Kind {
        Kind::Portable
    }

    /// The vector instructions it is made of.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 => "AVX512-BF16",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "AVX2",
            _ => "portable code",
        }
    }

    /// Words of `input` numbers.
    pub fn words(self, input: usize) -> usize {
        if self.pairs() { input.div_ceil(2) } else { input }
    }
}

#[inline(always)]
unsafe fn pack_tiles<L: Lanes, const ROWS: usize>(
    x: &Rows,
    first: usize,
    rows: usize,
    tiles: std::ops::Range<usize>,
    words: usize,
    to: *mut f32,
) {
    let all_tiles = rows.div_ceil(ROWS);
    for from in (0..words).step_by(DEPTH) {
        let depth = DEPTH.min(words - from);
        for tile in tiles.clone() {
            let to = unsafe { to.add(from * all_tiles * ROWS + tile * depth * ROWS) };
            unsafe { pack::rows::<L, ROWS>(x, first + tile * ROWS, from, depth, to) };
        }
    }
}

impl Chunk<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes, const ROWS: usize>(&self, y: *mut f32, stride: usize, scratch: &mut Buffer) {
        let width = COLUMNS * L::WIDTH;
        let panels = self.columns.len().div_ceil(width);
        let scratch = scratch.room(panels * width * DEPTH).as_mut_ptr();
        for from in (0..self.words).step_by(DEPTH) {
            let depth = DEPTH.min(self.words - from);
            for panel in 0..panels {
                let to = unsafe { scratch.add(panel * width * depth) };
                unsafe { pack::weight::<L>(self.w, self.columns.start + panel * width, from, depth, width, to) };
            }
            let packed = unsafe { self.packed.add(from * self.all_tiles * ROWS) };
            for group in self.tiles.clone().step_by(GROUP_ROWS / ROWS) {
                let group = group..(group + GROUP_ROWS / ROWS).min(self.tiles.end);
                for panel in 0..panels {
                    for tile in group.clone() {
                        unsafe {
                            let (x, w) = (packed.add(tile * depth * ROWS), scratch.add(panel * width * depth));
                            let (row, column) = (self.first + tile * ROWS, self.columns.start + panel * width);
                            for r in 0..ROWS {
                                L::prefetch(y.wrapping_add((row + r) * stride + column));
                            }
                            let sums = sums::<L, ROWS>(depth, x, w);
                            self.store::<L, ROWS>(sums, tile, panel, from > 0, y, stride);
                        }
                    }
                }
            }
        }
    }

    /// Adds the sums of a tile to y, or begins y with them and the bias.
    #[inline(always)]
    unsafe fn store<L: Lanes, const ROWS: usize>(
        &self,
        sums: [[L::Vector; COLUMNS]; ROWS],
        tile: usize,
        panel: usize,
        again: bool,
        y: *mut f32,
        stride: usize,
    ) {
        let width = COLUMNS * L::WIDTH;
        let column = self.columns.start + panel * width;
        let columns = width.min(self.columns.end - column);
        let rows = ROWS.min(self.rows - tile * ROWS);
        let bias = self.bias.filter(|_| !again).map(|bias| unsafe { bias.as_ptr().add(column) });
        // A constant number of turns, so that the sums stay in registers.
        for (r, sums) in sums.iter().enumerate() {
            if r >= rows {
                break;
            }
            let to = unsafe { y.add((self.first + tile * ROWS + r) * stride + column) };
            if columns == width {
                for (i, sum) in sums.iter().enumerate() {
                    let to = unsafe { to.add(i * L::WIDTH) };
                    let before =
                        if again { Some(to.cast_const()) } else { bias.map(|bias| unsafe { bias.add(i * L::WIDTH) }) };
                    unsafe { L::store(to, before.map_or(*sum, |before| L::add(L::load(before), *sum))) };
                }
            } else {
                let mut whole = [0f32; 32];
                for (i, sum) in sums.iter().enumerate() {
                    unsafe { L::store(whole.as_mut_ptr().add(i * L::WIDTH), *sum) };
                }
                for (c, sum) in whole.iter().enumerate().take(columns) {
                    unsafe {
                        let before = if again { *to.add(c) } else { bias.map_or(0.0, |bias| *bias.add(c)) };
                        *to.add(c) = if again || bias.is_some() { before + sum } else { *sum };
                    }
                }
            }
        }
    }
}

/// Sums over `depth` words of packed rows and a packed panel.
#[inline(always)]
unsafe fn sums<L: Lanes, const ROWS: usize>(
    depth: usize,
    x: *const f32,
    w: *const f32,
) -> [[L::Vector; COLUMNS]; ROWS] {
    unsafe {
        let mut sums = [[L::zero(); COLUMNS]; ROWS];
        for k in 0..depth {
            let w = w.add(k * COLUMNS * L::WIDTH);
            let w: [L::Vector; COLUMNS] = [L::load(w), L::load(w.add(L::WIDTH))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = L::splat(x.add(k * ROWS + r));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = L::multiply_add(*sum, x, w);
                }
            }
        }
        sums
    }
}
