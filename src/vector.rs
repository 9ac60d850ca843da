//! Loops over values in the widest SIMD registers of the CPU, and the exponential function for such
//! loops.
//!
//! The program is built for any x86-64 CPU, and the loops that are marked here are compiled a
//! second time for AVX2. This neither fuses nor reorders operations, so that results are the same.

/// Evaluates an expression in the widest SIMD registers of the CPU at hand:
/// `vectorised!(|| expression)`.
///
/// The expression stands in two closures, each with one caller, because the compiler inlines a
/// large closure only where it has a single one; and what is not inlined is compiled for any CPU.
macro_rules! vectorised {
    (|| $expression:expr) => {
        match $crate::vector::Avx2::detected() {
            Some(avx2) => avx2.run(|| $expression),
            None => $crate::vector::on_any_cpu(|| $expression),
        }
    };
}
pub(crate) use vectorised;

/// Proof that the CPU has AVX2.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    #[inline(always)]
    pub fn detected() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Some(Self(()));
        }
        None
    }

    /// Calls `f`, which is compiled for AVX2 if it is inlined.
    #[inline(always)]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        /// # Safety
        /// The CPU has AVX2.
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
        unsafe fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: the proof is made only where the CPU has these instructions.
        unsafe { with_avx2(f) }
    }
}

/// Calls `f`, which is compiled for any CPU.
#[inline(always)]
pub fn on_any_cpu<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// e^x within two units in the last place. Arguments below -87 and above 88 are clamped, so that
/// the result is never 0 and never infinite. NaN stays NaN.
///
/// This is Cephes' `expf`: x = n ln 2 + r, a polynomial in r, and n in the exponent bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOW: f32 = -87.0;
    const HIGH: f32 = 88.0;
    /// Adding this number, 1.5 * 2^23, rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < LOW { LOW } else { x };
    let x = if x > HIGH { HIGH } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // The low bits of `shifted` are those of n + 0x4b400000. The shift moves n into the exponent
    // bits.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    y * scale
}

/// e^x for x up to 0, within two units in the last place. Below -708 it is 0. NaN stays NaN.
///
/// x = n ln 2 + r, the Taylor polynomial of r, and n in the exponent bits. ln 2 is in two parts, of
/// which the first has 33 bits, so that its product with n is exact.
#[inline(always)]
pub fn exp_of_negative(x: f64) -> f64 {
    const LOW: f64 = -708.0;
    /// Adding this number, 1.5 * 2^52, rounds to an integer, which then stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    /// 1 / k! for k from 12 down to 2.
    const TAYLOR: [f64; 11] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    let clamped = if x < LOW { LOW } else { x };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.0 / 6_227_020_800.0;
    for term in TAYLOR {
        p = p * r + term;
    }
    let y = p * (r * r) + r + 1.0;
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    if x < LOW { 0.0 } else { y * scale }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Number of partial sums of `sum`, whose order is fixed.
const LANES: usize = 16;

/// The sum of f(x), in 16 partial sums. It is fast and has the same value for every register width.
#[inline(always)]
pub fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += f(*v);
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let exact = (x as f64).exp();
            let unit = (exact as f32).next_up() as f64 - exact as f32 as f64;
            assert!(((exp(x) as f64 - exact) / unit).abs() <= 2.0, "{x}: {} for {exact}", exp(x));
        }
        for i in -708_000..=0 {
            let x = f64::from(i) * 1e-3;
            let exact = x.exp();
            let unit = exact.next_up() - exact;
            assert!(((exp_of_negative(x) - exact) / unit).abs() <= 2.0, "{x}: {}", exp_of_negative(x));
        }
        let edges = [0.0, -709.0, f64::NEG_INFINITY].map(exp_of_negative);
        assert!(edges == [1.0, 0.0, 0.0] && exp_of_negative(f64::NAN).is_nan());
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) > 1e38 && exp(f32::NEG_INFINITY) < 2e-38);
    }
}
