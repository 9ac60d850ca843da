//! The kinds of tiles, each compiled for the vector instructions it is made of, and the choice among them.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::avx;
use super::lanes;
use super::operands::Rows;
use super::scratch::Scratch;
use super::tile::{Chunk, Registers, Tile, pack_tiles};

macro_rules! kinds {
    ($($(#[$cfg:meta])* $kind:ident($tile:ty, $features:tt)),+ $(,)?) => {
        /// A kind of tile.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$cfg])* $kind),+ }

        impl Kind {
            /// All that this CPU can run.
            #[cfg(test)]
            pub fn all_available() -> Vec<Kind> {
                let kinds = [$($(#[$cfg])* Kind::$kind),+];
                kinds.into_iter().filter(|kind| kind.available()).collect()
            }

            /// Whether this CPU can run it.
            pub fn available(self) -> bool {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::available()),+ }
            }

            /// Rows of a tile.
            pub fn rows(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::ROWS),+ }
            }

            /// Outputs of a tile.
            pub fn columns(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::COLUMNS),+ }
            }

            /// Words hold two bf16.
            pub fn pairs(self) -> bool {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::PAIRS),+ }
            }

            /// The inner dimension is padded with zeros to a multiple of so many words.
            fn step(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::STEP),+ }
            }

            /// Packs tiles of `x`, whose row `first` begins the first of all tiles, to their places behind `to`.
            ///
            /// # Safety
            /// This CPU can run the kind, and `to` has room for all tiles of `rows` rows and `words` words; nobody else uses the
            /// places of these.
            pub unsafe fn pack(self, x: &Rows, first: usize, rows: usize, tiles: Range<usize>, words: usize, to: *mut f32) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(x: &Rows, first: usize, rows: usize, tiles: Range<usize>, words: usize, to: *mut f32) {
                        // SAFETY: the caller of `pack` promises what `pack_tiles` asks for.
                        unsafe { pack_tiles::<$tile>(x, first, rows, tiles, words, to) }
                    });
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { run(x, first, rows, tiles, words, to) }
                })+ }
            }

            /// Computes a chunk into `y`, whose rows are `stride` apart; `scratch` is for panels of the weight.
            ///
            /// # Safety
            /// This CPU can run the kind, `chunk.packed` holds what `pack` wrote, and `y` has room for all outputs of the chunk,
            /// which nobody else uses.
            pub unsafe fn chunk(self, chunk: &Chunk, y: *mut f32, stride: usize, scratch: &mut Scratch) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(chunk: &Chunk, y: *mut f32, stride: usize, scratch: &mut Scratch) {
                        // SAFETY: the caller of `chunk` promises what `run` asks for.
                        unsafe { chunk.run::<$tile>(y, stride, scratch) }
                    });
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { run(chunk, y, stride, scratch) }
                })+ }
            }
        }
    };
    (@feature "", $($function:tt)+) => { $($function)+ };
    (@feature $features:literal, $($function:tt)+) => { #[target_feature(enable = $features)] $($function)+ };
}

kinds! {
    Portable(Registers<lanes::Portable<false>, 4>, ""),
    #[cfg(test)]
    PortablePairs(Registers<lanes::Portable<true>, 4>, ""),
    #[cfg(target_arch = "x86_64")]
    Avx2(Registers<avx::Avx2, 6>, "avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Avx512(Registers<avx::Avx512, 12>, "avx512f,avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Registers<avx::Avx512Bf16, 12>, "avx512bf16,avx512f,avx2,fma"),
    #[cfg(all(test, target_arch = "x86_64"))]
    LikeAmx(amx::Tiles<false>, "avx512bf16,avx512f,avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::Tiles<true>, "avx512bf16,avx512f,avx2,fma"),
}

impl Kind {
    /// The fastest that this CPU has; one that rounds x to bf16 only with `pairs`.
    pub fn best(pairs: bool) -> Kind {
        #[cfg(target_arch = "x86_64")]
        for kind in [Kind::Amx, Kind::Avx512Bf16, Kind::Avx512, Kind::Avx2] {
            if (pairs || !kind.pairs()) && kind.available() {
                return kind;
            }
        }
        let _ = pairs;
        Kind::Portable
    }

    /// The vector instructions it is made of.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => "AMX",
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
        let words = if self.pairs() { input.div_ceil(2) } else { input };
        words.next_multiple_of(self.step())
    }
}
