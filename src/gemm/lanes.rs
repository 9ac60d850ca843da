//! What a tile of a product needs of a CPU: a vector register, its multiply-add, and how many of them there are.
//!
//! Words are 32 bits: an f32, or two bf16 for CPUs that multiply those in pairs. All kinds that work on f32 round each
//! multiply-add once and in the same order, so that they agree bit for bit; only `Portable` rounds twice.

/// One kind of vector register. Every function may be called only where `available` is true.
pub trait Lanes: Copy + 'static {
    type Vector: Copy;
    /// f32 per register.
    const WIDTH: usize;
    /// A word holds two bf16, and a multiply-add takes both.
    const PAIRS: bool = false;
    /// AVX2 is there to transpose with.
    const TRANSPOSES: bool = true;

    fn available() -> bool;
    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn splat(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Asks for what is at `from`, which will soon be read.
    #[inline(always)]
    fn prefetch(_from: *const f32) {}
    /// sum + a * b; with `PAIRS`, the sum of both products.
    unsafe fn multiply_add(sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

/// Plain Rust, for any CPU.
#[derive(Clone, Copy)]
pub struct Portable;

impl Lanes for Portable {
    type Vector = [f32; 8];
    const WIDTH: usize = 8;
    const TRANSPOSES: bool = false;

    fn available() -> bool {
        true
    }
    #[inline(always)]
    unsafe fn zero() -> [f32; 8] {
        [0.0; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> [f32; 8] {
        [unsafe { *from }; 8]
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: [f32; 8]) {
        unsafe { to.cast::<[f32; 8]>().write_unaligned(vector) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: [f32; 8], a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| sum[i] + a[i] * b[i])
    }
}

/// `Portable` with words of two bf16, for tests of how pairs are laid out on CPUs that cannot multiply them.
#[cfg(test)]
#[derive(Clone, Copy)]
pub struct PortablePairs;

#[cfg(test)]
impl Lanes for PortablePairs {
    type Vector = [f32; 8];
    const WIDTH: usize = 8;
    const PAIRS: bool = true;
    const TRANSPOSES: bool = false;

    fn available() -> bool {
        true
    }
    unsafe fn zero() -> [f32; 8] {
        [0.0; 8]
    }
    unsafe fn load(from: *const f32) -> [f32; 8] {
        unsafe { Portable::load(from) }
    }
    unsafe fn splat(from: *const f32) -> [f32; 8] {
        unsafe { Portable::splat(from) }
    }
    unsafe fn store(to: *mut f32, vector: [f32; 8]) {
        unsafe { Portable::store(to, vector) }
    }
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        unsafe { Portable::add(a, b) }
    }
    unsafe fn multiply_add(sum: [f32; 8], a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        let low = |word: f32| f32::from_bits(word.to_bits() << 16);
        let high = |word: f32| f32::from_bits(word.to_bits() & 0xffff_0000);
        std::array::from_fn(|i| sum[i] + low(a[i]) * low(b[i]) + high(a[i]) * high(b[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// AVX2 and FMA: 16 registers of 8.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    impl Lanes for Avx2 {
        type Vector = __m256;
        const WIDTH: usize = 8;

        fn available() -> bool {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
        }
        #[inline(always)]
        unsafe fn zero() -> __m256 {
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        fn prefetch(from: *const f32) {
            // SAFETY: a prefetch of any address does nothing but take time.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m256 {
            unsafe { _mm256_broadcast_ss(&*from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m256) {
            unsafe { _mm256_storeu_ps(to, vector) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn multiply_add(sum: __m256, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, sum) }
        }
    }

    /// AVX-512: 32 registers of 16.
    #[derive(Clone, Copy)]
    pub struct Avx512;

    impl Lanes for Avx512 {
        type Vector = __m512;
        const WIDTH: usize = 16;

        fn available() -> bool {
            Avx2::available() && is_x86_feature_detected!("avx512f")
        }
        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        fn prefetch(from: *const f32) {
            // SAFETY: a prefetch of any address does nothing but take time.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m512 {
            unsafe { _mm512_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m512) {
            unsafe { _mm512_storeu_ps(to, vector) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn multiply_add(sum: __m512, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, sum) }
        }
    }

    /// AVX-512 with products of bf16 pairs, summed in f32.
    #[derive(Clone, Copy)]
    pub struct Avx512Bf16;

    impl Lanes for Avx512Bf16 {
        type Vector = __m512;
        const WIDTH: usize = 16;
        const PAIRS: bool = true;

        fn available() -> bool {
            Avx512::available() && is_x86_feature_detected!("avx512bf16")
        }
        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { Avx512::zero() }
        }
        #[inline(always)]
        fn prefetch(from: *const f32) {
            // SAFETY: a prefetch of any address does nothing but take time.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { Avx512::load(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m512 {
            unsafe { Avx512::splat(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, vector: __m512) {
            unsafe { Avx512::store(to, vector) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { Avx512::add(a, b) }
        }
        #[inline(always)]
        unsafe fn multiply_add(sum: __m512, a: __m512, b: __m512) -> __m512 {
            unsafe {
                _mm512_dpbf16_ps(
                    sum,
                    std::mem::transmute::<__m512, __m512bh>(a),
                    std::mem::transmute::<__m512, __m512bh>(b),
                )
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Avx512Bf16};
