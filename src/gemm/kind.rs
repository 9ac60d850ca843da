//! The kinds of micro-kernels, each compiled for its vector instructions, and the choice between
//! them.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::avx;
use super::operands::{Lhs, Rhs};
use super::scratch::Scratch;
use super::simd;
use super::tile::{Chunk, MicroKernel, SimdKernel, pack_panels, pack_tiles};

macro_rules! kinds {
    ($($(#[$cfg:meta])* $kind:ident($tile:ty, $features:tt)),+ $(,)?) => {
        /// A kind of micro-kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$cfg])* $kind),+ }

        impl Kind {
            /// All kinds that this CPU can run.
            #[cfg(test)]
            pub fn all_available() -> Vec<Kind> {
                let kinds = [$($(#[$cfg])* Kind::$kind),+];
                kinds.into_iter().filter(|kind| kind.available()).collect()
            }

            /// True if this CPU can run it.
            pub fn available(self) -> bool {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::available()),+ }
            }

            /// Rows of its tile.
            pub fn rows(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::ROWS),+ }
            }

            /// Outputs of its tile.
            pub fn columns(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::COLUMNS),+ }
            }

            /// True if a word holds two bf16 numbers.
            pub fn pairs(self) -> bool {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::PAIRS),+ }
            }

            /// The inner dimension is padded with zeros to a multiple of this number of words.
            fn step(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::STEP),+ }
            }

            /// Packs the tiles `tiles` of `x` to their positions in `to`. The first of all tiles
            /// begins with row `first` of `x`.
            ///
            /// # Safety
            /// This CPU can run the kind. `to` has space for all tiles of `rows` rows and `words`
            /// words, and nobody else accesses the positions of these tiles.
            pub unsafe fn pack(self, x: &Lhs, first: usize, rows: usize, tiles: Range<usize>, words: usize, to: *mut f32) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(x: &Lhs, first: usize, rows: usize, tiles: Range<usize>, words: usize, to: *mut f32) {
                        // SAFETY: the caller of `pack` promises the conditions of `pack_tiles`.
                        unsafe { pack_tiles::<$tile>(x, first, rows, tiles, words, to) }
                    });
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { run(x, first, rows, tiles, words, to) }
                })+ }
            }

            /// Computes a chunk of `y`, whose rows are `stride` apart. `scratch` is for panels of
            /// the weight.
            ///
            /// # Safety
            /// This CPU can run the kind, `pack` wrote `chunk.packed`, and `y` has space for all
            /// outputs of the chunk, which nobody else accesses.
            pub unsafe fn chunk(self, chunk: &Chunk, y: *mut f32, stride: usize, scratch: &mut Scratch) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(chunk: &Chunk, y: *mut f32, stride: usize, scratch: &mut Scratch) {
                        // SAFETY: the caller of `chunk` promises the conditions of `run`.
                        unsafe { chunk.run::<$tile>(y, stride, scratch) }
                    });
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { run(chunk, y, stride, scratch) }
                })+ }
            }

            /// The number of blocks of depth whose panels `chunk` packs at the same time.
            pub(super) fn span(self) -> usize {
                match self { $($(#[$cfg])* Kind::$kind => <$tile>::SPAN),+ }
            }

            /// Packs the panels of some outputs, for all words of `span`.
            ///
            /// # Safety
            /// This CPU can run the kind.
            pub(super) unsafe fn pack_panels<'s>(self, w: &Rhs, columns: Range<usize>, span: Range<usize>, scratch: &'s mut Scratch) -> &'s [f32] {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run<'s>(w: &Rhs, columns: Range<usize>, span: Range<usize>, scratch: &'s mut Scratch) -> &'s [f32] {
                        // SAFETY: the caller of `pack_panels` promises the conditions.
                        unsafe { pack_panels::<$tile>(w, columns, span, scratch) }
                    });
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { run(w, columns, span, scratch) }
                })+ }
            }

            /// Computes some tiles of a chunk of `y` with the panels that `pack_panels` made of
            /// the chunk's outputs and of all words.
            ///
            /// # Safety
            /// This CPU can run the kind, `pack` wrote `chunk.packed` and `pack_panels` wrote
            /// `panels`, and `y` has space for all outputs of these tiles, which nobody else
            /// accesses.
            pub(super) unsafe fn multiply(self, chunk: &Chunk, tiles: Range<usize>, panels: &[f32], y: *mut f32, stride: usize) {
                match self { $($(#[$cfg])* Kind::$kind => {
                    kinds!(@feature $features, unsafe fn run(chunk: &Chunk, tiles: Range<usize>, panels: &[f32], y: *mut f32, stride: usize) {
                        // SAFETY: the caller of `multiply` promises the conditions.
                        unsafe { chunk.multiply::<$tile>(tiles, 0..chunk.words, panels.as_ptr(), y, stride) }
                    });
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { run(chunk, tiles, panels, y, stride) }
                })+ }
            }
        }
    };
    (@feature "", $($function:tt)+) => { $($function)+ };
    (@feature $features:literal, $($function:tt)+) => { #[target_feature(enable = $features)] $($function)+ };
}

kinds! {
    Portable(SimdKernel<simd::Portable<false>, 4>, ""),
    #[cfg(test)]
    PortablePairs(SimdKernel<simd::Portable<true>, 4>, ""),
    #[cfg(target_arch = "x86_64")]
    Avx2(SimdKernel<avx::Avx2, 6>, "avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Avx512(SimdKernel<avx::Avx512, 12>, "avx512f,avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(SimdKernel<avx::Avx512Bf16, 12>, "avx512bf16,avx512f,avx2,fma"),
    #[cfg(all(test, target_arch = "x86_64"))]
    LikeAmx(amx::AmxKernel<false>, "avx512bf16,avx512f,avx2,fma"),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::AmxKernel<true>, "avx512bf16,avx512f,avx2,fma"),
}

impl Kind {
    /// The fastest kind of this CPU. Only with `pairs` it may round x to bf16.
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

    /// The name of its vector instructions.
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

    /// Number of words for `input` numbers.
    pub fn words(self, input: usize) -> usize {
        let words = if self.pairs() { input.div_ceil(2) } else { input };
        words.next_multiple_of(self.step())
    }
}
