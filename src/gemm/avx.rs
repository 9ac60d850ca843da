//! SIMD registers of x86-64: AVX2, AVX-512, and AVX-512 with products of bf16 pairs.

use std::arch::x86_64::*;

use super::simd::Simd;

macro_rules! simd_kinds {
    ($($(#[$about:meta])* $name:ident: $width:literal in $vector:ty, pairs: $pairs:literal, if $available:expr;
        $zero:ident, $load:ident, $store:ident, $add:ident, splat $from:ident: $splat:expr,
        multiply_add $sum:ident $a:ident $b:ident: $multiply_add:expr;)+) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy)]
            pub(super) struct $name;

            impl Simd for $name {
                type Vector = $vector;
                const WIDTH: usize = $width;
                const PAIRS: bool = $pairs;

                fn available() -> bool {
                    $available
                }
                #[inline(always)]
                unsafe fn zero() -> $vector {
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { $zero() }
                }
                #[inline(always)]
                fn prefetch(from: *const f32) {
                    // SAFETY: a prefetch of any address has no effect but on time.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> $vector {
                    // SAFETY: the caller promises that the CPU has these instructions, and the
                    // words at `from`.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn splat($from: *const f32) -> $vector {
                    // SAFETY: the caller promises that the CPU has these instructions, and the word
                    // there.
                    unsafe { $splat }
                }
                #[inline(always)]
                unsafe fn store(to: *mut f32, vector: $vector) {
                    // SAFETY: the caller promises that the CPU has these instructions, and the
                    // words at `to`.
                    unsafe { $store(to, vector) }
                }
                #[inline(always)]
                unsafe fn add(a: $vector, b: $vector) -> $vector {
                    // SAFETY: the caller promises that the CPU has these instructions.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn multiply_add($sum: $vector, $a: $vector, $b: $vector) -> $vector {
                    // SAFETY: the caller promises that the CPU has these instructions, and every
                    // bit pattern is a pair of bf16.
                    unsafe { $multiply_add }
                }
            }
        )+
    };
}

simd_kinds! {
    /// AVX2 and FMA: 16 registers of 8 numbers.
    Avx2: 8 in __m256, pairs: false, if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps,
        splat from: _mm256_broadcast_ss(&*from),
        multiply_add sum a b: _mm256_fmadd_ps(a, b, sum);

    /// AVX-512: 32 registers of 16 numbers.
    Avx512: 16 in __m512, pairs: false, if Avx2::available() && is_x86_feature_detected!("avx512f");
        _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
        splat from: _mm512_set1_ps(*from),
        multiply_add sum a b: _mm512_fmadd_ps(a, b, sum);

    /// AVX-512 with products of bf16 pairs, summed in f32.
    Avx512Bf16: 16 in __m512, pairs: true, if Avx512::available() && is_x86_feature_detected!("avx512bf16");
        _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
        splat from: _mm512_set1_ps(*from),
        multiply_add sum a b: _mm512_dpbf16_ps(
            sum,
            std::mem::transmute::<__m512, __m512bh>(a),
            std::mem::transmute::<__m512, __m512bh>(b),
        );
}
