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
