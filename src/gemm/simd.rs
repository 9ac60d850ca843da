//! The SIMD abstraction of micro-kernels: a vector register, its multiply-add, and its width.
//!
//! Words have 32 bits: an f32, or two bf16 on CPUs that multiply bf16 in pairs. All f32 kinds round
//! each multiply-add once and in the same order, so that their results agree bit for bit. Only
//! `Portable` rounds twice.

/// A kind of vector register.
pub(super) trait Simd: Copy + 'static {
    type Vector: Copy;
    /// f32 numbers per register.
    const WIDTH: usize;
    /// True if a word holds two bf16 numbers, and a multiply-add uses both.
    const PAIRS: bool = false;
    /// True if AVX2 is available for transposing.
    const TRANSPOSES: bool = true;

    /// True if this CPU has such registers.
    fn available() -> bool;
    /// # Safety
    /// `available` is true.
    unsafe fn zero() -> Self::Vector;
    /// # Safety
    /// `available` is true, and `from` points to `WIDTH` words.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// # Safety
    /// `available` is true, and `from` points to a word.
    unsafe fn splat(from: *const f32) -> Self::Vector;
    /// # Safety
    /// `available` is true, and `to` points to `WIDTH` words.
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    /// # Safety
    /// `available` is true.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Prefetches the memory at `from`.
    #[inline(always)]
    fn prefetch(_from: *const f32) {}
    /// sum + a * b; with `PAIRS`, sum plus both products.
    ///
    /// # Safety
    /// `available` is true.
    unsafe fn multiply_add(sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

/// Portable Rust for any CPU. With `PAIRS` a word holds two bf16 numbers, to test the packing on
/// CPUs without bf16 instructions.
#[derive(Clone, Copy)]
pub(super) struct Portable<const PAIRS: bool>;

impl<const PAIRS: bool> Simd for Portable<PAIRS> {
    type Vector = [f32; 8];
    const WIDTH: usize = 8;
    const PAIRS: bool = PAIRS;
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
        // SAFETY: the caller promises eight words.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller promises a word.
        [unsafe { *from }; 8]
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: [f32; 8]) {
        // SAFETY: the caller promises eight words.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(vector) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: [f32; 8], a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        if PAIRS {
            let low = |word: f32| f32::from_bits(word.to_bits() << 16);
            let high = |word: f32| f32::from_bits(word.to_bits() & 0xffff_0000);
            return std::array::from_fn(|i| sum[i] + low(a[i]) * low(b[i]) + high(a[i]) * high(b[i]));
        }
        std::array::from_fn(|i| sum[i] + a[i] * b[i])
    }
}
